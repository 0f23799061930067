"""A bias behind a Transpose is added in front of it, where the layer is; the numbers stay."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from onnxplain.passes.canonical.turned import AffineBeforeTranspose
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
    assert refusals(model, AffineBeforeTranspose()) == (1, ())
    assert operators(model) == ["Conv", "Sub" if "Sub" in body else "Add", "Transpose"]
    assert_unchanged(model, text(body), [(1, 3, 6, 5), (2, 3, 6, 5)])


@pytest.mark.parametrize(("body", "found"), [
    (f"t = {PERM}(c) y = Mul(t, b)", ["Conv", "Mul", "Transpose"]),
    (f"t = {PERM}(c) y = Div(t, b)", ["Conv", "Div", "Transpose"]),
    (f"t = {PERM}(c) m = Mul(b, t) y = Add(m, b)", ["Conv", "Mul", "Add", "Transpose"]),
    (f"t = {PERM}(c) a = Add(t, b) m = Mul(a, b) y = Sub(m, map)", ["Conv", "Add", "Mul", "Sub", "Transpose"]),
])  # fmt: skip
def test_what_scales_a_layers_output_comes_first_too(body: str, found: list[str]) -> None:
    model = typed(text(body))
    assert refusals(model, AffineBeforeTranspose()) == (found.index("Transpose") - 1, ())
    assert operators(model) == found
    assert_unchanged(model, text(body), [(1, 3, 6, 5), (2, 3, 6, 5)])


def test_scales_elsewhere_and_a_constant_over_the_output_stay() -> None:
    """A factor of queries is no layer's; over the output nothing is scaled."""
    for body in (f"r = Relu(c) t = {PERM}(r) y = Mul(t, b)", f"t = {PERM}(c) y = Div(b, t)"):
        assert refusals(typed(text(body)), AffineBeforeTranspose()) == (0, ())


def test_without_a_permutation_all_axes_are_turned() -> None:
    body = (
        """g (float[3,4] x) => (float[4,3] y) <float[3] b = {1, 2, 3}> { r = Relu(x) t = Transpose(r) y = Add(t, b) }"""
    )
    model = typed(body)
    assert refusals(model, AffineBeforeTranspose()) == (1, ())
    assert_unchanged(model, body, [(3, 4)])


@pytest.mark.parametrize(("body", "why"), [
    (f"t = {PERM}(c) a = Add(t, b) y = Mul(a, t)", "the output of 't' is read elsewhere too"),
    (f"t = {PERM}(c) a = Add(t, b) m = ReduceMax(c) y = Mul(a, m)", "the output of 't' is read elsewhere too"),
    (f"m = ReduceMean<keepdims = 1>(c) t = {PERM}(m) y = Add(t, map)", "the result may have another shape"),
])  # fmt: skip
def test_where_it_is_declined(body: str, why: str) -> None:
    model = typed(text(body))
    for each in model.graph.nodes:
        each.name = each.outputs[0].name
    changed, declined = refusals(model, AffineBeforeTranspose())
    assert (changed, [d.why for d in declined]) == (0, [why])


def test_a_constant_minus_the_output_stays() -> None:
    model = typed(text(f"t = {PERM}(c) y = Sub(b, t)"))
    assert refusals(model, AffineBeforeTranspose()) == (0, ())


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


@pytest.mark.parametrize("method", ["lrp-eps", "lrp-zplus", "lrp-gamma"])
def test_a_batch_norm_in_parts_behind_a_turned_layer(method: str) -> None:
    """The same as one convolution whose weights and bias numpy made."""
    w, k, s = seeded(2, 3, 3, 3), np.float32([0.7, -1.3]), np.float32([0.2, 0.4])
    ends = "r = Relu(n) axes = Constant<value_ints = [1, 2]>() m = ReduceSum<keepdims = 0>(r, axes) y = Neg(m)"
    graph = "g (float[N,3,6,5] x) => (float[N,2] y)"
    parts = net(f"{graph} {{ c = Conv<pads = [1, 1, 1, 1]>(x, w) t = {PERM}(c) p = Mul(t, k) n = Add(p, s) {ends} }}")
    whole = net(f"{graph} {{ c = Conv<pads = [1, 1, 1, 1]>(x, w, s) n = {PERM}(c) {ends} }}")
    for model, weights in ((parts, {"w": w, "k": k, "s": s}), (whole, {"w": w * k[:, None, None, None], "s": s})):
        model.graph.initializer.extend(numpy_helper.from_array(each, name) for name, each in weights.items())
    x = seeded(2, 3, 6, 5)
    one, other = (explained(model, x, method, target=0) for model in (parts, whole))
    assert np.abs(other["attribution"]).max() > 0.01
    for role in ("attribution", "residual"):
        np.testing.assert_allclose(one[role], other[role], rtol=1e-4, atol=1e-5)
