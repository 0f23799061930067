"""What no output needs is dropped, and nothing else; order and names stay."""

from __future__ import annotations

from onnxplain.passes.optimise.dead_code import DropDeadCode
from tests.passes.graphs import assert_unchanged, operators, refusals, typed

TEXT = """g (float[N,3] x) => (float[N,3] y, float[N,3] z) {
    dead = Exp(x)  a = Relu(x)  deader = Neg(dead)  y = Abs(a)  z = Sin(x)  last = Cos(y) }"""


def test_what_no_output_needs_is_dropped_and_the_order_stays() -> None:
    model = typed(TEXT)
    assert refusals(model, DropDeadCode()) == (3, ())
    assert operators(model) == ["Relu", "Abs", "Sin"]
    assert refusals(model, DropDeadCode()) == (0, ())
    assert_unchanged(model, TEXT, [(2, 3)])


def test_a_node_of_which_one_output_is_needed_stays() -> None:
    text = "g (float[N,4] x) => (float[N,2] y) { a, y = Split<axis = 1, num_outputs = 2>(x) b = Relu(a) }"
    model = typed(text)
    assert refusals(model, DropDeadCode()) == (1, ())
    assert operators(model) == ["Split"]


LOOP = """g (float[N,3] x) => (float[N,3] y) <int64 times = {2}, bool go = {1}> {
    outside = Exp(x)  unused = Log(x)
    y = Loop(times, go, x) <body = inside (int64 i, bool c, float[N,3] s) => (bool d, float[N,3] t) {
        d = Identity(c)  nothing = Sin(s)  t = Mul(s, outside) }> }"""


def test_bodies_are_swept_and_keep_alive_what_they_read_from_outside() -> None:
    model = typed(LOOP)
    assert refusals(model, DropDeadCode()) == (2, ())
    assert operators(model) == ["Exp", "Loop"]
    (body,) = model.graph.nodes[-1].subgraphs()
    assert [n.op for n in body.nodes] == ["Identity", "Mul"]
    assert_unchanged(model, LOOP, [(2, 3)])
