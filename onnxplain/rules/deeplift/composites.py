"""DeepLIFT's composites. What no line names is refused: the derivative would not keep the sum, unnoticed."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.site import Site
from onnxplain.rules.composite import Composite, Entry, Where, op
from onnxplain.rules.deeplift.differences import (
    choice,
    linear,
    magnitude_sum,
    midpoint,
    product,
    quantised,
    reciprocal,
    requantised,
    rescale,
    rescaled,
    root,
    step,
)
from onnxplain.rules.deeplift.extremes import extreme, max_pool, reduced_extreme
from onnxplain.rules.deeplift.normalisation import (
    log_softmax,
    log_sum_exp,
    lp_norm,
    lrn,
    mean_variance_norm,
    norm,
    softmax,
)
from onnxplain.rules.deeplift.reveal_cancel import follows_dense_layer, follows_layer, reveal_cancel

LINEAR = (
    "Conv", "ConvTranspose", "BatchNormalization", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum",
    "CumSum", "Add", "Sub", "Sum", "Mean", "Neg", "Identity", "Dropout", "Cast", "CastLike", "Resize",
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "Concat", "Split", "Slice", "Pad",
    "Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "DepthToSpace", "SpaceToDepth", "Trilu",
    "DequantizeLinear",
)  # fmt: skip
"""Linear in the operands that depend on the input, as long as indices and bounds do not depend on it."""

ONE_INPUT = (
    "Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Shrink", "Elu", "Selu", "Celu", "Sigmoid", "Tanh", "Softplus",
    "Softsign", "HardSigmoid", "HardSwish", "Gelu", "Mish", "Erf", "Clip", "Mod", "Abs", "Exp", "Log", "Pow", "Sin",
    "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh",
)  # fmt: skip
"""Functions of one number."""

STEPS = frozenset({"Sign", "Floor", "Ceil", "Round"})
"""Functions of one number without a derivative."""

LIMITED = frozenset({"Log", "Tan", "Asin", "Acos", "Acosh", "Atanh"})
"""Of those, the ones that have no value at some numbers."""

_WHOLE = (1, 2, 3, 4)
"""Exponents with which a power has a value everywhere."""

PRODUCTS = ("Mul", "Div", "MatMul", "Gemm")
QUADRATIC = ("Einsum", "ReduceL2", "ReduceSumSquare")


def deeplift(name: str, threshold: float, reveals: Where | None = None) -> Composite:
    """The table.

    threshold: where the input of a smooth function is no farther from its baseline than this, derivatives take over.
    reveals:   the functions of one number to which RevealCancel applies; Rescale for the others.
    """
    own = () if reveals is None else (Entry(_both(everywhere, reveals), reveal_cancel(threshold), "reveal-cancel"),)
    return Composite(name, (
        *own,
        Entry(by_its_scale, rescaled, "rescale"),
        Entry(op(*LINEAR), linear, "linear"),
        Entry(dense, linear, "linear"),
        Entry(sampled, linear, "linear"),
        Entry(power(2), midpoint, "midpoint"),
        Entry(power(0.5), root, "midpoint"),
        Entry(one_input, rescale(threshold), "rescale"),
        Entry(op(*STEPS), step, "rescale"),
        Entry(op("QuantizeLinear"), quantised, "rescale"),
        Entry(op("DynamicQuantizeLinear"), requantised, "rescale"),
        Entry(op("Sqrt"), root, "midpoint"),
        Entry(op("Reciprocal"), reciprocal, "midpoint"),
        Entry(op(*PRODUCTS), product(), "midpoint"),
        Entry(op(*QUADRATIC), midpoint, "midpoint"),
        Entry(lp_pool(2), midpoint, "midpoint"),
        Entry(lp_pool(1), magnitude_sum, "midpoint"),
        Entry(op("ReduceL1"), magnitude_sum, "midpoint"),
        Entry(op("Where"), choice(threshold), "choice"),
        Entry(op("Softmax"), softmax, "softmax"),
        Entry(op("LogSoftmax"), log_softmax, "softmax"),
        Entry(op("ReduceLogSumExp"), log_sum_exp, "softmax"),
        Entry(op("LayerNormalization", "InstanceNormalization", "GroupNormalization"), norm, "midpoint"),
        Entry(op("MeanVarianceNormalization"), mean_variance_norm, "midpoint"),
        Entry(op("LpNormalization"), lp_norm, "midpoint"),
        Entry(op("LRN"), lrn, "midpoint and rescale"),
        Entry(op("Max", "Min"), extreme, "extreme"),
        Entry(op("ReduceMax", "ReduceMin", "GlobalMaxPool"), reduced_extreme, "extreme"),
        Entry(op("MaxPool"), max_pool, "extreme"),
    ), steps=STEPS)  # fmt: skip


def one_input(s: Site) -> bool:
    """A function of one number, its other operands constant."""
    return s.op in ONE_INPUT and sum(s.varying) == 1 and s.varying[0]


def everywhere(s: Site) -> bool:
    """A function of one number that takes any: RevealCancel looks at points that the input never reaches."""
    if s.op == "Pow":
        return one_input(s) and s[1].is_constant and bool(np.all(np.isin(s[1].g.values(s[1]), _WHOLE)))
    return one_input(s) and s.op not in LIMITED


def dense(s: Site) -> bool:
    """A matrix product with weights."""
    return s.op in ("MatMul", "Gemm") and sum(s.varying) == 1


def by_its_scale(s: Site) -> bool:
    """A product of integers and the scale that a quantiser found for them at run time."""
    return (
        s.op in ("Mul", "DequantizeLinear") and sum(s.varying) == 1 and _is_scale(s[1 - s.varying.index(True)].tensor)
    )


def _is_scale(tensor: gs.Tensor) -> bool:
    """Whether a tensor is such a scale, maybe times that of weights."""
    node = tensor.inputs[0] if tensor.inputs else None
    if node is None or node.op not in ("DynamicQuantizeLinear", "Mul", "Reshape", "Unsqueeze", "Squeeze", "Identity"):
        return False
    if node.op == "DynamicQuantizeLinear":
        return bool(tensor.name == node.outputs[1].name)
    return any(_is_scale(operand) for operand in node.inputs)


def sampled(s: Site) -> bool:
    """A lookup at places that do not depend on the input."""
    return s.op == "GridSample" and not s.varying[1]


def power(exponent: float) -> Where:
    """Pow with this exponent."""

    def where(s: Site) -> bool:
        if s.op != "Pow" or not s[1].is_constant:
            return False
        return bool(np.all(s[1].g.values(s[1]) == exponent))

    return where


def lp_pool(p: int) -> Where:
    """LpPool and GlobalLpPool with this p."""
    return lambda s: s.op in ("LpPool", "GlobalLpPool") and s.attr("p", 2) == p


def _both(a: Where, b: Where) -> Where:
    return lambda s: a(s) and b(s)


def rescale_everywhere(threshold: float) -> Composite:
    return deeplift("deeplift-rescale", threshold)


def reveal_cancel_everywhere(threshold: float) -> Composite:
    return deeplift("deeplift-revealcancel", threshold, follows_layer)


def recommended(threshold: float) -> Composite:
    """RevealCancel on dense layers, Rescale on convolutions. Source: Shrikumar et al. 2017, sec. 4; its defaults."""
    return deeplift("deeplift", threshold, follows_dense_layer)
