"""Of any small graph of core operators the compiled gradient is the derivative, or there is a clear refusal."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, event, given, settings

import tests.properties.spatial
import tests.properties.steps  # noqa: F401  both fill the table of steps
from onnxplain.errors import OnnxplainError
from tests.oracle import gradient
from tests.properties.graphs import Drawn, graphs
from tests.running import assert_outputs_kept, explained, relative_error, run

NEAR_A_KINK = 1e-4
"""Relative: a graph is passed over at inputs where the oracle's own float64 gradient moves more than this when the
input moves by a millionth, for then float32 cannot decide on which side of a kink, or how steep a slope, it is."""

IN_SINGLE = 3e-5
"""Relative: likewise where the oracle's own gradient in float32 is further than this from that in float64."""

TOLERANCE = 1e-4

SMALLEST = 1e-3
"""A gradient that is smaller everywhere came through a saturated function, whose slope float32 knows only as well as it
knows the function: it is compared with this instead."""

COMMON = settings(
    deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False
)


def reference(drawn: Drawn, target: int) -> np.ndarray | None:
    """The oracle's gradient in float64; None where float32 cannot be expected to find it."""
    classes = [target] * len(drawn.x)
    found = gradient(drawn.model, drawn.x, classes).numpy()
    if not np.isfinite(found).all() or np.abs(found).max() > 1e6:
        return None
    nudge = np.random.default_rng(0).standard_normal(drawn.x.shape)
    for size in (1e-6, -1e-6):
        moved = gradient(drawn.model, torch.from_numpy(drawn.x.astype(np.float64) + size * nudge), classes).numpy()
        if _apart(moved, found) > NEAR_A_KINK:
            return None
    single = gradient(drawn.model, drawn.x, classes, dtype=torch.float32).numpy()
    return None if _apart(single, found) > IN_SINGLE else found


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    if any(np.abs(row).max() < SMALLEST for row in b):
        return float(np.abs(a - b).max() / max(np.abs(b).max(), SMALLEST))
    return relative_error(a, b)


def check(drawn: Drawn, runtime: str) -> str:
    """Returns: what became of the graph."""
    target = int(np.random.default_rng(1).integers(drawn.classes))
    try:
        depends = gradient(drawn.model, drawn.x, [target] * len(drawn.x)) is not None
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
        depends = False
    try:
        results = explained(drawn.model, drawn.x, target=target, runtime=runtime)
    except OnnxplainError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert depends or "does not depend" in refusal
        return "refused: " + refusal.splitlines()[0].split("(node")[0][:160]
    want = reference(drawn, target)
    if want is None:
        return "near a kink"
    try:
        original = run(drawn.model, drawn.x)
    except Exception as error:  # ONNX Runtime's errors have no common base but this one
        return "the original does not run: " + type(error).__name__
    assert_outputs_kept(results, original)
    found = results["attribution"]
    assert found.shape == want.shape
    assert _apart(found, want) <= TOLERANCE, _apart(found, want)
    return "agrees"


def fuzz(examples: int, runtime: str) -> Counter[str]:
    seen: Counter[str] = Counter()

    @settings(COMMON, max_examples=examples)
    @given(graphs())
    def one(drawn: Drawn) -> None:
        outcome = check(drawn, runtime)
        event(outcome)
        seen[outcome] += 1

    torch.set_num_threads(1)
    one()
    return seen


def assert_telling(seen: Counter[str]) -> None:
    """Most graphs must have been compared, or the test shows nothing."""
    assert seen["agrees"] >= 0.6 * seen.total(), seen


@pytest.mark.parametrize(("runtime", "examples"), [("portable", 150), ("cpu", 100)])
def test_compiled_gradients_of_random_graphs_are_derivatives(runtime: str, examples: int) -> None:
    assert_telling(fuzz(examples, runtime))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["portable", "cpu"])
def test_compiled_gradients_of_ten_thousand_random_graphs_are_derivatives(runtime: str) -> None:
    assert_telling(fuzz(10_000, runtime))
