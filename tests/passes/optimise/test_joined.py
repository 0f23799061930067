"""Sums of two strided transposed convolutions, as one over the channels of both."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.passes.optimise.joined import JoinedTransposes
from tests.passes.graphs import assert_unchanged, emitted, operators, refusals


def weights(*shape: int, seed: int = 1) -> str:
    return ",".join(f"{v:.3f}" for v in np.random.default_rng(seed).standard_normal(int(np.prod(shape))))


def graph(one: str, other: str = "", second: str = "3,2,3,3", more: str = "y = Add(a, b)") -> str:
    size = [int(d) for d in second.split(",")]
    return f"""g (float[N,3,5,4] x) => (float[N,C,A,B] y)
        <float[3,2,3,3] w = {{{weights(3, 2, 3, 3)}}}, float[{second}] v = {{{weights(*size, seed=2)}}}> {{
            d = Relu(x)
            a = ConvTranspose<{one}>(x, w)
            b = ConvTranspose<{other or one}>(d, v)
            {more} }}"""


@pytest.mark.parametrize(
    "attributes",
    ["strides=[2,2]", "strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]", "strides=[1,3], dilations=[2,1]"],
)
def test_the_sum_becomes_one(attributes: str) -> None:
    text = graph(attributes)
    model = emitted(text)
    assert refusals(model, JoinedTransposes()) == (1, ())
    assert_unchanged(model, text, [(1, 3, 5, 4), (2, 3, 5, 4)])
    made = [n for n in model.graph.nodes if n.outputs[0].name == "y"]
    assert [n.op for n in made] == ["ConvTranspose"]
    assert {t.inputs[0].op for t in made[0].inputs if t.inputs} == {"Concat"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (graph("strides=[2,2]", "strides=[2,2], pads=[0,0,0,0]"), "they differ in shape, or go group by group"),
        (graph("strides=[2,2]", second="3,1,3,3"), "what they return is not known to be of one shape"),
        (graph("strides=[2,2]", more="e = Add(a, b) y = Add(e, a)"), "others read one of them, or it has a bias"),
    ],
)
def test_it_stays_where_they_are_not_alike(text: str, why: str) -> None:
    model = emitted(text)
    changed, declined = refusals(model, JoinedTransposes())
    assert changed == 0
    assert why in {r.why for r in declined}
    assert operators(model).count("ConvTranspose") == 2


def test_a_stride_of_one_is_left_to_convolutions() -> None:
    assert refusals(emitted(graph("pads=[1,1,1,1]")), JoinedTransposes()) == (0, ())
