"""One network, exported one way, under one method: does it compile, run, and keep what the method promises?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from onnxplain.errors import UnsupportedModel
from tests.running import assert_outputs_kept, explained, relative_error, run
from tests.zoo.architectures import Architecture, Truth, exact, samples, trained, truth
from tests.zoo.exporting import exported

Array = NDArray[Any]

METHODS = (
    "gradient",
    "guided-backprop",
    "integrated-gradients",
    "grad-cam",
    "fem",
    "lrp-0",
    "lrp-epsilon-plus",
    "deeplift-rescale",
)

REFUSED: dict[tuple[str, str], str] = {}
"""What does not make sense and is refused: the architecture and the method, and a part of the one reason given."""

_ATTENTION = "the softmax of attention keeps only a part of what arrives (Achtibat et al. 2024, prop. 3.1)"

NOT_CONSERVED = dict.fromkeys(("vit", "deit", "swin-v1", "swin-v2", "maxvit"), _ATTENTION)
"""Architectures in which LRP loses relevance even without a single additive constant, and to what."""

SETTINGS = {"integrated-gradients": {"steps": 100}}
"""Networks with random weights bend more often on the way from the baseline than trained ones."""

RECTIFIED = ("vgg", "inception-v3", "googlenet", "squeezenet", "mobilenet-v1", "conv-1d", "two-inputs")
"""Architectures whose every convolution goes into a ReLU. Elsewhere an output that nothing speaks for may be asked for
relevance, which z+ cannot hand on: that is the rule's own loss."""


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    refused: the message, where the method refuses the model.
    error:   of the gradient, relative to torch's float64 one, for `gradient`.
    residual: the largest of |residual| / |what is shared|: the score's difference to the baseline's for DeepLIFT; for
             LRP the score, of the network without additive constants; for Integrated Gradients the sum of magnitudes,
             since what is missing there is the error of the quadrature.
    """

    refused: str = ""
    error: float | None = None
    residual: float | None = None

    def __str__(self) -> str:
        number = self.residual if self.error is None else self.error
        return "refused" if self.refused else "runs" if number is None else f"{number:.0e}"


@cache
def examine(each: Architecture, exporter: str, batch: str, method: str, opset: int | None = None) -> Outcome:
    """Compile, run and measure. Raises: AssertionError where outputs change, are not finite or have a wrong shape."""
    known = truth(each)
    model = onnx.load_model_from_string(exported(each, exporter, batch, opset))
    feeds = _feeds(each, known.inputs)
    try:
        results = explained(model, feeds, method, input="pixels", **SETTINGS.get(method, {}))
    except UnsupportedModel as refusal:
        return Outcome(refused=str(refusal))
    original = run(model, feeds)
    assert relative_error(original["scores"], known.scores) < 1e-5, "the exporter changed the network"
    assert_outputs_kept(results, original)
    _assert_sane(each, results, coarse=method in ("grad-cam", "fem"))
    if method == "gradient":
        return Outcome(error=relative_error(results["attribution"], known.gradient))
    if method.startswith("lrp"):
        return Outcome(residual=_relevance_lost(each, exporter, batch, opset, method))
    if method == "integrated-gradients":
        size = np.abs(results["attribution"]).sum(tuple(range(1, results["attribution"].ndim)))
        return Outcome(residual=float(np.abs(results["residual"] / size).max()))
    if "residual" in results:
        return Outcome(residual=float(np.abs(results["residual"] / _difference(each, known)).max()))
    return Outcome()


def _feeds(each: Architecture, inputs: tuple[torch.Tensor, ...]) -> dict[str, Array]:
    return {name: x.numpy() for name, x in zip(each.inputs, inputs, strict=True)}


def _assert_sane(each: Architecture, results: Mapping[str, Array], *, coarse: bool) -> None:
    count = len(results["scores"])
    for role in ("attribution", "heatmap"):
        assert np.isfinite(results[role]).all(), f"{role} is not finite"
    assert np.any(results["attribution"]), "the attribution is zero everywhere"
    if not coarse:
        assert results["attribution"].shape == (count, *each.shape)
    assert results["heatmap"].shape == (count, *each.shape[1:])
    assert results["heatmap"].min() >= 0
    assert results["heatmap"].max() <= 1
    np.testing.assert_array_equal(results["explained_class"], results["scores"].argmax(1))


def _difference(each: Architecture, known: Truth) -> Array:
    """The explained score minus its value where the explained input is zero."""
    module = exact(trained(each), each)
    x, *others = (t.double() for t in known.inputs)
    with torch.no_grad():
        scores, at_zero = (module(v, *others).numpy() for v in (x, torch.zeros_like(x)))
    rows = np.arange(len(scores))
    found: Array = (scores - at_zero)[rows, known.classes]
    return found


def _relevance_lost(each: Architecture, exporter: str, batch: str, opset: int | None, method: str) -> float:
    """The share of the score that LRP does not hand on to the input, where nothing but the input makes the score."""
    model = onnx.load_model_from_string(exported(each, exporter, batch, opset, biased=False))
    feeds = _feeds(each, samples(each, 2, 0))
    feeds |= {name: np.zeros_like(feeds[name]) for name in each.inputs[1:]}
    without = {"epsilon": 0} if method == "lrp-epsilon-plus" else {}
    results = explained(model, feeds, method, input="pixels", stabiliser=0, **without)
    assert np.isfinite(results["attribution"]).all(), "the relevance is not finite"
    return float(np.abs(results["residual"] / results["explained_score"]).max())
