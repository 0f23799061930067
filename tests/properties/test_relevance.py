"""Of any small graph, relevance and multipliers keep what they promise: sums, and one answer however it is computed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from onnx import ModelProto

import tests.properties.spatial
import tests.properties.steps  # noqa: F401  both fill the table of steps
from onnxplain.compiler import compile_model
from onnxplain.errors import OnnxplainError
from tests.properties.graphs import Drawn, graphs
from tests.running import Array, run

COMMON = settings(
    deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False
)

TOLERANCE = 1e-3
SMALLEST = 1e-3
"""Maps that are smaller everywhere are compared with this: they came through saturated functions."""

SHAKY = 1e-4
"""A graph is passed over where relevance moves by more when the input moves by its last bits: a sum that it is divided
by nearly vanishes there, and any other order of additions gives another map."""

STEPS = (
    "convolution", "convolution", "convolution", "product", "product", "activation", "activation", "clip", "batch_norm",
    "pooled", "joined", "concatenated", "with_constant", "softmax", "normalised", "resized",
)  # fmt: skip
"""Layers with weights often behind one another's activations, as in networks: there the rules differ."""

RELEVANCE = ("lrp-eps", "lrp-gamma", "lrp-alphabeta", "lrp-epsilon-plus-flat", "excitation-backprop")
DIFFERENCES = ("deeplift-rescale", "deeplift-revealcancel")


def apart(found: Any, want: Any) -> float:
    """Of the worst sample, relative to its largest number."""
    a, b = np.asarray(found, np.float64), np.asarray(want, np.float64)
    return max(float(np.abs(x - y).max() / max(np.abs(y).max(), SMALLEST)) for x, y in zip(a, b, strict=True))


def shaky(compiled: ModelProto, drawn: Drawn, want: Array) -> bool:
    nudge = 3e-7 * np.random.default_rng(0).standard_normal(drawn.x.shape)
    moved = [run(compiled, (drawn.x * (1 + sign * nudge)).astype(np.float32))["attribution"] for sign in (1, -1)]
    return any(apart(each, want) > SHAKY for each in moved)


def assert_sum(compiled: ModelProto, drawn: Drawn) -> None:
    """What multipliers add up to is what the score moves by on the way from the baseline, zero."""
    results, before = run(compiled, drawn.x), run(compiled, np.zeros_like(drawn.x))
    here, there = (each["explained_score"].astype(np.float64) for each in (results, before))
    rows = results["attribution"].reshape(len(drawn.x), -1).astype(np.float64)
    scale = np.maximum(np.abs(rows).sum(axis=1), np.abs(here) + np.abs(there))
    assert (np.abs(rows.sum(axis=1) - (here - there)) <= TOLERANCE * np.maximum(scale, SMALLEST)).all()


def check(drawn: Drawn, method: str) -> str:
    """Returns: what became of the graph."""
    target = int(np.random.default_rng(1).integers(drawn.classes))
    try:
        compiled = compile_model(drawn.model, method, target=target)
    except OnnxplainError as error:
        return "refused: " + str(error).splitlines()[0].split("(node")[0][:160]
    try:
        run(drawn.model, drawn.x)
    except Exception as error:  # ONNX Runtime's errors have no common base but this one
        return "the original does not run: " + type(error).__name__
    results = run(compiled, drawn.x)
    want, known = results["attribution"], np.isfinite(results["explained_score"])
    assert np.isfinite(want[known]).all()
    if not known.all() or shaky(compiled, drawn, want):
        return "near a sum that vanishes"
    if method in DIFFERENCES:
        assert_sum(compiled, drawn)
    others: list[dict[str, Any]] = [{"runtime": "cpu"}, {"runtime": "cuda"}]
    others += [{"sign_analysis": False}] if method in RELEVANCE else []
    for how in others:
        found = run(compile_model(drawn.model, method, target=target, **how), drawn.x)["attribution"]
        assert apart(found, want) <= TOLERANCE, how
    if drawn.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        alone = [run(compiled, drawn.x[i : i + 1])["attribution"][0] for i in range(len(drawn.x))]
        assert apart(alone, want) <= TOLERANCE, "a sample by itself"
    return "agrees"


def fuzz(examples: int, method: str) -> Counter[str]:
    seen: Counter[str] = Counter()

    @settings(COMMON, max_examples=examples)
    @given(graphs(steps=9, of=STEPS))
    def one(drawn: Drawn) -> None:
        outcome = check(drawn, method)
        event(outcome)
        seen[outcome] += 1

    one()
    return seen


def assert_telling(seen: Counter[str]) -> None:
    """Most graphs must have been compared, or the test shows nothing."""
    assert seen["agrees"] >= 0.6 * seen.total(), seen


@pytest.mark.parametrize("method", [*RELEVANCE, *DIFFERENCES])
def test_relevance_of_random_graphs_has_one_answer(method: str) -> None:
    assert_telling(fuzz(30, method))


@pytest.mark.slow
@pytest.mark.parametrize("method", [*RELEVANCE, *DIFFERENCES])
def test_relevance_of_two_thousand_random_graphs_has_one_answer(method: str) -> None:
    assert_telling(fuzz(2_000, method))
