"""Zeros that are padded by a node of their own are the convolution's; other paddings stay."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.passes.canonical.padded import PadsIntoConv
from onnxplain.passes.canonical.pads import ExplicitPads
from tests.passes.graphs import assert_unchanged, node, operators, refusals, seeded, typed
from tests.running import explained, net

W = ", ".join(f"{v:.3f}" for v in seeded(2, 3, 3, 3).ravel())


def text(body: str) -> str:
    return f"""g (float[N,3,6,5] x) => (float[N,2] y) <float[2,3,3,3] w = {{{W}}}, int64[8] p = {{0,0,1,2,0,0,3,0}},
        int64[4] few = {{1,0,0,2}}, int64[2] axes = {{2,3}}, int64[8] deep = {{0,1,1,1,0,-1,1,1}},
        int64[8] cut = {{0,0,-1,1,0,0,1,1}}, float zero = {{0}}, float one = {{1}}> {{ {body}
        m = ReduceMean<keepdims = 0>(c, axes) y = Neg(m) }}"""


FOLDED = {
    "c = Conv(q, w)": [1, 2, 3, 0],
    "c = Conv<pads = [1, 0, 2, 1], strides = [2, 1]>(q, w)": [2, 2, 5, 1],
    "c = Conv<dilations = [2, 1]>(q, w)": [1, 2, 3, 0],
}


@pytest.mark.parametrize("pad", ["Pad(x, p)", "Pad(x, p, zero)"])
@pytest.mark.parametrize("conv", FOLDED)
def test_zeros_join_the_convolution(conv: str, pad: str) -> None:
    body = text(f"q = {pad} {conv}")
    model = typed(body)
    refusals(model, ExplicitPads())
    assert refusals(model, PadsIntoConv()) == (1, ())
    assert operators(model)[0] == "Conv"
    assert node(model, "c").attrs["pads"] == FOLDED[conv]
    assert_unchanged(model, body, [(1, 3, 6, 5), (2, 3, 6, 5)])


def test_of_some_axes_and_for_several_readers() -> None:
    body = text("q = Pad(x, few, zero, axes) a = Conv(q, w) b = Conv<pads = [1, 1, 1, 1]>(q, w) "
                "s = ReduceMean(b) k = ReduceMax(q) t = Add(s, k) c = Add(a, t)")  # fmt: skip
    model = typed(body)
    refusals(model, ExplicitPads())
    assert refusals(model, PadsIntoConv())[0] == 2
    assert "Pad" in operators(model)  # the maximum still reads it
    assert_unchanged(model, body, [(2, 3, 6, 5)])


@pytest.mark.parametrize(("body", "why"), [
    ('q = Pad<mode = "reflect">(x, p) c = Conv(q, w)', "it pads by 'reflect'"),
    ("q = Pad(x, p, one) c = Conv(q, w)", "it does not pad with zeros"),
    ("q = Pad(x, deep) c = Conv(q, w)", "it pads the batch or the channels"),
    ("q = Pad(x, cut) c = Conv(q, w)", "it cuts off"),
    ("r = ReduceMin<keepdims = 0>(x) q = Pad(x, p, r) c = Conv(q, w)", "what it pads is known only at run time"),
])  # fmt: skip
def test_other_paddings_are_declined(body: str, why: str) -> None:
    model = typed(text(body))
    refusals(model, ExplicitPads())
    changed, declined = refusals(model, PadsIntoConv())
    assert changed == 0
    assert [d.why for d in declined] == [why]
    assert "Pad" in operators(model)


@pytest.mark.parametrize("method", ["lrp-epsilon-plus-flat", "deep-taylor", "gradient"])
def test_zeros_get_no_relevance(method: str) -> None:
    """The same maps from a Pad as from the convolution's own pads; under flat the zeros took a share."""
    x = np.abs(seeded(2, 3, 6, 5))
    one = explained(net(text("q = Pad(x, p) c = Conv(q, w)")), x, method, target=0)
    other = explained(net(text("c = Conv<pads = [1, 2, 3, 0]>(x, w)")), x, method, target=0)
    assert np.abs(one["attribution"]).max() > 0
    np.testing.assert_allclose(one["attribution"], other["attribution"], rtol=1e-5, atol=1e-7)
