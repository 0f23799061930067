"""The table of derivatives as a whole: nothing in it is untested, and nothing is lost without a word."""

import numpy as np
import onnx
import pytest

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedOp
from onnxplain.rules.table import BROADCASTING, NONDIFFERENTIABLE, VJP
from tests.rules.harness import DYNAMIC, STATIC, Case, case, constant, differentiated, runtime
from tests.rules.vjp import (
    test_activation,
    test_elementwise,
    test_indexing,
    test_layout,
    test_linear,
    test_normalisation,
    test_pooling,
    test_quantisation,
    test_reduction,
    test_resampling,
    test_sampling,
)

CASES: list[Case] = [
    *test_activation.CASES,
    *test_elementwise.CASES,
    *test_indexing.CASES,
    *test_layout.CASES,
    *test_linear.CASES,
    *test_normalisation.CASES,
    *test_pooling.CASES,
    *test_quantisation.CASES,
    *test_reduction.CASES,
    *test_resampling.CASES,
    *test_sampling.CASES,
]


def test_every_rule_has_a_case() -> None:
    assert {case.op for case in CASES} == set(VJP)


def test_no_operator_is_both_differentiable_and_not() -> None:
    assert not set(VJP) & NONDIFFERENTIABLE


def test_what_the_table_names_exists() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}
    assert {*VJP, *NONDIFFERENTIABLE, *BROADCASTING} <= known
    assert set(VJP) >= BROADCASTING


def test_operators_without_derivative_have_no_real_output_that_depends_on_a_real_operand() -> None:
    """But for steps, which are flat; so what NONDIFFERENTIABLE stops is nothing."""
    steps = {"Sign", "Floor", "Ceil", "Round", "Hardmax"}
    likes = {"ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike"}
    for op in NONDIFFERENTIABLE - steps - likes:
        schema = onnx.defs.get_schema(op, 20, "")
        real = [i for i in schema.inputs if "tensor(float)" in i.types] and "tensor(float)" in schema.outputs[0].types
        assert not real, op


SPELLED_OUT = {"CastLike"}
"""Operators that a canonical pass replaces by others, which then count."""

LOST = {
    (c.op, len(c.nodes[0].input), name): pytest.param(c, name, id=f"{c.op}-{name}")
    for c in CASES
    if len(c.nodes) == 1 and c.op not in SPELLED_OUT
    for name in c.others
}


@pytest.mark.parametrize(("case", "operand"), list(LOST.values()))
def test_an_operand_without_derivative_is_refused(case: Case, operand: str) -> None:
    """The bias of a Conv, the bounds of a Clip, the factors of a Resize: a silent zero would be a wrong explanation."""
    with pytest.raises(UnsupportedOp, match=f"operand '{operand}' depends on the input"):
        differentiated(case, STATIC, np.float32, [operand])


def test_what_a_branch_takes_from_outside_is_not_lost() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20]>
        branching (float[N,4] x) => (float[N,4] y) {
          s = ReduceSum<keepdims=0>(x)
          positive = Greater(s, s)
          z = If<then_branch = yes () => (float[N,4] t) { t = Mul(x, x) },
                 else_branch = no () => (float[N,4] e) { e = Neg(x) }>(positive)
          y = Add(z, x)
        }""")
    with pytest.raises(UnsupportedOp, match="'If'"):
        compile_model(model, "gradient")


def test_sequences_of_tensors_are_refused_by_name() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20]>
        listing (float[N,4] x) => (float[N,1] y) <int64 one = {1}> {
          parts = SplitToSequence<axis=1, keepdims=1>(x, one)
          second = SequenceAt(parts, one)
          y = Mul(second, second)
        }""")
    with pytest.raises(UnsupportedOp, match=r"'SequenceAt' \(node 'second'\)"):
        compile_model(model, "gradient")


FORMS = [
    (case("Conv", 'y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)', None, x=(1, 2, 6, 6), w=(3, 2, 3, 3)),
     DYNAMIC, "auto_pad"),
    (case("AveragePool", 'y = AveragePool<auto_pad="SAME_LOWER", strides=[2], kernel_shape=[2]>(x)', None, x=(1, 2, 6)),
     DYNAMIC, "auto_pad"),
    (case("ConvTranspose", "y = ConvTranspose<output_shape=[7]>(x, w)", None, x=(1, 2, 6), w=(2, 2, 3)),
     DYNAMIC, "output_shape"),
    (case("BatchNormalization", "y, m, v = BatchNormalization<training_mode=1>(x, s, b, mean, variance)", None,
          x=(2, 3, 4), s=(3,), b=(3,), mean=(3,), variance=constant([1, 2, 3])), STATIC, "training mode"),
    (case("Dropout", "y = Dropout(x, ratio, training)", None,
          x=(2, 3), ratio=constant(0.5), training=constant(True, bool)), STATIC, "training mode"),
    (case("LayerNormalization", "z, y = LayerNormalization(x, s)", None, x=(2, 3), s=(3,)), STATIC, "used by itself"),
    (case("Einsum", 'y = Einsum<equation="ii->i">(x)', None, x=(3, 3)), STATIC, "equation"),
    (case("ScatterND", 'y = ScatterND<reduction="mul">(x, at, u)', None, x=(3, 4), at=[[1]], u=(1, 4)), STATIC,
     "reduction"),
    (case("Dropout", "y = Dropout(x, ratio, training)", None,
          x=(2, 3), ratio=constant(0.5), training=runtime(True, bool)), STATIC, "'training' is computed at run time"),
    (case("Resize", 'y = Resize<mode="linear", axes=[1, 2], keep_aspect_ratio_policy="not_larger">(x, "", "", sizes)',
          None, x=(1, 4, 6), sizes=[7, 7]), STATIC,
     "from 4 to 5 elements by the factor 1.16667, rounded up to a whole number"),
    (case("Resize", 'y = Resize<mode="linear", axes=[1, 2], keep_aspect_ratio_policy="not_larger">(x, "", "", sizes)',
          None, x=(1, 4, 6), sizes=[7, 7]), DYNAMIC,
     r"or sizes that keep its proportions, known only at run time.\n  Export the model with fixed sizes"),
    (case("Resize", 'y = Resize<coordinate_transformation_mode="tf_crop_and_resize">(x, roi, "", sizes)', None,
          x=(1, 3), roi=constant([0, 0, 1, 1]), sizes=[1, 6]), STATIC, "tf_crop_and_resize"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "shape", "reason"), FORMS, ids=[f"{c.op}-{reason}" for c, _, reason in FORMS])
def test_a_form_without_derivative_is_refused_with_its_reason(case: Case, shape: str, reason: str) -> None:
    with pytest.raises(UnsupportedOp, match=rf"'{case.op}' \(node '(?:y|z)'\) .*{reason}"):
        differentiated(case, shape, np.float32, ["x"])


@pytest.mark.parametrize("method", ["gradient", "deeplift-rescale", "lrp-eps"])
def test_a_quantiser_by_blocks_is_refused(method: str) -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        blocks (float[N,4] x) => (float[N,4] y) <float[1,2] scale = {0.1, 0.2}, int8[1,2] zero = {0, 0}> {
          q = QuantizeLinear<axis = 1, block_size = 2>(x, scale, zero)
          y = DequantizeLinear<axis = 1, block_size = 2>(q, scale, zero)
        }""")
    if method == "lrp-eps":  # which passes it through whatever its scales
        compile_model(model, method)
        return
    with pytest.raises(UnsupportedOp, match=r"'(Deq|Q)uantizeLinear' .* that quantises block by block"):
        compile_model(model, method)
