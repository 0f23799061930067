"""Relevance is neither made nor lost, where a rule promises that: without biases, and with epsilon next to zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxplain.compiler import compile_model
from onnxplain.interface import Metadata
from tests.biases import without_biases
from tests.catalogue import SPECIMENS, Specimen, parameters
from tests.running import run

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

Array = NDArray[np.float32]

TINY = {"epsilon": 1e-12, "stabiliser": 1e-12}

CONSERVING = ("lrp-0", "lrp-eps", "lrp-gamma", "lrp-epsilon-gamma-box")
"""Whatever comes, y is shared among everything that contributes to it."""

POSITIVE = ("lrp-zplus", "lrp-epsilon-plus", "lrp-epsilon-plus-flat", "excitation-backprop", "deep-taylor")
"""z+ has nobody to give to where nothing contributes positively. In front of a ReLU nothing arrives there."""

SOFTMAX = {"cifar10_vit"}
"""The rule for softmax (Achtibat et al. 2024, prop. 3.1) does not conserve: it has a bias term, which is dropped."""

STARVED = {"cifar10_vit", "cifar10_resnet2b", "light_shufflenet"}
"""Relevance arrives at layers in front of a residual sum, units without any positive contribution among them."""


def marked(chosen: Iterable[Specimen]) -> list[ParameterSet]:
    """With all the light models but the smallest marked slow: they take seconds each."""
    slow = [replace(s, heavy=s.heavy or (not s.trained and s.name != "light_squeezenet")) for s in chosen]
    return parameters(slow)


def residuals(s: Specimen, methods: tuple[str, ...]) -> Mapping[str, float]:
    """|explained score - sum of relevance| / |score|, by method."""
    model, x = without_biases(s.load()), s.images(1, 0)
    bounds = {"low": str(x.min()), "high": str(x.max())} if "lrp-epsilon-gamma-box" in methods else {}
    found = run(compile_model(model, ",".join(methods), **TINY, **bounds), x)
    score = float(np.abs(found["explained_score"][0]))
    return {method: float(np.abs(found[f"residual_{method}"][0])) / score for method in methods}


@pytest.mark.parametrize("s", marked(s for s in SPECIMENS if s.name not in SOFTMAX))
def test_conserved(s: Specimen) -> None:
    assert {method: r for method, r in residuals(s, CONSERVING).items() if r > 1e-4} == {}


@pytest.mark.parametrize("s", marked(s for s in SPECIMENS if s.name not in STARVED))
def test_conserved_by_positive_contributions(s: Specimen) -> None:
    assert {method: r for method, r in residuals(s, POSITIVE).items() if r > 1e-4} == {}


def losses(name: str, method: str, **how: float | str) -> tuple[dict[str, float], float]:
    """How much of the score's size each rule keeps or makes, summed over its nodes; and the residual."""
    s = next(s for s in SPECIMENS if s.name == name)
    if s.missing:
        pytest.skip(s.missing)
    model, x = without_biases(s.load()), s.images(1, 0)
    settings = {"stabiliser": 1e-12, **how}
    compiled = compile_model(model, method, diagnostics=True, **settings)
    metadata = Metadata.read({e.key: e.value for e in compiled.metadata_props})
    assert metadata is not None
    assert metadata.diagnostics is not None
    found = run(compiled, x)
    score = float(np.abs(found["explained_score"][0]))
    lost: dict[str, float] = {}
    for (_, _, rule), (arrived, passed) in zip(metadata.diagnostics, found["diagnostics"][0], strict=True):
        lost[rule] = lost.get(rule, 0.0) + float(abs(arrived - passed)) / score
    return lost, float(abs(found["residual"][0])) / score


@pytest.mark.parametrize("method", ["lrp-0", "lrp-gamma"])
def test_in_a_transformer_the_softmax_alone_loses_anything(method: str) -> None:
    lost, residual = losses("cifar10_vit", method)
    assert lost.pop("softmax") > 1e-3
    assert residual < 1e-2
    assert max(lost.values()) <= 1e-4, lost


def test_in_front_of_a_residual_sum_only_z_plus_loses() -> None:
    lost, residual = losses("cifar10_resnet2b", "lrp-zplus")
    assert lost.pop("z+") > 1e-4
    assert max(lost.values()) <= 1e-4, lost
    assert residual < 1e-2


def test_alpha_beta_makes_relevance_where_no_contribution_is_negative() -> None:
    """alpha R goes to the positive ones, and there is nobody to take -beta R: eq. 15 does not conserve there."""
    lost, residual = losses("digits", "lrp-alphabeta")
    assert lost.pop("alpha 2, beta 1") > 0.1
    assert residual > 0.1
    assert max(lost.values()) <= 1e-4, lost


def test_what_epsilon_keeps_is_the_residual() -> None:
    """A large epsilon absorbs: the layers with weights lose, nobody else, and the residual says how much."""
    lost, residual = losses("digits", "lrp-eps", epsilon=0.5)
    assert lost.pop("epsilon 0.5") == pytest.approx(residual, rel=1e-3)
    assert residual > 0.05
    assert max(lost.values()) <= 1e-4, lost


def test_what_a_bias_keeps_is_the_residual() -> None:
    """With bias=false it takes no part and nothing is lost, but where all inputs are zero and only the bias speaks."""
    s = next(s for s in SPECIMENS if s.name == "digits")
    model, x = s.load(), np.float32(0.1) + s.images(3, 1)
    kept, ignored = (run(compile_model(model, "lrp-0", bias=bias), x) for bias in (True, False))
    assert np.abs(kept["residual"]).min() > 1e-3 * np.abs(kept["explained_score"]).max()
    assert np.abs(ignored["residual"]).max() <= 1e-4 * np.abs(ignored["explained_score"]).max()
    for found in (kept, ignored):
        missing = found["explained_score"] - found["attribution"].sum(axis=(1, 2, 3))
        assert np.allclose(found["residual"], missing, atol=1e-5 * np.abs(found["explained_score"]).max())


def test_deep_taylor_explains_evidence_alone() -> None:
    """A negative score is no evidence: nothing is shared, and the residual is the score."""
    s = next(s for s in SPECIMENS if s.name == "digits")
    x = s.images(8, 1)
    found = run(compile_model(s.load(), "deep-taylor", target=0), x)
    negative = found["explained_score"] < 0
    assert negative.any()
    assert not negative.all()
    assert not found["attribution"][negative].any()
    assert np.array_equal(found["residual"][negative], found["explained_score"][negative])
    assert found["attribution"].min() >= 0
    assert (
        np.abs(found["attribution"][~negative].sum(axis=(1, 2, 3)) - found["explained_score"][~negative]).max() < 1e-3
    )
