"""Names of layouts, and the guess that goes by sizes alone."""

from __future__ import annotations

import pytest

from onnxplain.errors import UsageError
from onnxplain.ir.layout import Layout, refuse_other_count
from onnxplain.ir.load import load
from onnxplain.passes.canonical import canonicalise
from tests.running import net


@pytest.mark.parametrize(
    ("rank", "channel", "name", "spatial"),
    [
        (4, 1, "channels-first", (2, 3)),
        (4, 3, "channels-last", (1, 2)),
        (4, None, "none", (1, 2, 3)),
        (5, 2, "2", (1, 3, 4)),
        (3, 1, "channels-first", (2,)),
        (3, None, "none", (1, 2)),
        (2, None, "none", (1,)),
    ],
)
def test_a_layout_has_a_name_that_names_it(rank: int, channel: int | None, name: str, spatial: tuple[int, ...]) -> None:
    layout = Layout(rank, channel)
    assert (layout.name, layout.spatial) == (name, spatial)
    assert Layout.named(rank, name) == layout


@pytest.mark.parametrize(
    ("rank", "name", "channel"),
    [(4, "3", 3), (3, "1", 1), (2, "channels-first", None), (2, "1", None), (5, "channels-last", 4)],
)
def test_other_names_of_the_same(rank: int, name: str, channel: int | None) -> None:
    assert Layout.named(rank, name) == Layout(rank, channel)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nhwc",
            "there is no layout 'nhwc'. The layouts are: auto, channels-first, channels-last, none, or the number of "
            "the axis that holds channels.",
        ),
        ("-1", "there is no layout '-1'."),
        ("0", "layout 0: the input has 4 axes, 0 holds the batch, and one of the others may hold channels."),
        ("4", "layout 4: the input has 4 axes, 0 holds the batch, and one of the others may hold channels."),
    ],
)
def test_a_layout_that_does_not_exist(name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Layout.named(4, name)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("shape", "channel"),
    [
        (("N", 5, 5, 3), 3),
        (("N", 3, 5, 3), 1),
        (("N", 8, 3, 5, 5), 2),
        (("N", 16, 5, 5), 1),
        (("N", "h", "w", 1), 3),
        (("N", 3, 4, 5, 6), 1),
        (("N", 5), None),
        (("N", 1, 5), 1),
        (("N", 5, 1), 2),
        (("N", 28, 28), None),
        (("N", "h", "w"), None),
    ],
)
def test_what_sizes_tell(shape: tuple[int | str, ...], channel: int | None) -> None:
    assert Layout.by_size(shape) == Layout(len(shape), channel)


@pytest.mark.parametrize(
    ("sizes", "channel", "count", "message"),
    [
        ("N,3,5,5", 1, 2, "mean has 2 numbers, and the input has 3 channels: one, or one for each, is needed."),
        ("N,5,5,1", 3, 3, "mean has 3 numbers, and the input has 1 channels: one, or one for each, is needed."),
        ("N,4", None, 4, "mean has 4 numbers, and the input has no channels: one is needed."),
        ("N,3,5,5", 1, 3, ""),
        ("N,3,5,5", 1, 1, ""),
        ("N,C,5,5", 1, 3, ""),
        ("N,4", None, 1, ""),
    ],
)
def test_numbers_are_one_for_all_channels_or_one_for_each(
    sizes: str, channel: int | None, count: int, message: str
) -> None:
    x = canonicalise(load(net(f"g (float[{sizes}] x) => (float[{sizes}] y) {{ y = Relu(x) }}")))[0].graph.inputs[0]
    layout = Layout(len(x.shape), channel)
    if not message:
        return refuse_other_count("mean", count, x, layout)
    with pytest.raises(UsageError) as caught:
        refuse_other_count("mean", count, x, layout)
    assert str(caught.value) == message
    return None
