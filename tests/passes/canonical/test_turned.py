"""A bias behind a Transpose is added in front of it, where the layer is; the numbers stay."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.passes.canonical.turned import AddBeforeTranspose
from tests.passes.graphs import assert_unchanged, operators, refusals, seeded, typed
from tests.running import explained, net

W, B, MAP = (", ".join(f"{v:.3f}" for v in seeded(*shape).ravel()) for shape in ((2, 3, 3, 3), (2,), (6, 5, 2)))
PERM = "Transpose<perm = [0, 2, 3, 1]>"


def text(body: str) -> str:
    return f"""g (float[N,3,6,5] x) => (float[N,6,5,2] y) <float[2,3,3,3] w = {{{W}}}, float[2] b = {{{B}}},
        float[6,5,2] map = {{{MAP}}}, float[1] one = {{1}}> {{ c = Conv<pads = [1, 1, 1, 1]>(x, w) {body} }}"""


@pytest.mark.parametrize("body", [
    f"t = {PERM}(c) y = Add(t, b)", f"t = {PERM}(c) y = Add(b, t)", f"t = {PERM}(c) y = Sub(t, b)",
    f"t = {PERM}(c) y = Add(t, map)", f"t = {PERM}(c) y = Add(t, one)",
])  # fmt: skip
def test_the_sum_comes_first(body: str) -> None:
    model = typed(text(body))
    assert refusals(model, AddBeforeTranspose()) == (1, ())
    assert operators(model) == ["Conv", "Sub" if "Sub" in body else "Add", "Transpose"]
    assert_unchanged(model, text(body), [(1, 3, 6, 5), (2, 3, 6, 5)])


def test_without_a_permutation_all_axes_are_turned() -> None:
    body = (
        """g (float[3,4] x) => (float[4,3] y) <float[3] b = {1, 2, 3}> { r = Relu(x) t = Transpose(r) y = Add(t, b) }"""
    )
    model = typed(body)
    assert refusals(model, AddBeforeTranspose()) == (1, ())
    assert_unchanged(model, body, [(3, 4)])


@pytest.mark.parametrize(("body", "why"), [
    (f"t = {PERM}(c) a = Add(t, b) y = Mul(a, t)", "the output of 't' is read elsewhere too"),
    (f"t = {PERM}(c) a = Add(t, b) m = ReduceMax(c) y = Mul(a, m)", "the output of 't' is read elsewhere too"),
    (f"m = ReduceMean<keepdims = 1>(c) t = {PERM}(m) y = Add(t, map)", "the sum may have another shape"),
])  # fmt: skip
def test_where_it_is_declined(body: str, why: str) -> None:
    model = typed(text(body))
    for each in model.graph.nodes:
        each.name = each.outputs[0].name
    changed, declined = refusals(model, AddBeforeTranspose())
    assert (changed, [d.why for d in declined]) == (0, [why])


def test_a_constant_minus_the_output_stays() -> None:
    model = typed(text(f"t = {PERM}(c) y = Sub(b, t)"))
    assert refusals(model, AddBeforeTranspose()) == (0, ())


@pytest.mark.parametrize("method", ["lrp-zplus", "lrp-gamma", "lrp-alphabeta"])
def test_the_layers_rule_sees_it(method: str) -> None:
    x = seeded(2, 3, 6, 5)
    ends = "r = Relu(n) axes = Constant<value_ints = [1, 2]>() s = ReduceSum<keepdims = 0>(r, axes) y = Neg(s)"
    bodies = (f"t = {PERM}(c) n = Add(t, b) {ends}", f"d = Conv<pads = [1, 1, 1, 1]>(x, w, b) n = {PERM}(d) {ends}")
    one, other = (
        explained(net(text(body).replace("N,6,5,2", "N,2")), x, method, target=0)["attribution"] for body in bodies
    )
    assert np.abs(one).max() > 0.01
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
