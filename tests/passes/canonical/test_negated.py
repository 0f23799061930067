"""A sign behind a layer goes into its weights; the numbers stay, and rules see contributions as the score does."""

from __future__ import annotations

import re

import numpy as np
import pytest

from onnxplain.compiler import compile_model
from onnxplain.errors import UsageError
from onnxplain.passes.canonical.negated import NegateLayers
from onnxplain.passes.optimise.dead_code import DropDeadCode
from tests.passes.graphs import assert_unchanged, operators, refusals, seeded, typed
from tests.running import explained, net

W, V, B = ((", ".join(f"{v:.3f}" for v in array.ravel())) for array in
           (seeded(4, 4, 3, 3), -seeded(4, 4, 3, 3), seeded(4)))  # fmt: skip
MINUS_B = ", ".join(f"{-v:.3f}" for v in seeded(4))
CONV = "Conv<pads = [1, 1, 1, 1]>"
METHODS = ["lrp-zplus", "lrp-alphabeta", "lrp-gamma", "lrp-epsilon-plus", "excitation-backprop", "lrp-composite"]
BOUNDS = {"lrp-composite": {"low": -4.0, "high": 4.0}}


def text(body: str) -> str:
    return f"""g (float[N,4,5,6] x) => (float[N,4] y) <float[4,4,3,3] w = {{{W}}}, float[4,4,3,3] v = {{{V}}},
        float[4] b = {{{B}}}, float[4] d = {{{MINUS_B}}}, float one = {{0.7}}, float minus = {{-1}},
        float[4,1,1] k = {{-0.5, -2, -1, -3}}, float[4,1,1] l = {{0.5, 2, 1, 3}}, float[4] gamma = {{1, -2, 3, 1}},
        float[4] beta = {{1, 2, -3, 4}}, float[4] variance = {{1, 2, 3, 4}}, int64[2] axes = {{2, 3}}> {{
        s = Relu(x) {body} r = Relu(n) m = ReduceMean<keepdims = 0>(r, axes) y = Identity(m) }}"""


NORM = "BatchNormalization({}, gamma, {}, {}, variance)"
PAIRS = {
    "Neg": (f"c = {CONV}(s, w, b) n = Neg(c)", f"n = {CONV}(s, v, d)"),
    "constant minus": (f"c = {CONV}(s, w, b) n = Sub(one, c)", f"c = {CONV}(s, v, d) n = Add(one, c)"),
    "signal minus": (f"c = {CONV}(s, w, b) n = Sub(s, c)", f"c = {CONV}(s, v, d) n = Add(s, c)"),
    "a sum and its sign": (f"c = {CONV}(s, w, b) a = Neg(c) n = Add(s, a)", f"c = {CONV}(s, v, d) n = Add(s, c)"),
    "shifted": (f"c = {CONV}(s, w) a = Add(c, l) n = Neg(a)", f"c = {CONV}(s, v) n = Sub(c, l)"),
    "scaled": (f"c = {CONV}(s, w, b) n = Mul(k, c)", f"c = {CONV}(s, v, d) n = Mul(l, c)"),
    "turned": (
        f"c = {CONV}(s, w, b) t = Transpose<perm = [0, 2, 3, 1]>(c) a = Neg(t) n = Transpose<perm = [0, 3, 1, 2]>(a)",
        f"n = {CONV}(s, v, d)",
    ),
    "normalised": (
        f"c = {CONV}(s, w, b) a = {NORM.format('c', 'beta', 'd')} n = Neg(a)",
        f"c = {CONV}(s, v, d) e = Neg(beta) n = {NORM.format('c', 'e', 'b')}",
    ),
    "twice": (f"c = {CONV}(s, w, b) a = Neg(c) e = Sub(one, a) n = Neg(e)", f"c = {CONV}(s, v, d) n = Sub(c, one)"),
    "read elsewhere": (
        f"c = {CONV}(s, w, b) a = Neg(c) e = Relu(c) f = Relu(a) h = Sub(one, c) i = Relu(h) n = Sum(e, f, i)",
        f"c = {CONV}(s, w, b) a = {CONV}(s, v, d) e = Relu(c) f = Relu(a) h = Add(one, a) i = Relu(h) n = Sum(e, f, i)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PAIRS)
def test_it_is_the_layer_of_negated_weights(name: str, method: str) -> None:
    x = seeded(2, 4, 5, 6)
    one, other = (explained(net(text(b)), x, method, target=1, **BOUNDS.get(method, {})) for b in PAIRS[name])
    assert np.abs(other["attribution"]).max() > 1e-3
    for role in ("y", "attribution", "residual"):
        np.testing.assert_allclose(one[role], other[role], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*PAIRS, "scaled behind"])
def test_another_method_in_the_graph_changes_nothing(name: str) -> None:
    """Norms and scales are folded once signs are where they belong, whichever method asks first."""
    behind = f"c = {CONV}(s, w, b) a = Neg(c) n = {NORM.format('a', 'beta', 'd')}"
    graph = net(text(behind if name == "scaled behind" else PAIRS[name][0]))
    x = seeded(2, 4, 5, 6)
    alone = explained(graph, x, "lrp-zplus", target=1)["attribution"]
    beside = explained(graph, x, "gradient,lrp-zplus", target=1)["attribution_lrp-zplus"]
    np.testing.assert_array_equal(beside, alone)


@pytest.mark.parametrize("name", PAIRS)
def test_the_numbers_stay(name: str) -> None:
    model = typed(text(PAIRS[name][0]))
    assert refusals(model, NegateLayers())[0] > 0
    assert not {"Neg", "Sub"} & set(operators(model))
    assert_unchanged(model, text(PAIRS[name][0]), [(1, 4, 5, 6), (2, 4, 5, 6)])


def test_by_hand() -> None:
    """3 x0 - x1 = 2 where both are one: z+ gives all to x0."""
    for body in ("n = Neg(c)", "n = Sub(zero, c)", "n = Mul(c, m)"):
        graph = f"""g (float[N,2] x) => (float[N,1] y)
            <float[2,1] w = {{-3, 1}}, float zero = {{0}}, float m = {{-1}}> {{
            c = MatMul(x, w) {body} y = Relu(n) }}"""
        for method, want in (("lrp-zplus", [2, 0]), ("lrp-alphabeta", [4, -2]), ("excitation-backprop", [2, 0])):
            found = explained(net(graph), np.ones((1, 2), np.float32), method)["attribution"]
            np.testing.assert_allclose(found, [want], atol=1e-4)


def test_a_dense_layer_on_a_sequence() -> None:
    """Signs have no axis: what a scale for each channel is refused for, a sign is not."""

    def graph(weights: str, body: str) -> str:
        return f"""g (float[N,3,2] x) => (float[N,2] y) <float[2,2] w = {{{weights}}}, float m = {{-1}},
            int64[1] ax = {{1}}> {{ c = MatMul(x, w) {body} r = Relu(n) y = ReduceSum<keepdims = 0>(r, ax) }}"""

    x = seeded(2, 3, 2)
    want = explained(net(graph("3, -1, 2, 1", "n = Identity(c)")), x, "lrp-zplus", target=0)["attribution"]
    for body in ("n = Neg(c)", "n = Mul(m, c)"):
        found = explained(net(graph("-3, 1, -2, -1", body)), x, "lrp-zplus", target=0)["attribution"]
        np.testing.assert_allclose(found, want, rtol=1e-5)


def test_what_is_read_elsewhere_stays_once() -> None:
    model = typed(text(PAIRS["read elsewhere"][0]))
    assert refusals(model, NegateLayers()) == (2, ())
    refusals(model, DropDeadCode())
    assert operators(model).count("Conv") == 2


def test_a_sign_of_a_sign_of_what_is_read_elsewhere() -> None:
    body = f"c = {CONV}(s, w, b) a = Neg(c) e = Neg(a) f = Neg(c) n = Sum(c, e, f, a)"
    model = typed(text(body))
    assert refusals(model, NegateLayers()) == (3, ())
    assert_unchanged(model, text(body), [(2, 4, 5, 6)])


@pytest.mark.parametrize("body", [
    f"c = {CONV}(s, w) e = Relu(c) n = Neg(e)", f"c = {CONV}(s, w) n = Sub(c, one)", "n = Sub(one, s)",
    f"c = {CONV}(s, w) m = GlobalAveragePool(c) n = Sub(c, m)", f"c = {CONV}(s, w) n = Div(minus, c)",
])  # fmt: skip
def test_where_no_layer_gets_a_sign_all_stays(body: str) -> None:
    model = typed(text(body).replace(" m = ReduceMean", " q = ReduceMean").replace("Identity(m)", "Identity(q)"))
    before = operators(model)
    assert refusals(model, NegateLayers()) == (0, ())
    assert operators(model) == before


def test_a_layer_that_is_asked_for_keeps_its_sign() -> None:
    model = typed(text(PAIRS["Neg"][0]))
    changed, declined = refusals(model, NegateLayers(frozenset({"c"})))
    assert (changed, [each.why for each in declined]) == (0, ["'c' is asked for"])
    shared = typed(text(PAIRS["read elsewhere"][0]))
    assert refusals(shared, NegateLayers(frozenset({"c"}))) == (2, ())
    message = (
        "layer 'c' has a sign behind it that lrp-zplus takes into its weights, and then it holds something else.\n"
        "  Compile the two methods one by one."
    )
    with pytest.raises(UsageError, match=re.escape(message)):
        compile_model(net(text(PAIRS["Neg"][0])), "grad-cam,lrp-zplus", layer="c")
