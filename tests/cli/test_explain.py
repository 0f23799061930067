from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import onnxplain
from onnxplain.runtime.images import read
from onnxplain.runtime.preprocess import Preprocess
from tests.cli.program import listing, program
from tests.runtime.tiny import SHARED, classifier, of_bytes, saved, text

ASSUMED = (
    "note: the model does not say how pixels become its input, so pixel / 255 is assumed (--preprocess unit).\n"
    "  If it was trained otherwise the explanation is wrong without looking it: say how with --preprocess,\n"
    "  or with --scale, --mean and --std.\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """model.onnx, explained.onnx that knows its preprocessing, and three pictures in `in`."""
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.png", "c.bmp"):
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).save(tmp_path / "in" / name)
    saved(classifier(), tmp_path / "model.onnx")
    onnxplain.compile_file(
        classifier(), tmp_path / "explained.onnx", "gradient", preprocess=Preprocess.named("imagenet").to_dict()
    )
    return tmp_path


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_folder_of_pictures(folder: Path) -> None:
    result = program("explain", folder / "explained.onnx", folder / "in", "-o", folder / "out")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == f"explained 3 of 3 pictures by gradient on cpu: {folder}/out\n"
    names = [f"{stem}.{suffix}" for stem in "abc" for suffix in ("npy", "png")]
    assert sorted(listing(folder / "out")) == [*names, "explanations.jsonl"]
    records = lines((folder / "out/explanations.jsonl").read_text())
    assert [Path(record["file"]).name for record in records] == ["a.png", "b.png", "c.bmp"]
    explain = onnxplain.Explainer(folder / "explained.onnx", "cpu")
    for record in records:
        pixels = np.asarray(read(record["file"]).resize((8, 8), Image.Resampling.BILINEAR, box=(2, 0, 14, 12)))
        x = Preprocess.named("imagenet").apply(pixels).transpose(2, 0, 1).astype(np.float32)
        want = explain(x)
        np.testing.assert_allclose(np.load(folder / "out" / record["attribution"]), want["attribution"][0])
        assert record["class"] == record["predicted"] == want["explained_class"][0]
        assert record["score"] == pytest.approx(want["explained_score"][0])
        assert record["method"] == "gradient"
        with Image.open(folder / "out" / record["overlay"]) as overlay:
            assert overlay.size == (256, 256)
    assert result.stdout.splitlines()[0] == (
        f"{folder}/in/a.png: class {records[0]['class']}, score {records[0]['score']:.4g}, a.png"
    )


def test_grey_pictures_without_an_axis_for_channels(folder: Path) -> None:
    model = text("""g (float[N,8,8] x) => (float[N,2] y) <int64[1] one = {1}, float[2,1,1,1] w = {1,-2}>
        { u = Unsqueeze(x, one) c = Conv(u, w) p = GlobalMaxPool(c) y = Flatten(p) }""")
    path = saved(model, folder / "grey.onnx")
    result = program("explain", path, folder / "in/a.png", "-o", folder / "out", "--preprocess", "unit")
    assert result.exit_code == 0, result.stderr
    pixels = np.asarray(
        read(folder / "in/a.png").convert("L").resize((8, 8), Image.Resampling.BILINEAR, box=(2, 0, 14, 12))
    )
    brightest = np.load(folder / "out/a.npy")
    assert brightest.shape == (8, 8)
    assert brightest[np.unravel_index(pixels.argmax(), (8, 8))] == 1


def test_a_model_is_compiled_in_memory_and_the_preprocessing_assumed_aloud(folder: Path) -> None:
    result = program("explain", folder / "model.onnx", folder / "in/a.png", "-o", folder / "out", "--target", "2")
    assert result.exit_code == 0
    assert result.stderr == ASSUMED + f"explained 1 of 1 pictures by gradient on cpu: {folder}/out\n"
    (record,) = lines((folder / "out/explanations.jsonl").read_text())
    assert record["class"] == 2
    assert not list(folder.glob("model.*.onnx"))
    said = program("explain", folder / "model.onnx", folder / "in/a.png", "-o", folder / "out", "--mean", "0.5")
    assert "note" not in said.stderr


def test_methods_and_ranks_are_files_of_their_own(folder: Path) -> None:
    options = ["--method", "grad-cam,integrated-gradients", "--target", "topk:2", "--set", "steps=4", "--json"]
    result = program(
        "explain", folder / "model.onnx", folder / "in/a.png", "-o", folder / "out", "--preprocess", "unit", *options
    )
    records = lines(result.stdout)
    assert [(r["method"], r["rank"], r["overlay"]) for r in records] == [
        ("grad-cam", 1, "a.grad-cam.1.png"),
        ("grad-cam", 2, "a.grad-cam.2.png"),
        ("integrated-gradients", 1, "a.integrated-gradients.1.png"),
        ("integrated-gradients", 2, "a.integrated-gradients.2.png"),
    ]
    assert records[0]["class"] == records[2]["class"] != records[1]["class"]
    assert ["residual" in record for record in records] == [False, False, True, True]
    assert np.load(folder / "out/a.integrated-gradients.2.npy").shape == (3, 8, 8)
    assert np.load(folder / "out/a.grad-cam.1.npy").ndim == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.txt", "ant\nbee\ncat\ndog\n"),
        ("marked.txt", "\ufeffant\nbee\ncat\ndog\n"),
        ("marked.json", '\ufeff["ant","bee","cat","dog"]'),
        ("list.json", '["ant","bee","cat","dog"]'),
        ("object.json", '{"0":"ant","1":"bee","2":"cat","3":"dog"}'),
    ],
)
def test_classes_have_names(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    command = ["explain", folder / "model.onnx", folder / "in/a.png", "-o", folder / "out", "--preprocess", "unit"]
    for index, label in enumerate(["ant", "bee", "cat", "dog"]):
        program(*command, "--labels", folder / name, "-t", index)
        assert json.loads((folder / "out/explanations.jsonl").read_text())["label"] == label
    result = program(
        "explain", folder / "explained.onnx", folder / "in/a.png", "-o", folder / "out", "--labels", folder / name
    )
    (record,) = lines((folder / "out/explanations.jsonl").read_text())
    assert record["label"] == ["ant", "bee", "cat", "dog"][record["class"]]
    assert f"class {record['class']} {record['label']}, score" in result.stdout


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "labels.txt",
            "background\nant\nbee\ncat\ndog\n",
            "UsageError: {path} has 5 labels, and the model has 4 classes.\n"
            "  Give one for each class, in their order, or a JSON object by index for some of them.\n",
        ),
        ("list.json", '["ant"]', "UsageError: {path} has 1 labels, and the model has 4 classes.\n"),
        ("object.json", '{"4":"dog"}', "UsageError: {path} has a label for class 4: the model's classes are 0 to 3.\n"),
        ("object.json", '{"-1":"dog"}', "UsageError: {path} has a label for class -1: "),
    ],
)
def test_names_of_other_classes_are_refused(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    result = program(
        "explain", folder / "explained.onnx", folder / "in/a.png", "-o", folder / "out", "--labels", folder / name
    )
    assert result.exit_code == 2
    assert message.format(path=folder / name) in result.stderr
    assert not (folder / "out").exists()


def test_some_classes_may_lack_a_name(folder: Path) -> None:
    for name, lines_ in (("some.json", '{"0":"ant"}'), ("labels.txt", "ant\nbee\ncat\ndog\n\n\n")):
        (folder / name).write_text(lines_)
        result = program(
            "explain", folder / "explained.onnx", folder / "in/a.png", "--labels", folder / name, "-o", folder / "out"
        )
        assert result.exit_code == 0, result.stderr


def test_a_model_of_raw_pixels_takes_them_as_they_are(folder: Path) -> None:
    """Nothing is assumed aloud: an input of uint8 leaves no choice."""
    model = saved(of_bytes(), folder / "bytes.onnx")
    result = program("explain", model, folder / "in/a.png", "-m", "grad-cam,fem", "-o", folder / "out")
    assert (result.exit_code, "note:" in result.stderr) == (0, False)
    result = program("explain", model, folder / "in/a.png", "-m", "fem", "-o", folder / "out", "--preprocess", "unit")
    assert result.exit_code == 2
    assert result.stderr == (
        "UsageError: input 'pixels' takes uint8 (N, 3, 8, 8), whole numbers from 0 to 255, and the preprocessing makes "
        "others of the pixels.\n  Leave it out, or say --preprocess raw.\n"
    )
    assert program("compile", model, "-m", "cam", "-o", folder / "cam.onnx").exit_code == 0
    checked = program("verify", folder / "cam.onnx", "--against", model, "--images", folder / "in/a.png")
    assert checked.exit_code == 0, checked.stderr


def test_an_unreadable_picture_is_reported_and_the_rest_goes_on(folder: Path) -> None:
    broken = folder / "in/aa.png"
    broken.write_bytes((folder / "in/a.png").read_bytes()[:100])
    result = program("explain", folder / "explained.onnx", folder / "in", folder / "none.png", "-o", folder / "out")
    assert result.exit_code == 1
    first, second, last = result.stderr.splitlines()
    assert first.startswith(f"BadImage: {broken} cannot be read as a picture: ")
    assert second == f"BadImage: there is no file {folder}/none.png."
    assert last == f"explained 3 of 5 pictures by gradient on cpu: {folder}/out"
    assert len(lines((folder / "out/explanations.jsonl").read_text())) == 3
    assert sorted(p.stem for p in (folder / "out").glob("*.png")) == ["a", "b", "c"]


def test_numbers_that_are_none_are_said(folder: Path) -> None:
    """A model that divides by the picture's darkest value, which is zero in one of two."""
    model = text("""g (float[N,3,8,8] pixels) => (float[N,2] logits)
        <int64[3] rest = {1, 2, 3}, int64[2] space = {2, 3}, float[3,2] w = {1, 2, 3, 4, 5, 6}> {
        low = ReduceMin<keepdims = 0>(pixels, rest)
        means = ReduceMean<keepdims = 0>(pixels, space) s = MatMul(means, w) axis = Constant<value_ints = [1]>()
        below = Unsqueeze(low, axis) logits = Div(s, below) }""")
    saved(model, folder / "model.onnx")
    for name, low in (("dark", 0), ("light", 9)):
        Image.fromarray(np.full((8, 8, 3), low, np.uint8)).save(folder / f"in/{name}.png")
    dark, light = folder / "in/dark.png", folder / "in/light.png"
    result = program("explain", folder / "model.onnx", dark, light, "--preprocess", "unit", "-o", folder / "out")
    assert result.exit_code == 1
    assert result.stderr == (
        f"{dark}: 192 values of the attribution by gradient are infinite or no numbers.\n"
        "  The model divides by zero or overflows at this picture, in its values or in their slopes; do not use this"
        " map.\n  Look at dark.npy, and at the preprocessing if it happens at every picture.\n"
        f"explained 1 of 2 pictures by gradient on cpu: {folder}/out\n"
    )
    first, second = lines((folder / "out/explanations.jsonl").read_text())
    assert first["not_finite"] == 192
    assert "not_finite" not in second


def test_pictures_of_one_name_keep_their_own_files(folder: Path) -> None:
    (folder / "more").mkdir()
    for name in ("a.bmp", "A.png", "a-2.png"):
        Image.new("RGB", (9, 9)).save(folder / "more" / name)
    result = program("explain", folder / "explained.onnx", folder / "in/a.png", folder / "more", "-o", folder / "out")
    assert result.exit_code == 0
    records = lines((folder / "out/explanations.jsonl").read_text())
    assert len({record["overlay"].casefold() for record in records}) == len(records) == 4
    assert {record["overlay"] for record in records} <= set(listing(folder / "out"))


def test_no_picture_is_overwritten(folder: Path) -> None:
    before = listing(folder / "in")
    assert program("explain", folder / "explained.onnx", folder / "in", "-o", folder / "in").exit_code == 0
    after = listing(folder / "in")
    assert {name: after[name] for name in before} == before
    assert {"a-2.png", "b-2.png", "c.png"} <= set(after)


@pytest.mark.parametrize(
    ("method", "target", "other"),
    [("gradient", "topk:2", "a.1"), ("gradient,grad-cam", "top1", "a.grad-cam"), ("gradient,fem", "topk:3", "a.fem.3")],
)
def test_no_picture_is_overwritten_by_a_rank_or_a_method(folder: Path, method: str, target: str, other: str) -> None:
    (folder / "in/a.png").rename(folder / "in/a.bmp")
    (folder / "in/b.png").rename(folder / f"in/{other}.png")
    before = listing(folder / "in")
    command = ["explain", folder / "model.onnx", folder / "in", "-o", folder / "in", "--preprocess", "unit"]
    result = program(*command, "-m", method, "-t", target)
    assert result.exit_code == 0, result.stderr
    after = listing(folder / "in")
    assert {name: after[name] for name in before} == before
    written = [r["overlay"] for r in lines(after["explanations.jsonl"].decode()) if r["file"].endswith("/a.bmp")]
    assert written
    assert all(name.startswith("a-2.") for name in written)
    assert set(written) <= set(after)


def test_a_graph_that_is_told_the_class(folder: Path) -> None:
    onnxplain.compile_file(classifier(), folder / "told.onnx", "gradient", target="input")
    where = ["explain", folder / "told.onnx", folder / "in", "-o", folder / "out", "--preprocess", "unit"]
    assert program(*where, "--target", "3").exit_code == 0
    assert {record["class"] for record in lines((folder / "out/explanations.jsonl").read_text())} == {3}
    result = program(*where)
    assert (result.exit_code, result.stderr) == (
        2,
        "UsageError: told.onnx is told the class by each run: give it with --target CLASS.\n",
    )
    assert program(*where, "--target", "\u0663").stderr == result.stderr
    result = program(*where, "--target", "4")
    assert (result.exit_code, result.stderr) == (
        2,
        "UsageError: class 4 is out of range: the model's classes are 0 to 3.\n",
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ["explained.onnx", "in", "--method", "grad-cam"],
            2,
            "UsageError: explained.onnx is already compiled: it explains by gradient, target top1.\n"
            "  --method, --target and parameters are for a trained model: give that, or leave them out.",
        ),
        (["explained.onnx", "in", "--target", "1"], 2, "UsageError: explained.onnx is already compiled"),
        (
            ["model.onnx", "in", "--target", "input"],
            2,
            "UsageError: --target input is for programs that feed the class",
        ),
        (
            ["model.onnx", "in", "-m", "integrated-gradients", "--baseline", "input"],
            2,
            "UsageError: --baseline input is for programs that feed the baseline.\n"
            "  Name one: --baseline zeros, black, mean, blur, or a .npy file.\n",
        ),
        (
            ["model.onnx", "in", "-m", "smoothgrad", "--noise", "input"],
            2,
            "UsageError: --noise input is for programs that feed the noise.\n"
            "  Leave it out: noise is then drawn in the graph.\n",
        ),
        (
            ["noisy.onnx", "in"],
            2,
            "UsageError: noisy.onnx also takes 'baseline', 'noise', and this command feeds pictures alone.\n"
            "  Run it from Python, where a call takes each by its name: onnxplain.Explainer.\n",
        ),
        (
            ["two.onnx", "in", "--input", "x"],
            2,
            "UsageError: two.onnx also takes 'scale', and this command feeds pictures alone.\n"
            "  Run it from Python, where a call takes each by its name: onnxplain.Explainer.\n",
        ),
        (["model.onnx", "in", "--colormap", "virdis"], 2, "UsageError: there is no colormap 'virdis'. Did you mean"),
        (["model.onnx", "in", "--alpha", "2"], 2, "UsageError: alpha must lie between 0 and 1, not 2.0."),
        (["model.onnx", "in", "--size", "big"], 2, "UsageError: --size takes a height and width like 224 or 480x640"),
        (
            ["model.onnx", "in", "--size", "\u0668"],
            2,
            "UsageError: --size takes a height and width like 224 or 480x640",
        ),
        (["model.onnx", "in", "--size", "9"], 2, "UsageError: size 9x9 does not fit: input 'pixels' takes float32"),
        (["model.onnx", "in", "--provider", "gpu"], 2, "UsageError: there is no execution provider 'gpu'."),
        (
            ["model.onnx", "in", "--labels", "none.txt"],
            2,
            "UsageError: labels cannot be read from none.txt: No such file",
        ),
        (
            ["model.onnx", "in", "--labels", "bad.json"],
            2,
            "UsageError: bad.json does not hold labels: one in each line, or JSON, a list or an object of indices.\n",
        ),
        (["model.onnx", "in", "-o", "model.onnx"], 2, "UsageError: cannot make the folder model.onnx: File exists.\n"),
        (["model.onnx", "empty"], 2, "UsageError: there are no pictures in empty.\n"),
        (["none.onnx", "in"], 1, "BadModel: there is no file none.onnx.\n"),
        (["rows.onnx", "in"], 1, "UnsupportedModel: input 'x' takes float32 (N, 4), which is no batch of pictures.\n"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int, message: str
) -> None:
    from tests.runtime.tiny import text

    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    (folder / "bad.json").write_text("7")
    saved(text("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"), folder / "rows.onnx")
    two = """g (float[N,3,8,8] x, float[N,3,8,8] scale) => (float[N,3] y) {
        s = Mul(x, scale) p = GlobalAveragePool(s) y = Flatten(p) }"""
    saved(text(two), folder / "two.onnx")
    settings = {"baseline": "input", "noise": "input", "steps": 2, "samples": 2}
    onnxplain.compile_file(classifier(), folder / "noisy.onnx", "integrated-gradients,smoothgrad", **settings)
    before = listing(folder)
    result = program("explain", *arguments)
    assert message in result.stderr.removeprefix(ASSUMED)
    assert result.exit_code == status
    assert listing(folder) == before


def test_an_interruption_keeps_what_is_done(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxplain.runtime import images

    def interrupted(path: Path) -> Image.Image:
        if path.name == "b.png":
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(images, "read", interrupted)
    result = program("explain", folder / "explained.onnx", folder / "in", "-o", folder / "out")
    assert (result.exit_code, result.stderr) == (130, "interrupted; what was written is whole\n")
    assert sorted(listing(folder / "out")) == ["a.npy", "a.png", "explanations.jsonl"]
    assert len(lines((folder / "out/explanations.jsonl").read_text())) == 1


def test_a_bar_on_the_terminal_leaves_stdout_alone(folder: Path) -> None:
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "onnxplain.cli", "explain", "explained.onnx", "in", "-o", "out", "--json"]
    shown: list[bytes] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=end, cwd=folder) as process:
        os.close(end)
        with contextlib.suppress(OSError):  # how a terminal says that the other end is closed
            while chunk := os.read(terminal, 4096):
                shown.append(chunk)
        assert process.stdout is not None
        printed = process.stdout.read().decode()
    os.close(terminal)
    assert process.returncode == 0
    assert [Path(record["file"]).name for record in lines(printed)] == ["a.png", "b.png", "c.bmp"]
    assert b"explaining" in b"".join(shown)


def test_photographs(tmp_path: Path) -> None:
    model = SHARED / "models/vww_96.onnx"
    if not model.exists():
        pytest.skip("the real models are not beside the checkout, in shared/models")
    (tmp_path / "labels.txt").write_text("nobody\nsomebody\n")
    result = program(
        "explain", model, SHARED / "images", "-o", tmp_path, "--method", "grad-cam", "--preprocess", "unit", "--json",
        "--labels", tmp_path / "labels.txt",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    seen = {Path(record["file"]).stem: record["label"] for record in lines(result.stdout)}
    assert seen == {
        "cat": "nobody",
        "horse_cart": "somebody",
        "man_with_bicycle": "nobody",
        "two_people_and_a_dog": "somebody",
    }


def test_an_option_of_cuda_that_is_malformed_is_refused(folder: Path) -> None:
    result = program("explain", folder / "explained.onnx", folder / "in", "--cuda", "use_tf32")
    assert result.exit_code == 2
    assert result.stderr == "UsageError: --cuda takes NAME=VALUE such as use_tf32=0, not 'use_tf32'.\n"


def test_options_of_cuda_reach_the_session(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxplain.runtime import explainer

    asked: list[object] = []
    opening = explainer.open_session

    def noting(*args: object, cuda: object = None, **how: object) -> object:
        asked.append(cuda)
        return opening(*args, cuda=cuda, **how)

    monkeypatch.setattr(explainer, "open_session", noting)
    monkeypatch.setattr(explainer, "provider_of", lambda _: "cuda")
    options = ["--cuda", "use_tf32=0", "--cuda", "prefer_nhwc=1", "-o", folder / "out"]
    assert program("explain", folder / "explained.onnx", folder / "in", *options).exit_code == 0
    assert asked == [{"use_tf32": "0", "prefer_nhwc": "1"}]


@pytest.mark.parametrize("command", ["explain", "verify", "bench", "profile"])
@pytest.mark.parametrize("provider", ["cpu", "auto"])
def test_options_of_cuda_are_not_taken_in_silence_by_the_cpu(
    folder: Path, command: str, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where CUDA is to be had, "auto" has it, so that the session must be said to be another's."""
    monkeypatch.setattr("onnxplain.runtime.explainer.provider_of", lambda _: "cpu")
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    more = {"explain": [folder / "in", "-o", folder / "out"], "verify": ["--against", folder / "model.onnx"]}
    result = program(
        command, folder / "explained.onnx", *more.get(command, []), "--cuda", "prefer_nhwc=1", "--provider", provider
    )
    assert (result.exit_code, result.stderr) == (
        2,
        "UsageError: --cuda prefer_nhwc is for CUDA, and this runs on cpu.\n  Add --provider cuda, or leave it out.\n",
    )
    assert not (folder / "out").exists()
