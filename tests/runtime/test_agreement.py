"""How far apart two attributions are, and how far one moves by itself."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
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


@pytest.mark.parametrize("sample", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_never_agreement(sample: int, value: float) -> None:
    """Not even where the attribution moves without bound."""
    found = FIVES.copy()
    found[sample, 0] = value
    assert not np.isfinite(relative_error(found, FIVES))
    assert distance(found, FIVES, X, slope(0.0)).suspect
    with np.errstate(invalid="ignore"):
        assert distance(found, FIVES, X, lambda x: np.full(x.shape, np.inf)).suspect
    assert Distance(value, np.inf).suspect


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_sample_that_moves_excuses_no_other(wrong: int) -> None:
    """One lies on a kink, where it may be three times as much; the other lies elsewhere and is wrong by half."""
    found, batch = FIVES.copy(), np.full((2, 40), 4.0, np.float32)
    batch[1 - wrong] = 3.0
    found[1 - wrong] *= 3
    apart = distance(found, FIVES, batch, slope(3.0))
    assert not apart.suspect
    assert apart.error == pytest.approx(2)
    found[wrong] *= 1.5
    apart = distance(found, FIVES, batch, slope(3.0))
    assert apart.suspect
    assert (apart.error, apart.moves) == (pytest.approx(0.5), 0)


def test_attributions_move_where_rounding_crosses_a_kink() -> None:
    assert (movement(X, slope(0.0), FIVES) == 0).all()
    assert (movement(X, slope(3.0), FIVES) > 0.5).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_inputs_move_by_twice_their_rounding_unless_told(dtype: type) -> None:
    seen: list[Array] = []

    def run(x: Array) -> Array:
        seen.append(x)
        return x

    batch = np.ones((1, 50), dtype)
    movement(batch, run, batch)
    assert {x.dtype for x in seen} == {np.dtype(dtype)}
    assert {float(abs(x - 1).max()) for x in seen} == {2 * float(ml_dtypes.finfo(dtype).eps)}
    assert len({x.tobytes() for x in seen}) == 4  # draws differ
    np.testing.assert_allclose(movement(batch, run, batch, 0.125), 0.125)


def test_integers_have_no_last_bits() -> None:
    assert (movement(X.astype(np.uint8), slope(3.0), FIVES) == 0).all()


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
