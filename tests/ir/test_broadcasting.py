"""What arrives at a broadcast result, summed back to the operand: sizes known when compiling, and not."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.ir.value import Value
from tests.ir.graphs import Bench
from tests.running import Array

STATIC: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((2, 3, 4), (2, 3, 4)),
    ((2, 3, 4), (1, 3, 4)),
    ((2, 3, 4), (3, 4)),
    ((2, 3, 4), (4,)),
    ((2, 3, 4), ()),
    ((2, 3, 4), (2, 1, 4)),
    ((2, 3, 4), (3, 1)),
    ((2, 3, 4), (1, 1, 1)),
    ((2, 1, 4), (1, 1)),
    ((2, 1, 4), (2, 3, 4)),
]


def summed_back(d: Array, shape: tuple[int, ...]) -> Array:
    lead = d.ndim - len(shape)
    d = d.sum(tuple(range(lead)))
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1 and d.shape[axis] != 1)
    return np.broadcast_to(d.sum(axes, keepdims=True), shape)


def operand(b: Bench, shape: tuple[int, ...]) -> Value:
    """A value of that shape that is computed at run time."""
    start = b.g.sum(b.x, range(b.x.rank), keepdims=False)
    return b.g.named(b.g.op("Expand", start, b.g.ints(shape)), shape) if shape else start


@pytest.mark.parametrize(("arrived", "shape"), STATIC)
def test_sizes_known_when_compiling(arrived: tuple[int, ...], shape: tuple[int, ...]) -> None:
    b = Bench(*arrived)
    found = b.g.unbroadcast(b.x, operand(b, shape))
    assert found.shape == shape
    d = np.random.default_rng(0).standard_normal(arrived).astype(np.float32)
    (numbers,) = b.numbers(d, found)
    np.testing.assert_allclose(numbers, summed_back(d, shape), rtol=1e-5)


def test_nothing_is_emitted_where_nothing_was_stretched() -> None:
    b = Bench("N", 3)
    assert b.g.unbroadcast(b.x, b.y).tensor is b.x.tensor
    assert b.operators == []


def test_the_same_name_is_the_same_size() -> None:
    b = Bench("N", 3)
    column = b.g.sum(b.x, [1])
    found = b.g.unbroadcast(b.x, column)
    assert found.shape == ("N", 1)
    assert "NonZero" not in b.operators


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_where_a_size_is_open_the_running_graph_decides(batch: int) -> None:
    """An operand whose batch may be one, or that of what arrives."""
    b = Bench("N", 3)
    half = b.g.op(
        "Slice", b.x, b.g.ints([0]), b.g.op("Div", b.g.shape(b.x, 0, 1), b.g.ints([4])) + b.g.ints([1]), b.g.ints([0])
    )
    assert half.shape[0] not in (1, "N")
    found = b.g.unbroadcast(b.x, half)
    d = np.random.default_rng(0).standard_normal((batch, 3)).astype(np.float32)
    size = batch // 4 + 1
    if size not in (1, batch):
        pytest.skip("not a broadcast")
    (numbers,) = b.numbers(d, found)
    np.testing.assert_allclose(numbers, summed_back(d, (size, 3)), rtol=1e-5)


def test_the_running_graph_sums_over_any_axes_that_turn_out_to_be_one() -> None:
    text = "g (float[a,b,c] x) => (float[a,b,c] y) {{ y = Relu(x) }}"
    for sizes in ((2, 3, 4), (1, 3, 1), (1, 1, 1)):
        b = Bench(text=text)
        like = b.g.input("like", np.dtype(np.float32), ["p", "q", "r"])
        found = b.g.unbroadcast(b.x, like)
        b.model.graph.outputs.append(b.g.publish(found, "found").tensor)
        from onnxplain.ir.save import to_proto
        from tests.running import run

        d = np.random.default_rng(1).standard_normal((2, 3, 4)).astype(np.float32)
        returned = run(to_proto(b.model), {"x": d, "like": np.zeros(sizes, np.float32)})["found"]
        np.testing.assert_allclose(returned, summed_back(d, sizes), rtol=1e-5)
