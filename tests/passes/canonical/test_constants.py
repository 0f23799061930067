"""Constants lifted, and what depends on them alone computed ahead."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnxplain.passes.canonical.constants import FoldConstants, LiftConstants
from tests.passes.graphs import assert_unchanged, canonical, node, numbers, operators, refusals, results, typed


@pytest.mark.parametrize(
    ("attribute", "expected", "dtype"),
    [
        ("value = float[2] {1, 2}", [1, 2], np.float32),
        ("value_float = 1.5", 1.5, np.float32),
        ("value_floats = [1.5, 2.5]", [1.5, 2.5], np.float32),
        ("value_int = 3", 3, np.int64),
        ("value_ints = [3, 4]", [3, 4], np.int64),
        ('value_string = "a"', "a", np.object_),
        ('value_strings = ["a", "b"]', ["a", "b"], np.object_),
    ],
)
def test_every_kind_of_constant_becomes_an_initialiser(attribute: str, expected: object, dtype: type) -> None:
    text = "g (float[2] x) => (float[2] y) {{ c = Constant<{}>() y = Mul(x, x) d = Identity(c) }}"
    model = typed(text.format(attribute))
    assert "Constant" not in operators(model)
    constant = node(model, "d").inputs[0]
    assert isinstance(constant, gs.Constant)
    np.testing.assert_array_equal(model.weights.array(constant), expected)
    assert model.weights.array(constant).dtype == dtype


def test_lifting_counts_and_changes_nothing_twice() -> None:
    text = "g (float[2] x) => (float[2] y) { c = Constant<value = float {2}>() y = Mul(x, c) }"
    model = typed(text)
    assert refusals(model, LiftConstants()) == (0, ())
    assert_unchanged(model, text, [(2,)])


@pytest.mark.parametrize("constant", ['value_strings = ["a"]', 'value = string[1] {"a"}'])
def test_texts_are_carried_along(constant: str) -> None:
    """What is computed of them stays computed: onnx-graphsurgeon cannot write an array of texts."""
    text = f"""g (float[N,2] x) => (float[N,2] y, string[2] words) {{
        y = Relu(x) c = Constant<{constant}>() e = Identity(c) words = Concat<axis = 0>(e, c) }}"""
    model, _ = canonical(text)
    assert results(model, 1, 2)["words"].tolist() == ["a", "a"]


SHAPES = """g (float[N,3,4] x) => (float[N,12] y) {
    s = Shape(x)  two = Constant<value_ints = [1, 2]>()  inner = Gather(s, two)  flat = ReduceProd<keepdims = 1>(inner)
    minus = Constant<value_ints = [-1]>()  target = Concat<axis = 0>(minus, flat)  y = Reshape(x, target) }"""


def test_chains_are_folded_as_far_as_sizes_are_known() -> None:
    static = typed(SHAPES.replace("[N,", "[2,"))
    changed, _ = refusals(static, FoldConstants())
    assert changed == 4
    assert operators(static) == ["Reshape"]
    assert numbers(static, node(static, "y").inputs[1]) == [-1, 12]
    dynamic = typed(SHAPES)
    refusals(dynamic, FoldConstants())
    assert "Shape" in operators(dynamic), "its batch is open"
    assert_unchanged(dynamic, SHAPES, [(1, 3, 4), (5, 3, 4)])


def test_part_of_a_shape_is_folded_where_that_part_is_known() -> None:
    text = "g (float[N,3,4] x) => (int64[2] y) { p = Shape<start = 1>(x) y = Neg(p) }"
    model = typed(text)
    assert refusals(model, FoldConstants())[0] == 1
    assert numbers(model, node(model, "y").inputs[0]) == [3, 4]


def test_outputs_of_the_model_stay_computed() -> None:
    model = typed("g (float[2] x) => (float[2] y, float[2] z) <float[2] w = {1, 2}> { y = Relu(x) z = Neg(w) }")
    assert refusals(model, FoldConstants())[0] == 0
    assert_unchanged(model, "g (float[2] x) => (float[2] z) <float[2] w = {1, 2}> { z = Neg(w) }", [])


@pytest.mark.parametrize("left", ["RandomNormalLike(w)", "Expand(w, large)"])
def test_random_and_large_results_are_left_for_the_runtime(left: str) -> None:
    model = typed(f"""g (float[2] x) => (float[2] y, float[a,b] z)
        <float[2] w = {{1, 2}}, int64[2] large = {{100000, 2}}> {{ y = Relu(x)  n = {left}  z = Identity(n) }}""")
    before = operators(model)
    assert refusals(model, FoldConstants())[0] == 0
    assert operators(model) == before


def test_integer_weights_stay_integers() -> None:
    model = typed("""g (float[N,2] x) => (float[N,2] y) <int8[2,2] w = {1,2,3,4}, float s = {0.5}, int8 z = {0}> {
        d = DequantizeLinear(w, s, z) y = MatMul(x, d) }""")
    assert refusals(model, FoldConstants())[0] == 0
    assert "DequantizeLinear" in operators(model)
