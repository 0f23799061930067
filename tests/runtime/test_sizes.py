"""What sizes are chosen where a model leaves them open."""

from __future__ import annotations

import pytest

from onnxplain.interface import Metadata
from onnxplain.ir.layout import Layout
from onnxplain.runtime.sizes import Shape, layout_of, of_others, of_samples


@pytest.mark.parametrize(
    ("shape", "last", "size", "expected"),
    [
        (("N", 3, 32, 32), False, None, (2, 3, 32, 32)),
        ((5, 3, "h", "w"), False, (48, 64), (5, 3, 48, 64)),
        ((None, None, None, None), False, None, (2, 3, 224, 224)),
        ((None, None, None, None), True, None, (2, 224, 224, 3)),
        (("N", "words"), False, None, (2, 16)),
        (("N", "words", 7), False, None, (2, 16, 7)),
    ],
)
def test_of_samples(shape: Shape, last: bool, size: tuple[int, int] | None, expected: tuple[int, ...]) -> None:
    rank = len(shape)
    layout = Layout(rank, rank - 1 if last else 1) if rank > 2 else Layout(rank, None)
    assert of_samples(shape, layout, 2, size) == expected


def test_where_channels_are_is_what_the_graph_says() -> None:
    assert layout_of(4, None) == Layout(4, 1)
    assert layout_of(4, Metadata("", "", {"layout": "channels-last"}, "", {}, {})) == Layout(4, 3)
    assert layout_of(2, None) == Layout(2, None)
    assert layout_of(5, Metadata("", "", {"layout": "2"}, "", {}, {})) == Layout(5, 2)
    assert layout_of(3, Metadata("", "", {"layout": "none"}, "", {}, {})) == Layout(3, None)


def test_what_is_a_picture_has_two_axes_of_places() -> None:
    assert of_samples(("N", "h", "w"), Layout(3, None), 2, (48, 64)) == (2, 48, 64)
    assert of_samples(("N", "h", None, "w"), Layout(4, 2), 2, (48, 64)) == (2, 48, 3, 64)
    assert of_samples(("N", "h", "w", 5), Layout(4, None), 2) == (2, 16, 16, 5)


def test_of_others() -> None:
    """The names of sizes are shared; the explanation's own inputs have the explained one's."""
    shapes: dict[str, Shape] = {
        "x": ("N", 3, "h", "w"),
        "mask": ("N", "h", "other"),
        "weights": (None, None, 4),
        "scale": (),
        "t": ("N",),
        "b": ("B", 3, "h", "w"),
        "z": ("K", "N", 3, "h", "w"),
    }
    roles = {"input": "x", "target": "t", "baseline": "b", "noise": "z"}
    expected = {
        "mask": (2, 5, 16),
        "weights": (2, 16, 4),
        "scale": (),
        "t": (2,),
        "b": (2, 3, 5, 6),
        "z": (4, 2, 3, 5, 6),
    }
    assert of_others(shapes, roles, (2, 3, 5, 6)) == expected
    assert of_others(shapes | {"z": (9, 1, 3, 8, 8)}, roles, (2, 3, 5, 6))["z"] == (9, 1, 3, 8, 8)
