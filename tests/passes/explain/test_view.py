"""Views: which part of the input a map covers along one dimension."""

from __future__ import annotations

from fractions import Fraction

import pytest

from onnxplain.passes.explain.view import View

F = Fraction
WHOLE = View()


def test_a_part_of_a_part() -> None:
    half = WHOLE.cut(8, 8, 32)
    assert half == View(F(1, 4), F(3, 4))
    assert half.cut(0, 4, 16) == View(F(1, 4), F(5, 8))
    assert half.mirrored().cut(4, 0, 16) == View(F(5, 8), F(1, 4))
    assert half.mirrored().mirrored() == half


def test_padding_is_cut_first() -> None:
    wide = WHOLE.padded(16, 4)
    assert wide == View(before=F(16), after=F(4))
    assert wide.cut(16, 4, 52) == WHOLE
    assert wide.cut(10, 0, 52) == View(before=F(6), after=F(4))
    assert wide.cut(24, 4, 52) == View(low=F(1, 4))
    assert wide.cut(48, 0, 52) is None, "nothing but padding is left"


def test_sizes_that_are_free() -> None:
    assert WHOLE.cut(1, 0, "H") is None
    assert WHOLE.padded(3, 3).cut(3, 2, "H") == View(after=F(1))


@pytest.mark.parametrize(
    ("padded", "window", "stride", "pads", "margins"),
    [
        ((0, 0), 3, 1, (1, 1), (0, 0)),
        ((0, 0), 5, 1, (0, 0), (0, 0)),  # maps of windows without padding are spread over all that they see
        ((3, 3), 7, 2, (0, 0), (0, 0)),  # padded by a node of its own
        ((0, 1), 3, 2, (0, 0), (0, 0)),  # as TensorFlow pads
        ((1, 1), 3, 1, (0, 0), (0, 0)),
        ((16, 16), 2, 2, (0, 0), (8, 8)),  # a letterbox
        ((16, 0), 3, 1, (1, 1), (16, 0)),
        ((19, 3), 7, 2, (0, 0), (F(33, 4), 0)),
        ((0, 0), 1, 1, (0, 32), (0, 32)),  # a letterbox within a convolution
        ((0, 0), 7, 1, (6, 6), (0, 0)),  # every output sees something
    ],
)
def test_windows(
    padded: tuple[int, int], window: int, stride: int, pads: tuple[int, int], margins: tuple[int, int]
) -> None:
    found = WHOLE.padded(*padded).windowed(window, stride, *pads)
    assert found == View(before=F(margins[0]), after=F(margins[1]))


def test_what_shows_the_same_to_within_a_cell() -> None:
    shifted = WHOLE.padded(0, 1).cut(1, 0, 57)
    assert shifted == View(low=F(1, 56), after=F(1))
    assert shifted.near(WHOLE, 56)
    assert not WHOLE.padded(0, 4).cut(4, 0, 60).near(WHOLE, 56)
    assert not WHOLE.mirrored().near(WHOLE, 56)
    assert WHOLE.near(View(), None)
    assert not shifted.near(WHOLE, None)
