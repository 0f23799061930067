"""The lint's answers are those that ONNX Runtime 1.31.1's partitioner gave for the same graphs."""

from __future__ import annotations

import pytest
from onnx import ModelProto

from onnxplain.placement.lint import Placement, place
from tests.running import net

ZEROS = ",".join(["0"] * 54)
FILTERS = f"<float[2,3,3,3] w = {{{ZEROS}}}>"


def named(text: str, opset: int = 20) -> ModelProto:
    """The model, its nodes named n0, n1, ..."""
    model = net(text, opset)
    for i, node in enumerate(model.graph.node):
        node.name = f"n{i}"
    return model


def transposed(attributes: str) -> str:
    return f"g (float[1,2,5,5] x) => (float[1,3,h,w] y) {FILTERS} {{ y = ConvTranspose<{attributes}>(x, w) }}"


@pytest.mark.parametrize(
    ("text", "opset", "why"),
    [
        (transposed("pads=[1,1,0,0]"), 20, "ConvTranspose with pads [1, 1, 0, 0] that differ before and after is left"),
        (transposed('auto_pad="SAME_UPPER"'), 20, "ConvTranspose with auto_pad=SAME_UPPER is left to the CPU"),
        ("g (float[1,5] x) => (int64[1,1] y) { y = ArgMax<axis=1, select_last_index=1>(x) }", 20, "select_last_index"),
        ("g (float[2] x) => (string[2] y) { y = Cast<to=8>(x) }", 20, "do not take T1=float, T2=string"),
        ("g (float[2] x) => (float[2] y) { y = Celu(x) }", 20, "CUDA has no kernel for Celu"),
        ("g (int64[5] x) => (int64[1] y) <int64[1] a = {0}> { y = ReduceProd(x, a) }", 20, "do not take T=int64"),
        ("g (uint32[2] x) => (uint32[2] y) { y = BitwiseXor(x, x) }", 20, "CUDA has no kernel for BitwiseXor"),
        ("g (float[1,1,4,4] x) => (float[1,1,2,2] y) { y = MaxPool<kernel_shape=[3,3]>(x) }", 22,
         "CUDA has no kernel for MaxPool of opset 22, only for 1 to 7, 8 to 9, 10, 11, 12"),
    ],
)  # fmt: skip
def test_a_node_without_a_place_is_named_with_the_reason(text: str, opset: int, why: str) -> None:
    (found,) = place(named(text, opset)).fallbacks
    assert found.node == "n0"
    assert why in found.why


@pytest.mark.parametrize(
    "text",
    [
        transposed("pads=[1,1,1,1]"),
        transposed('auto_pad="VALID"'),
        transposed("output_shape=[6,6]"),
        transposed("pads=[1,1,0,0]").replace("ConvTranspose", "Conv").replace("[2,3,3,3]", "[3,2,3,3]"),
        "g (float[1,2,5,5] x) => (float[1,2,h,w] y) { y = MaxPool<kernel_shape=[2,2], pads=[1,0,0,0]>(x) }",
        "g (float[2] x) => (float[2] y) { y = Mish(x) }",
        "g (bool[5] x) => (int64[1,n] y) { y = NonZero(x) }",
        "g (float[1,1,4,4] x) => (float[1,1,2,2] y) { y = MaxPool<kernel_shape=[3,3]>(x) }",
    ],
)  # fmt: skip
def test_what_has_a_place_is_let_pass(text: str) -> None:
    assert place(named(text)) == Placement(1, (), (), ())


def test_arithmetic_with_shapes_is_on_the_cpu_and_copies_nothing() -> None:
    found = place(
        named("""
        g (float[N,M,3] x) => (float[k] y) <int64[1] i = {0}, int64[1] axis = {0}> {
            s = Shape(x)  a = Gather(s, i)  p = ReduceProd<keepdims=1>(s, axis)  t = Mul(a, p)  y = ConstantOfShape(t)
        }
    """)
    )
    assert found.shapes == ("n1", "n2", "n3")
    assert found.whole


def test_a_size_that_becomes_a_factor_is_copied_to_the_card() -> None:
    found = place(
        named("""
        g (float[N,M] x) => (float[N,M] y) <int64[1] axis = {0}> {
            r = Relu(x)  s = Shape(r)  p = ReduceProd<keepdims=0>(s, axis)  c = Cast<to=1>(p)  y = Div(r, c)
        }
    """)
    )
    assert (found.copies, found.fallbacks) == (("c",), ())
    assert not found.whole


def test_an_input_follows_the_shapes_that_it_is_combined_with() -> None:
    """ONNX Runtime takes it for one of them, since inputs may be fed on the CPU."""
    found = place(
        named("""
        g (float[N,M] x) => (float[N,M] y) <int64[1] axis = {0}> {
            s = Shape(x)  p = ReduceProd<keepdims=0>(s, axis)  c = Cast<to=1>(p)  y = Div(x, c)
        }
    """)
    )
    assert (found.shapes, found.copies) == (("n1", "n2", "n3"), ("x",))


def test_a_bound_computed_on_the_card_is_copied_to_the_cpu() -> None:
    text = "g (float[5] x, float m) => (float[k] y) <int64[2] p = {1, 1}> { a = Neg(m)  y = Pad(x, p, a) }"
    assert place(named(text)).copies == ("a",)
    clip = "g (float[5] x, float m) => (float[5] y) { a = Neg(m)  y = Clip(x, a) }"
    assert place(named(clip)).copies == ()


def test_what_is_around_a_fallback_is_copied() -> None:
    text = "g (float[5] x) => (float[5] y) { a = Relu(x)  b = Celu(a)  y = Relu(b) }"
    found = place(named(text))
    assert [f.node for f in found.fallbacks] == ["n1"]
    assert found.copies == ("a", "b")


def test_bodies_of_loops_are_looked_into() -> None:
    found = place(
        named("""
        g (float[2] x) => (float[2] y) <int64 times = {3}, bool go = {1}> {
            y = Loop(times, go, x) <body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t) {
                d = Identity(c)  t = Celu(s) }>
        }
    """)
    )
    assert [f.op for f in found.fallbacks] == ["Celu"]
    assert found.nodes == 3


def test_a_model_is_left_as_it_is() -> None:
    model = named(transposed("pads=[1,1,1,1]"))
    before = model.SerializeToString(deterministic=True)
    place(model)
    assert model.SerializeToString(deterministic=True) == before
