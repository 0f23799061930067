"""The nodes between a source and the score: those that a walk passes, those that only shape it, and those aside."""

from __future__ import annotations

import pytest

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedModel, UnsupportedOp
from onnxplain.ir.builder import Builder
from onnxplain.passes.explain.trace import Trace, trace
from tests.passes.graphs import typed
from tests.running import net


def traced(text: str, source: str = "x", score: str = "y") -> Trace:
    model = typed(text)
    g = Builder(model)
    tensors = model.graph.tensors()
    return trace(g, list(model.graph.nodes), g.wrap(tensors[source]), g.wrap(tensors[score]))


def names(found: Trace) -> list[str]:
    return [site.y.name for site in found.sites]


def test_only_what_lies_between_in_the_order_of_computation() -> None:
    found = traced("""g (float[N,3] x, float[N,3] other) => (float[N,3] y, float[N,3] z) {
        aside = Exp(other)  a = Relu(x)  dead = Neg(a)  b = Mul(a, aside)  y = Abs(b)  z = Sin(y) }""")
    assert names(found) == ["a", "b", "y"]
    assert found.varying >= {"x", "a", "b", "y"}
    assert "aside" not in found.varying


def test_a_shape_is_needed_but_passes_nothing_back() -> None:
    found = traced("""g (float[N,3] x) => (float[N,3] y) { a = Relu(x)  s = Shape(a)  y = Reshape(a, s) }""")
    assert names(found) == ["a", "y"]
    assert [n.outputs[0].name for n in found.nodes] == ["a", "s", "y"]
    assert "s" not in found.varying
    assert found.sites[-1].varying == (True, False)


@pytest.mark.parametrize("flat", ["Floor(x)", "Sign(x)", "Round(x)"])
def test_a_score_that_only_depends_by_steps_is_refused(flat: str) -> None:
    with pytest.raises(UnsupportedModel, match="does not depend on 'x' by anything that has a derivative"):
        traced(f"g (float[N,3] x) => (float[N,3] y) {{ a = {flat}  y = Relu(a) }}")


def test_integers_carry_nothing_back() -> None:
    with pytest.raises(UnsupportedModel, match="does not depend on 'x'"):
        traced("g (float[N,3] x) => (float[N,3] y) { i = Cast<to = 7>(x)  y = Cast<to = 1>(i) }")


def test_an_input_that_the_score_does_not_see_is_refused() -> None:
    text = "g (float[N,3] x, float[N,3] other) => (float[N,3] y) { a = Neg(x)  y = Relu(other) }"
    with pytest.raises(UnsupportedModel, match="the score 'y' does not depend on 'x'"):
        traced(text)


def test_the_part_behind_a_tap() -> None:
    found = traced("g (float[N,3] x) => (float[N,3] y) { a = Relu(x)  b = Exp(a)  c = Sin(a)  y = Mul(b, c) }")
    tap = found.sites[0].y
    assert names(found.since(tap)) == ["b", "c", "y"]


def test_a_tap_behind_the_score_is_refused() -> None:
    found = traced("g (float[N,3] x) => (float[N,3] y, float[N,3] z) { y = Relu(x)  z = Exp(y) }", score="z")
    earlier = traced("g (float[N,3] x) => (float[N,3] y, float[N,3] z) { y = Relu(x)  z = Exp(y) }")
    with pytest.raises(UnsupportedModel, match="does not depend on 'z'"):
        earlier.since(found.score)


# What a walk refuses, before it emits anything


def test_an_operator_without_a_rule_is_named_with_its_place_and_all_others() -> None:
    model = net("""g (float[N,4] x) => (float[N,4] y) <float[4] z = {1,2,3,4}, int64[1] axis = {1}> {
        a = Relu(x)  b = Det2(a)  y = Det3(b) }""")
    for each in model.graph.node:
        each.name = f"/block/{each.output[0]}"
    with pytest.raises(UnsupportedOp) as caught:
        compile_model(model)
    message = str(caught.value)
    assert "'Det2'" in message
    assert "/block/b" in message
    assert "Det3 (/block/y)" in message


def test_an_operand_that_the_rule_does_not_cover_is_refused_and_not_lost() -> None:
    """The scale of a batch norm that depends on the input."""
    model = net("""g (float[1,4] x) => (float[1,4] y)
        <float[4] zero = {0,0,0,0}, float[4] one = {1,1,1,1}, int64[1] axis = {0}> {
        s = Squeeze(x, axis)  y = BatchNormalization(x, s, zero, zero, one) }""")
    model.graph.node[1].name = "/norm"
    with pytest.raises(UnsupportedOp, match="cannot pass 'BatchNormalization'") as caught:
        compile_model(model)
    message = str(caught.value)
    assert "node '/norm'" in message
    assert "its operand 's' depends on the input" in message
    assert "between 'x' and the score 'y'" in message


def test_what_does_not_lie_between_may_be_anything() -> None:
    """An operator without a rule that reads a constant, or that feeds another output."""
    model = net(
        """g (float[N,4] x) => (float[N,4] y, float z) <float[2,2] m = {1,2,3,4}, float[1,2,2] n = {1,0,0,1}> {
        d = Det(m)  y = Mul(x, d)  s = Sum2(x)  z = ReduceSum<keepdims = 0>(x) }""".replace("s = Sum2(x)", "")
    )
    assert "attribution" in {o.name for o in compile_model(model, output="y").graph.output}
