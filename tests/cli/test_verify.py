from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image

import onnxplain
from benchmarks.cuda.machine import why_no_cuda
from onnxplain.placement.kernels import ONNXRUNTIME
from onnxplain.runtime.session import CUDA
from onnxplain.runtime.verify import for_best_class, random_batch
from tests.cli.program import program
from tests.runtime.tiny import classifier, saved, text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved(classifier(), tmp_path / "model.onnx")
    onnxplain.compile_file(tmp_path / "model.onnx", tmp_path / "explained.onnx", "gradient")
    return tmp_path


def test_what_is_right_is_said_to_be(folder: Path) -> None:
    result = program("verify", folder / "explained.onnx", "--against", folder / "model.onnx")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "output 'logits' as the model's, to 1e-05" in result.stdout
    assert " NO" not in result.stdout


def test_pictures_take_the_place_of_random_samples(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(folder / f"{i}.png")
    result = program(
        "verify", folder / "explained.onnx", "--against", folder / "model.onnx", "--images", folder, "--json"
    )
    checks = json.loads(result.stdout)
    assert all(check["kept"] for check in checks)
    assert sum("(1 of 3)" in check["found"] for check in checks) == 6


def test_seeds_count_from_zero(folder: Path) -> None:
    command = ["verify", folder / "explained.onnx", "--against", folder / "model.onnx", "--seed"]
    assert program(*command, 0).exit_code == 0
    refused = program(*command, -1)
    assert refused.exit_code == 2
    assert "--seed" in refused.stderr


def test_what_is_wrong_is_named(folder: Path) -> None:
    path = folder / "explained.onnx"
    broken = onnx.load(path)
    (offset,) = (t for t in broken.graph.initializer if t.name == "offset")
    offset.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(offset) + np.float32(1), "offset"))
    saved(broken, path)
    result = program("verify", path, "--against", folder / "model.onnx")
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first == "VerificationFailed: explained.onnx breaks 1 of its 10 promises:"
    assert second.startswith("  output 'logits' as the model's, to 1e-05: ")


def test_a_model_that_explains_nothing_has_nothing_to_verify(folder: Path) -> None:
    result = program("verify", folder / "model.onnx", "--against", folder / "model.onnx")
    assert result.exit_code == 2
    assert result.stderr.startswith("UsageError: model.onnx was not compiled by onnxplain: it returns no explanation.")


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this ONNX Runtime has CUDA")
def test_a_provider_that_is_not_there_fails(folder: Path) -> None:
    result = program("verify", folder / "explained.onnx", "--against", folder / "model.onnx", "--provider", "cuda")
    assert result.exit_code == 1
    assert result.stderr.startswith("ProviderUnavailable: CUDAExecutionProvider was asked for")


def test_diagnostics_of_a_graph_that_is_told_the_class_and_more(folder: Path) -> None:
    """They are of the best class, and no numbers for one that does not exist; the other input is made up."""
    model = text("""g (float[N,4] x, float[N,3] facts) => (float[N,3] y) <float[4,3] w = {1,2,3,4,-5,6,7,8,9,1,2,3}> {
        r = Relu(x) m = MatMul(r, w) y = Add(m, facts) }""")
    saved(model, folder / "two.onnx")
    onnxplain.compile_file(
        folder / "two.onnx", folder / "told.onnx", "lrp-eps", input="x", target="input", diagnostics=True
    )
    result = program("verify", folder / "told.onnx", "--against", folder / "two.onnx")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "a class out of range is answered by NaN" in result.stdout
    explain = onnxplain.Explainer(folder / "told.onnx", "cpu")
    returned = for_best_class(explain, random_batch(explain)[:1])
    assert returned["explained_class"] == returned["y"].argmax(1)
    assert f"whose score is {returned['y'].max():.4g}" in result.stdout


def test_diagnostics_show_where_relevance_is_lost(folder: Path) -> None:
    onnxplain.compile_file(folder / "model.onnx", folder / "lrp.onnx", "lrp-eps", diagnostics=True)
    result = program("verify", folder / "lrp.onnx", "--against", folder / "model.onnx")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    header = next(i for i, line in enumerate(lines) if "arrives" in line and "lost" in line)
    metadata = onnxplain.Explainer(folder / "lrp.onnx").metadata
    rows = [line.split()[0] for line in lines[header + 2 :] if line.strip()]
    assert rows == [node for node, _, _ in metadata.diagnostics or []]


def test_a_graph_for_cuda_is_checked_without_a_card(folder: Path) -> None:
    path = folder / "cuda.onnx"
    onnxplain.compile_file(folder / "model.onnx", path, "gradient", runtime="cuda")
    result = program("verify", path, "--against", folder / "model.onnx", "--for", "cuda")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"every node but arithmetic with shapes has a CUDA kernel in ONNX Runtime {ONNXRUNTIME}" in result.stdout
    broken = onnx.load(path)
    attribution = next(n for n in broken.graph.node if n.name == "onnxplain/attribution")
    attribution.op_type = "Celu"
    saved(broken, path)
    result = program("verify", path, "--against", folder / "model.onnx", "--for", "cuda")
    assert result.exit_code == 1
    assert (
        f"has a CUDA kernel in ONNX Runtime {ONNXRUNTIME}: Celu 'onnxplain/attribution': CUDA has no" in result.stderr
    )


def test_a_loop_is_named_that_cuda_graphs_refuse(folder: Path) -> None:
    path = folder / "loop.onnx"
    onnxplain.compile_file(folder / "model.onnx", path, "integrated-gradients", steps=2)
    result = program("verify", path, "--against", folder / "model.onnx", "--for", "cuda")
    assert result.exit_code == 1
    assert "  no control flow, which CUDA graphs refuse: onnxplain/" in result.stderr


def test_a_runtime_that_there_is_not(folder: Path) -> None:
    result = program("verify", folder / "explained.onnx", "--against", folder / "model.onnx", "--for", "gpu")
    assert result.exit_code == 2
    assert result.stderr.startswith("UsageError: there is no runtime 'gpu'. ")


@pytest.mark.skipif(
    "AzureExecutionProvider" not in onnxruntime.get_available_providers(), reason="a provider is lacking"
)
def test_another_provider_is_compared_with_the_cpu(folder: Path) -> None:
    """Of the providers that every wheel has, one gives all nodes to the CPU."""
    given = ("verify", folder / "explained.onnx", "--against", folder / "model.onnx")
    promise = "attribution as on cpu, to 1e-03"
    assert promise not in " ".join(program(*given).stdout.split())
    result = program(*given, "--provider", "AzureExecutionProvider")
    assert (result.exit_code, result.stderr) == (0, "")
    assert promise in " ".join(result.stdout.split())


def test_options_of_cuda_are_names_and_values(folder: Path) -> None:
    result = program("verify", folder / "explained.onnx", "--against", folder / "model.onnx", "--cuda", "prefer_nhwc")
    assert (result.exit_code, result.stderr) == (
        2, "UsageError: --cuda takes NAME=VALUE such as use_tf32=0, not 'prefer_nhwc'.\n"
    )  # fmt: skip


MASKED = """g (float[N,T,4] x, int64[N,T] mask) => (float[N,3] y) <float[4,3] w = {1,2,3,4,-5,6,7,8,9,1,2,3}> {
    axis = Constant<value_ints = [2]>() time = Constant<value_ints = [1]>() wide = Unsqueeze(mask, axis)
    m = Cast<to = 1>(wide) kept = Mul(x, m) total = ReduceSum<keepdims = 0>(kept, time)
    count = ReduceSum<keepdims = 0>(m, time) mean = Div(total, count) r = Relu(mean) y = MatMul(r, w) }"""


@pytest.fixture
def masked(tmp_path: Path) -> list[object]:
    """A mean over what a mask leaves: of nothing it is no number."""
    source = saved(text(MASKED), tmp_path / "masked.onnx")
    onnxplain.compile_file(source, tmp_path / "e.onnx", "lrp-eps", input="x", target="input", diagnostics=True)
    return ["verify", tmp_path / "e.onnx", "--against", source]


def test_a_mask_that_is_made_up_hides_not_everything(masked: list[object]) -> None:
    result = program(*masked)
    assert (result.exit_code, result.stderr) == (0, "")
    assert " NO" not in result.stdout
    assert "nan" not in result.stdout


def test_inputs_may_be_given(masked: list[object], tmp_path: Path) -> None:
    """The score is computed by hand from what was given."""
    rng = np.random.default_rng(3)
    x, mask = rng.standard_normal((3, 5, 4)).astype(np.float32), rng.integers(0, 2, (3, 5))
    mask[:, 0] = 1
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "mask.npy", mask)
    both = ["--feed", f"x={tmp_path}/x.npy", "--feed", f"mask={tmp_path}/mask.npy"]
    result = program(*masked, *both)
    assert (result.exit_code, result.stderr) == (0, "")
    mean = (x * mask[..., None]).sum(1, dtype=np.float64) / mask.sum(1)[:, None]
    scores = np.maximum(mean, 0) @ np.array([[1, 2, 3], [4, -5, 6], [7, 8, 9], [1, 2, 3]])
    assert f"sample 0, whose score is {scores[0].max():.4g}" in result.stdout
    assert ", ".join(map(str, scores.argmax(1))) in result.stdout
    assert program(*masked, *both[2:]).exit_code == 0  # the samples are as many as there are masks


def test_a_model_whose_own_scores_are_none_is_not_blamed_on_the_graph(masked: list[object], tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.zeros((2, 5), np.int64))
    result = program(*masked, "--feed", f"mask={tmp_path}/none.npy")
    said = "masked.onnx itself returns scores that are not finite, so the graph's promises cannot be checked by them.\n"
    assert (result.exit_code, result.stdout, result.stderr) == (
        1,
        "",
        f"OnnxplainError: {said}  Give the model values that it is made for: --feed x=FILE.npy, or pictures with"
        " --images.\n",
    )


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        (["mask"], "UsageError: --feed takes NAME=FILE.npy, not 'mask'.\n"),
        (["mask=none.npy"], "UsageError: there is no file none.npy.\n"),
        (["mask=masked.onnx"], "UsageError: file masked.onnx is not a NumPy array that can be read.\n"),
        (["mosk=m.npy"], "UsageError: the model has no input 'mosk'. Did you mean 'mask'?"),
        (["target=m.npy"], "UsageError: the model has no input 'target'. "),
        (["mask=m.npy", "mask=m.npy"], "UsageError: input 'mask' is fed twice.\n"),
        (["x=m.npy"], "UsageError: an array of shape (1, 2, 5) does not fit: input 'x' takes float32 (N, T, 4)."),
        (["x=x.npy", "--images", "."], "UsageError: --images and --feed x both give what is explained: leave one of"),
    ],
)
def test_what_cannot_be_fed(
    masked: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feeds: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("m.npy", np.ones((2, 5), np.int64))
    np.save("x.npy", np.ones((2, 5, 4), np.float32))
    options = [each for feed in feeds for each in ([feed] if feed in ("--images", ".") else ["--feed", feed])]
    result = program(*masked, *options)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--preprocess", "imagenet"],
            "--preprocess, --scale, --mean, --std, --order and --resize are for pictures, and ",
        ),
        (["--resize", "pad"], "--preprocess, --scale, --mean, --std, --order and --resize are for pictures, and none "),
        (["--size", "10"], "size 10x10 does not fit: input 'pixels' takes float32 (N, 3, 8, 8).\n"),
        (["--size", "8", "--mean", "1"], "--preprocess, --scale, --mean, --std, --order and --resize are for pictures"),
    ],
)
def test_what_is_said_of_pictures_is_not_taken_in_silence_without_any(
    folder: Path, options: list[str], message: str
) -> None:
    command = ["verify", folder / "explained.onnx", "--against", folder / "model.onnx"]
    result = program(*command, *options)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"UsageError: {message}")
    assert program(*command, "--size", "8").exit_code == 0
    Image.new("RGB", (9, 9)).save(folder / "a.png")
    assert program(*command, "--images", folder / "a.png", "--preprocess", "imagenet").exit_code == 0


@pytest.mark.gpu
def test_on_a_card(folder: Path) -> None:
    lacking = why_no_cuda()
    if lacking:
        pytest.skip(lacking.splitlines()[0])
    path = folder / "cuda.onnx"
    onnxplain.compile_file(folder / "model.onnx", path, "gradient,lrp-epsilon-plus,grad-cam", runtime="cuda")
    for options in ((), ("--cuda", "prefer_nhwc=1")):
        result = program(
            "verify", path, "--against", folder / "model.onnx", "--provider", "cuda", *options, "--json"
        )  # fmt: skip
        assert (result.exit_code, result.stderr) == (0, "")
        assert sum("as on cpu" in check["promise"] for check in json.loads(result.stdout)) == 3
