"""Summation to delta on every whole model at hand: contributions add up to the score's difference."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import onnx
import pytest

from onnxplain.compiler import compile_model
from tests.catalogue import Specimen, with_batch
from tests.models.samples import specimens
from tests.running import Results, run, session
from tests.zoo.architectures import ZOO, Architecture, samples
from tests.zoo.exporting import exported

METHODS = ("deeplift-rescale", "deeplift-revealcancel", "deeplift")

QUICK = ("resnet-basic", "densenet", "mobilenet-v3", "vit")
"""A residual network with a pool that overlaps, joined branches, squeeze and excitation, attention."""


@pytest.fixture(autouse=True)
def _let_go_of_weights() -> Iterator[None]:
    yield
    gc.collect()


def assert_sums(results: Results, what: str) -> None:
    """|residual| <= 1e-4 |S - S0|, and a residual that is what it says."""
    total = results["attribution"].reshape(len(results["attribution"]), -1).sum(1, dtype=np.float64)
    difference = total + results["residual"]
    assert np.isfinite(total).all(), what
    assert (np.abs(results["residual"]) <= 1e-4 * np.abs(difference)).all(), (
        f"{what}: {results['residual']} of {difference}"
    )


@pytest.mark.parametrize("specimen", specimens(quick=["light_squeezenet"]))
def test_contributions_add_up(specimen: Specimen) -> None:
    model, x = with_batch(specimen.load(), "N"), specimen.images(2, 5)
    for method in METHODS:
        assert_sums(run(compile_model(model, method), x), f"{specimen} {method}")


ARCHITECTURES = [pytest.param(a, id=a.name, marks=() if a.name in QUICK else pytest.mark.slow) for a in ZOO]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("each", ARCHITECTURES)
def test_contributions_add_up_on_the_zoo(each: Architecture, method: str) -> None:
    """For the class that moved furthest: weights are random, and other scores may hardly have moved at all."""
    model = onnx.load_model_from_string(exported(each, "torchscript", "dynamic"))
    given = dict(zip(each.inputs, (t.numpy() for t in samples(each, 3, 5)), strict=True))
    compiled = session(compile_model(model, method, target="input", input=each.inputs[0]))
    scores, at_zero = (
        run(model, given | {each.inputs[0]: x}) for x in (given[each.inputs[0]], 0 * given[each.inputs[0]])
    )
    moved = np.abs(next(iter(scores.values())) - next(iter(at_zero.values())))
    assert_sums(run(compiled, given | {"target": moved.argmax(1)}), f"{each} {method}")
