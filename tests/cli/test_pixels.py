from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from PIL import Image

import onnxplain
from onnxplain.runtime.images import read
from tests.cli.program import program
from tests.cli.test_explain import ASSUMED, lines
from tests.runtime.tiny import classifier, of_bytes, saved


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """model.onnx, explained.onnx that has ImageNet's preprocessing, and a picture in `in`."""
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in/a.png")
    saved(classifier(), tmp_path / "model.onnx")
    onnxplain.compile_file(classifier(), tmp_path / "explained.onnx", "gradient", preprocess="imagenet")
    return tmp_path


def test_what_is_not_said_stays_as_it_is_recorded(folder: Path) -> None:
    """By hand: the picture brought to the model's size in that way, then ImageNet's mean and deviation."""
    explain = onnxplain.Explainer(folder / "explained.onnx", "cpu")
    picture = read(folder / "in/a.png")
    crop = np.asarray(picture.resize((8, 8), Image.Resampling.BILINEAR, box=(2, 0, 14, 12)))
    stretched = np.asarray(picture.resize((8, 8), Image.Resampling.BILINEAR))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for options, pixels in (
        ([], crop),
        (["--resize", "crop"], crop),
        (["--resize", "stretch"], stretched),
        (["--order", "bgr"], crop[..., ::-1]),
    ):
        result = program(
            "explain", folder / "explained.onnx", folder / "in/a.png", "-o", folder / "out", "--json", *options
        )
        (record,) = lines(result.stdout)
        x = ((pixels / 255 - mean) / std).transpose(2, 0, 1).astype(np.float32)
        assert record["score"] == pytest.approx(float(explain(x)["explained_score"][0]), rel=1e-6)
    checked = ["verify", folder / "explained.onnx", "--against", saved(classifier(), folder / "same.onnx")]
    taken = json.loads(program(*checked, "--images", folder / "in/a.png", "--resize", "crop", "--json").stdout)
    usual = json.loads(program(*checked, "--images", folder / "in/a.png", "--json").stdout)
    assert taken == usual


def test_how_a_picture_gets_its_size_does_not_say_what_its_numbers_are(folder: Path) -> None:
    model, picture = folder / "model.onnx", folder / "in/a.png"
    for options in (["--resize", "stretch"], ["--order", "bgr"], ["--resize", "pad", "--order", "bgr"]):
        assert program("explain", model, picture, "-o", folder / "out", *options).stderr.startswith(ASSUMED)
    refused = program(
        "explain", model, picture, "-o", folder / "out", "-m", "integrated-gradients", "--baseline", "black",
        "--resize", "stretch",
    )  # fmt: skip
    assert "the model's own normalisation, which is not known" in refused.stderr
    of_integers = saved(of_bytes(), folder / "bytes.onnx")
    taken = program("explain", of_integers, picture, "-m", "grad-cam", "-o", folder / "out", "--resize", "stretch")
    assert (taken.exit_code, "note:" in taken.stderr) == (0, False)


@pytest.mark.parametrize(
    ("method", "recorded", "why"),
    [
        ("deep-taylor-bounded", "imagenet", "deep-taylor-bounded goes by the lowest and the highest input"),
        ("gradient,deeplift", "imagenet", "deeplift compares with black"),
        ("lrp-zplus", "unit", "lrp-zplus leaves out what an input that is never negative lacks"),
    ],
)
def test_a_record_that_the_explanation_is_built_on_is_not_contradicted(
    folder: Path, method: str, recorded: str, why: str
) -> None:
    parameters = {"baseline": "black"} if "deeplift" in method else {}
    onnxplain.compile_file(classifier(), folder / "built.onnx", method, preprocess=recorded, **parameters)
    command = ["explain", folder / "built.onnx", folder / "in/a.png", "-o", folder / "out"]
    result = program(*command, "--scale", "0.01", "--mean", "0.25,0.5,0.5")
    of_record = {
        "imagenet": "scale 0.00392157, mean 0.485,0.456,0.406, std 0.229,0.224,0.225",
        "unit": "scale 0.00392157, mean 0, std 1",
    }[recorded]
    now = "scale 0.01, mean 0.25,0.5,0.5, std " + ("1" if recorded == "unit" else "0.229,0.224,0.225")
    assert (result.exit_code, result.stderr) == (
        2,
        f"UsageError: {why}, by the preprocessing that was recorded when it was compiled: {of_record}.\n"
        f"  Now it would be {now}. Leave --preprocess, --scale, --mean and --std out, or compile the model again with"
        " them.\n",
    )
    assert program(*command, "--preprocess", recorded, "--resize", "pad").exit_code == 0


def test_a_model_of_signed_bytes_is_told_how_pixels_become_them(folder: Path) -> None:
    """What such a model wants is the picture less 128, computed here by hand."""
    model = saved(of_bytes(TensorProto.INT8), folder / "bytes.onnx")
    command = ["explain", model, folder / "in/a.png", "-m", "grad-cam", "-o", folder / "out", "--json"]
    unsaid = program(*command)
    assert (unsaid.exit_code, unsaid.stdout, unsaid.stderr) == (
        2,
        "",
        "UsageError: pixels go up to 255 and the model's input, int8, to 127: how they become it is not known.\n"
        "  Say how. If it takes pixels less 128, as most such models do, that is --scale 1 --mean 128.\n",
    )
    taken = program(*command, "--scale", "1", "--mean", "128")
    pixels = np.asarray(read(folder / "in/a.png").resize((8, 8), Image.Resampling.BILINEAR, box=(2, 0, 14, 12)))
    x = (pixels.astype(np.int64) - 128).transpose(2, 0, 1).astype(np.int8)
    want = onnxplain.Explainer(onnxplain.compile_model(model, "grad-cam"), "cpu")(x)
    (record,) = lines(taken.stdout)
    assert record["score"] == pytest.approx(float(want["explained_score"][0]))
    np.testing.assert_allclose(np.load(folder / "out/a.npy"), want["attribution"][0], rtol=1e-6)
    compiled = ["compile", model, "-m", "cam", "-o", folder / "cam.onnx"]
    for how in ([], ["--scale", "1", "--mean", "128"]):
        assert program(*compiled, *how).exit_code == 0
        assert program("verify", folder / "cam.onnx", "--against", model).exit_code == 0


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            TensorProto.INT8,
            ["--preprocess", "raw"],
            r"input 'pixels' takes int8 \(N, 3, 8, 8\), whole numbers from -128 to 127, and the preprocessing makes "
            r"\d+ to 2\d\d of the pixels\.\n  If it takes pixels less 128, as most such models do, that is --scale 1 "
            r"--mean 128\.",
        ),
        (
            TensorProto.UINT8,
            ["--scale", "2"],
            r"takes uint8 \(N, 3, 8, 8\), whole numbers from 0 to 255, and the preprocessing makes \d+ to [45]\d\d of "
            r"the pixels\.\n  Leave it out, or say --preprocess raw\.",
        ),
        (
            TensorProto.UINT8,
            ["--scale", "1", "--mean", "128"],
            r"the preprocessing makes -\d+ to \d+ of the pixels\.",
        ),
    ],
)
def test_pixels_that_a_byte_does_not_hold_are_refused(
    folder: Path, kind: TensorProto.DataType, options: list[str], message: str
) -> None:
    model = saved(of_bytes(kind), folder / "bytes.onnx")
    result = program("explain", model, folder / "in/a.png", "-m", "fem", "-o", folder / "out", *options)
    assert result.exit_code == 2
    assert re.search(message, result.stderr), result.stderr
