"""What LRP costs, counted in convolution passes on the emitted graph, with sign analysis and without."""

from __future__ import annotations

from functools import cache
from typing import Any

import onnx
import pytest

from tests.catalogue import LIGHT, light_model
from tests.convolutions import compiled, convolution_passes

BOUNDED = {"lrp-epsilon-gamma-box", "lrp-composite", "deep-taylor-bounded"}

# Behind the first layers: with sign analysis, without it.
PASSES = {
    "lrp-0": (2, 2),
    "lrp-eps": (2, 2),
    "lrp-zplus": (3, 5),
    "lrp-gamma": (3, 7),
    "lrp-alphabeta": (4, 9),
    "lrp-epsilon-plus": (3, 5),
    "lrp-epsilon-plus-flat": (3, 5),
    "lrp-epsilon-alpha2-beta1": (4, 9),
    "lrp-epsilon-alpha2-beta1-flat": (4, 9),
    "lrp-epsilon-gamma-box": (3, 7),
    "excitation-backprop": (3, 5),
    "deep-taylor": (3, 5),
    "deep-taylor-bounded": (3, 5),
}


@cache
def vgg19() -> onnx.ModelProto:
    """As it is in the onnx package: its weights are made by nodes, which is all that counting needs."""
    return onnx.load(LIGHT / "light_vgg19.onnx")


@cache
def resnet50() -> onnx.ModelProto:
    """With weights, since batch norms fold only into weights that are known."""
    return light_model(LIGHT / "light_resnet50.onnx")


def passes(model: onnx.ModelProto, method: str, *, analysis: bool) -> tuple[float, float]:
    bounds: dict[str, Any] = {"low": "-3", "high": "3"} if method in BOUNDED else {}
    return convolution_passes(compiled(model, method, sign_analysis=analysis, **bounds))


@pytest.mark.parametrize("method", PASSES)
def test_vgg19(method: str) -> None:
    with_analysis, without = PASSES[method]
    assert passes(vgg19(), method, analysis=True)[0] == pytest.approx(with_analysis, abs=0.01)
    assert passes(vgg19(), method, analysis=False)[0] == pytest.approx(without, abs=0.01)


@pytest.mark.parametrize(("method", "expected"), [
    ("lrp-eps", 2),
    ("lrp-epsilon-plus", 3),
    ("lrp-epsilon-alpha2-beta1", 4),
    ("lrp-epsilon-gamma-box", 3.30),
])  # fmt: skip
def test_resnet50(method: str, expected: float) -> None:
    """In front of a residual sum relevance arrives at negative outputs too, so that gamma keeps its negative branch.

    Those are the last convolutions of the blocks and those of the shortcuts, three tenths of all multiply-adds. They
    take 4 passes each, the others 3.
    """
    hidden, _ = passes(resnet50(), method, analysis=True)
    assert hidden == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("method", "whole"), [("lrp-eps", 2), ("lrp-epsilon-plus-flat", 3), ("lrp-zplus", 3.01),
                                               ("lrp-epsilon-gamma-box", 3), ("lrp-alphabeta", 4.02)])  # fmt: skip
def test_the_first_layer_adds_hardly_anything(method: str, whole: float) -> None:
    """The input has both signs there, and pictures have three channels."""
    _, everything = passes(vgg19(), method, analysis=True)
    assert everything <= whole


def test_of_pixels_that_are_only_scaled_the_first_layer_costs_no_more_than_others() -> None:
    preprocess = {"scale": 1 / 255, "mean": [0.0], "std": [1.0]}
    _, everything = convolution_passes(compiled(vgg19(), "lrp-zplus", preprocess))
    assert everything == pytest.approx(3, abs=1e-3)
