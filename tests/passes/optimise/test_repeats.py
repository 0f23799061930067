"""A max-pool's winners where windows lie side by side: the same as by indices, ties included."""

from __future__ import annotations

import numpy as np
import pytest

import onnxplain
from onnxplain.passes.optimise.repeats import RepeatedWinners
from tests.passes.graphs import assert_unchanged, emitted, operators, refusals
from tests.passes.optimise.test_lowering import operators as counted
from tests.running import Array, net, run


def pool(attributes: str, x: str) -> str:
    return f"""g (float[N,{x}] x) => (float[N,16] y) {{
        e = Exp(x) p = MaxPool<{attributes}>(e) q = Mul(p, p) m = GlobalAveragePool(q) y = Flatten(m) }}"""


def few_values(*shape: int) -> Array:
    """Numbers of which many are equal, so that windows have several largest ones."""
    return np.random.default_rng(0).integers(-1, 2, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("attributes", "x"),
    [
        ("kernel_shape=[2,2], strides=[2,2]", "16,6,8"),
        ("kernel_shape=[2,2], strides=[2,2], pads=[0,0,0,0], dilations=[1,1]", "16,6,8"),
        ("kernel_shape=[3,2], strides=[3,2]", "16,6,8"),
        ("kernel_shape=[4,4], strides=[4,4]", "16,4,8"),
    ],
)
def test_the_winners_are_those_of_the_indices_ties_included(attributes: str, x: str) -> None:
    text = pool(attributes, x)
    by_indices, repeated = (onnxplain.compile_model(net(text), "gradient", runtime=r) for r in ("cuda", "cpu"))
    assert counted(by_indices)["ScatterElements"] == 1
    assert counted(repeated)["ScatterElements"] == 0
    shape = [3, *map(int, x.split(","))]
    kernel = [int(k) for k in attributes[14:17].split(",")]
    windows = 3 * np.prod(shape[2:]) // np.prod(kernel)  # of one channel, the explained class's
    for images in (few_values(*shape), np.zeros(shape, np.float32), np.random.default_rng(1).standard_normal(shape)):
        images = images.astype(np.float32)
        expected = run(by_indices, images)["attribution"]
        assert np.count_nonzero(expected) == windows
        np.testing.assert_allclose(run(repeated, images)["attribution"], expected, rtol=1e-6)


def test_where_one_number_is_not_one_the_others_are_explained() -> None:
    lowered = onnxplain.compile_model(
        net(pool("kernel_shape=[2,2], strides=[2,2]", "16,6,8")), "gradient", runtime="cpu"
    )
    images = few_values(2, 16, 6, 8)
    expected = run(lowered, images)["attribution"]
    images[0, 3, 1, 1] = np.nan
    found = run(lowered, images)["attribution"]
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize(
    ("attributes", "x", "why"),
    [
        ("kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]", "16,6,8", "its windows do not lie side by side"),
        ("kernel_shape=[2,2]", "16,6,8", "its windows do not lie side by side"),
        ("kernel_shape=[2,2], strides=[2,2]", "16,7,8", "its windows do not cover everything"),
        ("kernel_shape=[2,2], strides=[2,2], dilations=[2,2]", "16,6,8", "its windows do not cover everything"),
        ("kernel_shape=[2,2], strides=[2,2]", "8,6,8", "the pool is not over two axes of known size"),
        ("kernel_shape=[2,2], strides=[2,2]", "16,H,W", "the pool is not over two axes of known size"),
    ],
)
def test_elsewhere_indices_stay(attributes: str, x: str, why: str) -> None:
    text = scatter(attributes, x)
    model = emitted(text)
    changed, declined = refusals(model, RepeatedWinners())
    assert changed == 0
    assert [r.why.startswith(why) for r in declined] == [True]


def scatter(attributes: str, x: str, fill: str = "0", reduction: str = "none") -> str:
    """What a pool lets through, put back in its place."""
    return f"""g (float[N,{x}] x) => (float[F] y) <int64[1] flat = {{-1}}> {{
        p, i = MaxPool<{attributes}>(x) s = Shape(x) z = ConstantOfShape<value = float[1] v {{{fill}}}>(s)
        a = Reshape(z, flat) b = Reshape(i, flat) c = Reshape(p, flat)
        y = ScatterElements<axis=0, reduction="{reduction}">(a, b, c) }}"""


def test_whatever_is_put_at_the_winners_is_repeated() -> None:
    text = scatter("kernel_shape=[2,2], strides=[2,2]", "16,6,8")
    model = emitted(text)
    assert refusals(model, RepeatedWinners()) == (1, ())
    assert "ScatterElements" not in operators(model)
    assert_unchanged(model, text, [(1, 16, 6, 8), (2, 16, 6, 8)])


@pytest.mark.parametrize(("fill", "reduction"), [("1", "none"), ("0", "add")])
def test_what_is_put_into_something_else_is_not_looked_at(fill: str, reduction: str) -> None:
    model = emitted(scatter("kernel_shape=[2,2], strides=[2,2]", "16,6,8", fill, reduction))
    assert refusals(model, RepeatedWinners()) == (0, ())
