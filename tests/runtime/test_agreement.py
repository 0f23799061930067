"""How far apart two attributions are, and how far one moves by itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnxplain.runtime.agreement import Distance, distance, movement, relative_error
from onnxplain.runtime.feeds import Array

X = np.full((2, 40), 3.0, np.float32)
FIVES = np.full((2, 40), 5.0)


def slope(at: float) -> Callable[[Array], Array]:
    """The gradient of 5 |x - at|."""
    return lambda x: 5 * np.sign(x.astype(np.float64) - at)


def test_the_worst_sample_counts_and_zeros_have_no_size() -> None:
    expected = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]])
    assert relative_error(expected, expected) == 0
    assert relative_error(expected + np.array([[0.5, 0], [0, 0], [0.3, 0]]), expected) == pytest.approx(0.3)
    assert relative_error(expected + np.array([[0, 0], [0.2, 0], [0, 0]]), expected) == pytest.approx(0.2)
    assert np.isnan(relative_error(expected * np.nan, expected))


def test_attributions_move_where_rounding_crosses_a_kink() -> None:
    assert movement(X, slope(0.0), FIVES) == 0
    assert movement(X, slope(3.0), FIVES) > 0.5


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_inputs_move_by_twice_their_rounding_unless_told(dtype: type) -> None:
    seen: list[Array] = []

    def run(x: Array) -> Array:
        seen.append(x)
        return x

    batch = np.ones((1, 50), dtype)
    movement(batch, run, batch)
    assert {x.dtype for x in seen} == {np.dtype(dtype)}
    assert {float(abs(x - 1).max()) for x in seen} == {2 * float(np.finfo(dtype).eps)}
    assert len({x.tobytes() for x in seen}) == 4  # draws differ
    assert movement(batch, run, batch, 0.125) == pytest.approx(0.125)


def test_integers_have_no_last_bits() -> None:
    assert movement(X.astype(np.uint8), slope(3.0), FIVES) == 0


def test_only_what_is_apart_is_moved() -> None:
    def never(_: Array) -> Array:
        raise AssertionError

    assert distance(FIVES * (1 + 5e-4), FIVES, X, never).moves is None
    assert distance(FIVES * 1.01, FIVES, X, slope(0.0)) == Distance(pytest.approx(0.01), 0.0)


@pytest.mark.parametrize(
    ("error", "moves", "suspect"),
    [(1e-3, None, False), (2e-3, 0.0, True), (2e-3, 3.9e-4, True), (2e-3, 4.1e-4, False), (float("nan"), 1.0, True)],
)
def test_what_is_suspect(error: float, moves: float | None, suspect: bool) -> None:
    assert Distance(error, moves).suspect == suspect
