"""Strided transposed convolutions as repeated elements and a convolution of stride 1, in one order or the other."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.passes.optimise.strides import DepthwiseStrides, PointStrides
from tests.passes.graphs import assert_unchanged, emitted, operators, refusals


def graph(attributes: str, filters: str = "3,1,3,3", values: str = "", x: str = "N,3,5,4") -> str:
    size = int(np.prod([int(d) for d in filters.split(",")]))
    given = values or ",".join(f"{v:.3f}" for v in np.random.default_rng(1).standard_normal(size))
    return f"""g (float[{x}] x) => (float[N,3,A,B] y) <float[{filters}] w = {{{given}}}>
               {{ y = ConvTranspose<{attributes}>(x, w) }}"""


@pytest.mark.parametrize(
    ("attributes", "filters"),
    [
        ("group=3, strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]", "3,1,3,3"),
        ("group=3, strides=[2,2], pads=[1,1,1,1]", "3,1,3,3"),
        ("group=3, strides=[2,2]", "3,1,3,3"),
        ("group=3, strides=[2,1], pads=[0,1,1,0]", "3,1,3,2"),
        ("group=3, strides=[3,2], dilations=[2,1], pads=[2,1,0,1], output_padding=[2,0]", "3,1,3,3"),
        ("group=3, strides=[2,2], output_padding=[1,1]", "3,1,1,1"),
        ("group=3, strides=[4,4], pads=[1,1,1,1]", "3,1,7,7"),
    ],
)
def test_zeros_are_written_between_the_elements(attributes: str, filters: str) -> None:
    model = emitted(graph(attributes, filters))
    assert refusals(model, DepthwiseStrides()) == (1, ())
    assert "ConvTranspose" not in operators(model)
    assert_unchanged(model, graph(attributes, filters), [(1, 3, 5, 4), (2, 3, 5, 4)])


def test_the_derivative_of_a_mean_over_windows_side_by_side_is_a_repetition() -> None:
    text = graph("group=3, strides=[2,3]", "3,1,2,3", ",".join(["1"] * 18))
    model = emitted(text)
    assert refusals(model, DepthwiseStrides()) == (1, ())
    assert operators(model) == ["Resize"]
    assert_unchanged(model, text, [(2, 3, 5, 4)])


@pytest.mark.parametrize(
    ("attributes", "filters", "x", "why"),
    [
        (
            "strides=[2,2]",
            "3,3,2,2",
            "N,3,5,4",
            "it is no convolution of each channel by itself, over two axes, in single",
        ),
        ("group=3, strides=[2,2]", "3,1,1,1", "N,3,5,4", "it crops more than its filters reach"),
        ("group=3, strides=[2,2], pads=[3,3,3,3]", "3,1,3,3", "N,3,5,4", "it crops more than its filters reach"),
        ("group=3, strides=[2,2]", "3,1,3,3", "N,3,H,4", "its sizes are not known"),
    ],
)
def test_elsewhere_it_stays(attributes: str, filters: str, x: str, why: str) -> None:
    model = emitted(graph(attributes, filters, x=x))
    changed, declined = refusals(model, DepthwiseStrides())
    assert changed == 0
    assert [r.why.startswith(why) for r in declined] == [True]


def test_a_stride_of_one_is_not_looked_at() -> None:
    assert refusals(emitted(graph("group=3")), DepthwiseStrides()) == (0, ())


@pytest.mark.parametrize(
    ("attributes", "filters"),
    [
        ("strides=[2,2], output_padding=[1,1]", "3,2,1,1"),
        ("strides=[3,1], output_padding=[2,0]", "3,2,1,1"),
        ("group=3, strides=[2,2], output_padding=[1,1]", "3,2,1,1"),
        ("strides=[2,2], output_padding=[1,1], pads=[0,0,0,0]", "3,2,1,1"),
    ],
)
def test_filters_of_one_element_convolve_before_the_zeros_are_written(attributes: str, filters: str) -> None:
    text = graph(attributes, filters).replace("float[N,3,A,B] y", "float[N,C,A,B] y")
    model = emitted(text)
    assert refusals(model, PointStrides()) == (1, ())
    found = operators(model)
    assert "ConvTranspose" not in found
    assert found.index("Conv") < found.index("Resize")
    assert_unchanged(model, text, [(1, 3, 5, 4), (2, 3, 5, 4)])


@pytest.mark.parametrize(
    ("attributes", "x", "why"),
    [
        ("strides=[2,2]", "N,3,5,4", "what it returns does not end with the zeros behind the last element"),
        ("strides=[2,2], output_padding=[1,1]", "N,3,H,4", "it is not over two axes of known size"),
    ],
)
def test_with_one_element_it_stays_where_zeros_are_cut_or_sizes_unknown(attributes: str, x: str, why: str) -> None:
    changed, declined = refusals(emitted(graph(attributes, "3,2,1,1", x=x).replace("N,3,A", "N,C,A")), PointStrides())
    assert changed == 0
    assert [r.why.startswith(why) for r in declined] == [True]


def test_larger_filters_are_not_looked_at() -> None:
    assert refusals(emitted(graph("strides=[2,2]", "3,3,2,2")), PointStrides()) == (0, ())
