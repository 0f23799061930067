from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxplain
from onnxplain.interface import Metadata
from onnxplain.ir import save
from tests.cli.program import listing, program
from tests.runtime.tiny import classifier, pictures, saved, with_external_data


def metadata(path: Path) -> Metadata:
    found = Metadata.read({p.key: p.value for p in onnx.load(path, load_external_data=False).metadata_props})
    assert found is not None
    return found


def test_it_writes_beside_the_model_and_says_what(tmp_path: Path) -> None:
    model = saved(classifier(), tmp_path / "model.onnx")
    result = program("compile", model, "--method", "gradient,grad-cam", "--target", "input")
    assert (result.exit_code, result.stderr) == (0, "")
    first, *rest = result.stdout.splitlines()
    assert first.startswith(f"wrote {tmp_path}/model.gradient+grad-cam.onnx, 0.0 MB, in ")
    assert rest == [
        "  method    gradient,grad-cam",
        "  explains  output 'logits' by input 'pixels', target input",
        "  returns   attribution_gradient, attribution_grad-cam, heatmap_gradient, heatmap_grad-cam, explained_class, "
        "explained_score",
        "  takes     target besides the model's own inputs",
    ]
    assert sorted(listing(tmp_path)) == ["model.gradient+grad-cam.onnx", "model.onnx"]


def test_methods_may_be_named_one_by_one(tmp_path: Path) -> None:
    model = saved(classifier(), tmp_path / "model.onnx")
    assert program("compile", model, "-m", "gradient", "-m", "grad-cam,fem").exit_code == 0
    assert metadata(tmp_path / "model.gradient+grad-cam+fem.onnx").method == "gradient,grad-cam,fem"
    result = program("plan", model, "-m", "gradient", "-m", "gradient")
    assert (result.exit_code, result.stderr) == (2, "UsageError: a method is named twice in 'gradient,gradient'.\n")
    missing = program("compile", model)
    assert missing.exit_code == 2
    assert "--method" in missing.stderr


def test_the_file_is_what_the_library_compiles(tmp_path: Path) -> None:
    model = saved(classifier(), tmp_path / "model.onnx")
    out = tmp_path / "out.onnx"
    assert program("compile", model, "--method", "grad-cam", "--layer", "conv", "-t", "2", "-o", out).exit_code == 0
    x = pictures()
    want = onnxplain.Explainer(onnxplain.compile_model(model, "grad-cam", layer="conv", target=2), "cpu")(x)
    have = onnxplain.Explainer(out, "cpu")(x)
    for name in want:
        np.testing.assert_array_equal(have[name], want[name])


def test_a_folder_gets_the_default_name(tmp_path: Path) -> None:
    model = saved(classifier(), tmp_path / "model.onnx")
    (tmp_path / "out").mkdir()
    assert program("compile", model, "--method", "gradient", "-o", tmp_path / "out").exit_code == 0
    assert sorted(listing(tmp_path)) == ["model.onnx", "out/model.gradient.onnx"]


def test_parameters_and_preprocessing_are_written_down(tmp_path: Path) -> None:
    model, out = saved(classifier(), tmp_path / "model.onnx"), tmp_path / "out.onnx"
    options = ["--set", "steps=7", "--baseline", "black", "--preprocess", "imagenet", "--std", "0.5", "--resize", "pad"]
    result = program("compile", model, "--method", "integrated-gradients", *options, "-o", out)
    assert result.exit_code == 0, result.stderr
    found = metadata(out)
    assert found.parameters["integrated-gradients"]["steps"] == 7
    assert found.parameters["integrated-gradients"]["baseline"] == "black"
    assert found.preprocess == {
        "scale": 1 / 255,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.5],
        "order": "rgb",
        "resize": "pad",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mean", "a,b"], "UsageError: --mean takes numbers separated by commas, not 'a,b'.\n"),
        (
            ["--std", "0"],
            "UsageError: preprocess: scale, mean and std must be finite, and neither scale nor std may be",
        ),
        (["--preprocess", "imgnet"], "UsageError: there is no preprocessing 'imgnet'. Did you mean 'imagenet'?"),
    ],
)
def test_bad_preprocessing_is_bad_usage(tmp_path: Path, options: list[str], message: str) -> None:
    result = program("compile", saved(classifier(), tmp_path / "model.onnx"), "--method", "gradient", *options)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)


PIXELS = ["--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (PIXELS, "mean 123.675 does not go with pixels that are scaled by 1/255"),
        (["--preprocess", "tf", "--std", "57"], "std 57 does not go with pixels that are scaled by 1/127.5"),
    ],
)
def test_a_mean_of_pixels_from_0_to_255_needs_a_scale(tmp_path: Path, options: list[str], what: str) -> None:
    result = program("compile", saved(classifier(), tmp_path / "model.onnx"), "--method", "gradient", *options)
    scale = "0.00784314" if "tf" in options else "0.00392157"
    assert (result.exit_code, result.stderr) == (
        2,
        f"UsageError: preprocess: {what}, as they are if no scale is given.\n  If it is in units of pixels from 0 to "
        f"255, add --scale 1, or scale=1 in Python; else --scale {scale}.\n",
    )
    assert sorted(listing(tmp_path)) == ["model.onnx"]


@pytest.mark.parametrize("options", [["--scale", "1"], ["--preprocess", "raw"], ["--scale", "0.00392157"]])
def test_a_scale_that_is_given_is_believed(tmp_path: Path, options: list[str]) -> None:
    model, out = saved(classifier(), tmp_path / "model.onnx"), tmp_path / "out.onnx"
    result = program("compile", model, "--method", "gradient", "-o", out, *PIXELS, *options)
    assert result.exit_code == 0, result.stderr
    found = metadata(out).preprocess
    assert found is not None
    assert found["scale"] == (0.00392157 if "0.00392157" in options else 1)
    assert found["mean"] == [123.675, 116.28, 103.53]


def test_external_weights_stay_external(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    model = with_external_data(source, "weights.bin")
    out = tmp_path / "out.onnx"
    result = program("compile", model, "--method", "gradient", "-o", out)
    assert f"wrote {out} and {out}.data" in result.stdout
    x = pictures()
    want = onnxplain.Explainer(onnxplain.compile_model(classifier(), "gradient"), "cpu")(x)
    np.testing.assert_allclose(onnxplain.Explainer(out, "cpu")(x)["attribution"], want["attribution"], rtol=1e-6)


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted; what was written is whole\n"),
        (OSError(28, "No space left on device"), 1, "OSError: No space left on device\n"),
        (MemoryError(), 1, "MemoryError: the machine has not enough memory for this.\n"),
        (
            RuntimeError("odd"),
            1,
            "InternalError: RuntimeError: odd\n  This is a bug in onnxplain, not a mistake of yours.\n"
            "  Run it again as `onnxplain --debug ...` for the traceback, and report it with that.\n",
        ),
    ],
)
@pytest.mark.parametrize("external", [False, True])
def test_an_interrupted_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, external: bool, raised: BaseException, status: int, message: str
) -> None:
    model = with_external_data(tmp_path, "weights.bin") if external else saved(classifier(), tmp_path / "model.onnx")
    (tmp_path / "out.onnx").write_text("what was there")
    before = listing(tmp_path)

    def interrupted(*_: object) -> None:
        assert any(name.endswith(".part") for name in listing(tmp_path)), "it is being written"
        raise raised

    monkeypatch.setattr(os, "chmod", interrupted)  # the last step before the file takes its name
    result = program("compile", model, "--method", "gradient", "-o", tmp_path / "out.onnx")
    monkeypatch.undo()
    assert (result.exit_code, result.stderr, result.stdout) == (status, message, "")
    assert listing(tmp_path) == before


def test_a_file_being_written_has_no_name_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), save.replacing(path) as file:
        file.write(b"new, but only ha")
        file.flush()
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert listing(tmp_path) == {"file": b"old"}
    with save.replacing(path) as file:
        file.write(b"new")
    assert listing(tmp_path) == {"file": b"new"}
    assert path.stat().st_mode & 0o777 == 0o666 & ~save._umask()
