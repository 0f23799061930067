"""Sizes that follow by arithmetic; and where they do not, the graph stays as it is."""

from __future__ import annotations

import onnx_graphsurgeon as gs
import pytest

from onnxplain.passes.canonical.batch import FreeBatch
from onnxplain.passes.canonical.constants import FoldConstants
from onnxplain.passes.canonical.refine import RefineShapes
from tests.passes.graphs import assert_unchanged, canonical, node, numbers, operators, refusals, typed

FLATTEN = """g (float[N,3,4,5] x) => (float[N,60] y) <int64 i = {0}, int64[1] axis = {0}, int64[1] rest = {-1}> {
    s = Shape(x) n = Gather(s, i) u = Unsqueeze(n, axis) t = Concat<axis = 0>(u, rest) y = Reshape(x, t) }"""


def test_a_computed_target_with_one_open_size_becomes_a_constant() -> None:
    model = typed(FLATTEN)
    assert refusals(model, RefineShapes())[0] == 1
    target = node(model, "y").inputs[1]
    assert isinstance(target, gs.Constant)
    assert numbers(model, target) == [-1, 60]
    assert list(node(model, "y").outputs[0].shape) == ["N", 60]
    assert_unchanged(model, FLATTEN, [(1, 3, 4, 5), (4, 3, 4, 5)])


def test_the_chain_that_made_it_is_dead_code_then() -> None:
    model, _ = canonical(FLATTEN)
    assert operators(model) == ["Reshape"]


TOKENS = """g (float[N,8,h,w] x) => (float[N,t,8] y) <int64[3] target = {0, 8, -1}> {
    r = Reshape(x, target) y = Transpose<perm = [0, 2, 1]>(r) }"""


def test_several_open_sizes_stay_open() -> None:
    model, _ = canonical(TOKENS)
    assert_unchanged(model, TOKENS, [(1, 8, 2, 3), (2, 8, 4, 4)])
    assert node(model, "y").outputs[0].shape[0] == "N"
    assert not isinstance(node(model, "y").outputs[0].shape[1], int)


TWO_OPEN = """g (float[N,M,6] x) => (float[N,M,2,3] y) <int64[2] which = {0, 1}, int64[2] rest = {2, 3}> {
    s = Shape(x) a = Gather(s, which) t = Concat<axis = 0>(a, rest) y = Reshape(x, t) }"""


def test_a_target_with_two_open_sizes_stays_computed() -> None:
    model = typed(TWO_OPEN)
    assert refusals(model, RefineShapes())[0] == 0
    assert not isinstance(node(model, "y").inputs[1], gs.Constant)
    assert list(node(model, "y").outputs[0].shape) == ["N", "M", 2, 3]
    assert_unchanged(model, TWO_OPEN, [(1, 2, 6), (3, 1, 6)])


MERGED = """g (float[N,2,6] x) => (float[k,3] y) <int64[2] target = {-1, 3}> { r = Reshape(x, target) y = Relu(r) }"""


def test_a_size_that_is_a_multiple_of_the_batch_has_no_name() -> None:
    model, _ = canonical(MERGED)
    assert node(model, "y").outputs[0].shape[0] not in ("N", 4)
    assert_unchanged(model, MERGED, [(1, 2, 6), (2, 2, 6)])


def test_a_known_size_of_an_open_shape_is_a_number() -> None:
    text = """g (float[N,3,4] x) => (int64 y) <int64 i = {2}> { s = Shape(x) n = Gather(s, i) y = Neg(n) }"""
    model = typed(text)
    assert refusals(model, RefineShapes())[0] == 1
    assert numbers(model, node(model, "y").inputs[0]) == [4]
    open_one = typed(text.replace("{2}", "{0}"))
    assert refusals(open_one, RefineShapes())[0] == 0
    assert "Gather" in operators(open_one)


def test_so_is_a_known_part_of_it() -> None:
    text = """g (float[N,3,4] x) => (int64[2] y) <int64[1] first = {-2}, int64[1] last = {9}> {
        s = Shape(x) n = Slice(s, first, last) y = Neg(n) }"""
    model = typed(text)
    assert refusals(model, RefineShapes())[0] == 1
    assert numbers(model, node(model, "y").inputs[0]) == [3, 4]
    assert_unchanged(model, text, [(2, 3, 4)])
    open_one = typed(text.replace("{-2}", "{0}"))
    assert refusals(open_one, RefineShapes())[0] == 0
    assert "Slice" in operators(open_one)


def test_tensors_without_elements_are_left_alone() -> None:
    """A 0 in a target would mean something else."""
    text = """g (float[N,0,4] x) => (float[N,0] y) <int64[1] i = {0}, int64[1] none = {0}> {
        s = Shape(x) n = Gather(s, i) t = Concat<axis = 0>(n, none) y = Reshape<allowzero = 1>(x, t) }"""
    model = typed(text)
    assert refusals(model, RefineShapes())[0] == 0


# The batch in Reshapes

FIXED = """g (float[2,3,4] x) => (float[2,12] y) <int64[2] t = {2, 12}> { y = Reshape(x, t) }"""


def test_a_reshape_that_keeps_the_batch_says_so() -> None:
    model = typed(FIXED)
    assert refusals(model, FreeBatch()) == (1, ())
    assert numbers(model, node(model, "y").inputs[1]) == [0, 12]
    assert_unchanged(model, FIXED, [(2, 3, 4)])


DECLINED = [
    (
        """g (float[2,6,4] x) => (float[2,24] y) <int64[2] a = {12, 4}, int64[2] t = {2, 24}> {
        r = Reshape(x, a) y = Reshape(r, t) }""",
        "y",
    ),
    (
        """g (float[2,3,4] x) => (float[3,2,4] z) <int64[3] a = {3, 2, 4}, int64[3] t = {2, 3, 4}> {
        r = Reshape(x, a) q = Reshape(r, t) z = Reshape(q, a) }""",
        "q",
    ),
]


@pytest.mark.parametrize(("text", "where"), DECLINED)
def test_a_reshape_that_mixes_the_batch_is_left_alone(text: str, where: str) -> None:
    model = typed(text)
    changed, declined = refusals(model, FreeBatch())
    assert changed == 0
    assert [d.where for d in declined] == [where]
    assert "its first axis goes from" in declined[0].why


def test_other_numbers_and_open_batches_are_none_of_its_business() -> None:
    for text in (FIXED.replace("{2, 12}", "{-1, 12}"), FIXED.replace("[2,", "[N,").replace("{2, 12}", "{-1, 12}")):
        assert refusals(typed(text), FreeBatch()) == (0, ())


def test_it_is_done_for_batches_of_one_as_exporters_write_them() -> None:
    text = """g (float[1,3,4] x) => (float[1,2] y) <int64[2] t = {1, 12}, float[12,2] w = {1,2,3,4,5,6,7,8,9,10,11,12,
        13,14,15,16,17,18,19,20,21,22,23,24}> { f = Reshape(x, t) y = MatMul(f, w) }"""
    model, _ = canonical(text)
    assert refusals(model, FoldConstants()) == (0, ())
    assert numbers(model, node(model, "f").inputs[1]) == [0, 12]


COMPUTED = {
    "the largest of three": ("h = Gather(s, i)", "k = Max(h, five, sixteen)"),
    "the smallest of one": ("h = Gather(s, i)", "k = Min(h)"),
    "a size made a flag": ("h = Gather(s, i) d = Sub(h, five) b = Cast<to = 9>(d)",
                           "f = Cast<to = 7>(b) k = Mul(f, sixteen)"),
    "a remainder with a sign": ("h = Gather(s, i) d = Neg(h)", "r = Mod<fmod = 1>(d, five) k = Neg(r)"),
    "a size halved as a real": ("h = Gather(s, i) d = Cast<to = 1>(h)", "q = Div(d, two) k = Cast<to = 7>(q)"),
}  # fmt: skip


@pytest.mark.parametrize("how", COMPUTED)
def test_a_size_that_is_computed_is_what_the_model_computes(how: str) -> None:
    text = f"""g (float[N,3,8,8] x) => (float[N,p] y) <int64[1] i = {{2}}, int64[1] five = {{5}}, float[1] two = {{2}},
        int64[1] sixteen = {{16}}, int64[1] o = {{0}}, int64[1] rest = {{-1}}, int64[1] axis = {{2}}> {{
        s = Shape(x) n = Gather(s, o) {" ".join(COMPUTED[how])} t = Concat<axis = 0>(n, k, rest) u = Reshape(x, t)
        y = ReduceMax<keepdims = 0>(u, axis) }}"""
    model, _ = canonical(text)
    assert_unchanged(model, text, [(1, 3, 8, 8), (2, 3, 8, 8)])
