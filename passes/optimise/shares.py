"""A tensor divided by itself: what LRP's epsilon rules leave where a layer's relevance is its output times a factor.

Relevance that arrives at y is R = y d, since every layer behind gives its operand a share in proportion to it. The rule
then divides by y again. Written as d (y / (y + eps)), the sign of y falls out, and for eps = 0 only a mask is left.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.passes.optimise.rewriting import NodeRewrite


class ShareOfItself(NodeRewrite):
    """y d / (y + eps sign y) = d |y| / (|y| + eps); for eps = 0, d where y is not zero."""

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        if node.op != "Div":
            return None
        relevance, denominator = node.inputs
        y, eps = _stabilised(g, denominator)
        if y is None:
            return None
        factor = _factor(g, relevance, y)
        if factor is None:
            return "what it divides is not known to be a multiple of the divisor"
        if eps == 0:
            return factor * g.mask(y > 0 if _rectified(y) else abs(y) > 0, y)
        if _rectified(y) and relevance.inputs[0].op == "Mul":
            return "a product and a quotient cost as much either way"
        size = y if _rectified(y) else abs(y)
        return factor * (size / (size + eps))


def _rectified(y: Value) -> bool:
    return bool(y.tensor.inputs) and y.tensor.inputs[0].op == "Relu"


def _stabilised(g: Builder, tensor: gs.Tensor) -> tuple[Value | None, float]:
    """The y and eps of a denominator y + eps sign y; None where it is none."""
    if not tensor.inputs or tensor.inputs[0].op != "Add":
        return None, 0.0
    y, moved = (g.wrap(t) for t in tensor.inputs[0].inputs)
    if moved.is_constant:
        return (y, float(g.values(moved).reshape(()))) if set(moved.shape) <= {1} and _rectified(y) else (None, 0.0)
    maker = moved.tensor.inputs[0] if moved.tensor.inputs else None
    if maker is not None and maker.op == "Cast" and _compares(g, maker.inputs[0], "Equal", y):
        return y, 0.0
    if maker is not None and maker.op == "Where" and _compares(g, maker.inputs[0], "Less", y):
        below, above = (g.wrap(t) for t in maker.inputs[1:])
        if below.is_constant and above.is_constant and set(below.shape) | set(above.shape) <= {1}:
            low, high = float(g.values(below).reshape(())), float(g.values(above).reshape(()))
            return (y, high) if low == -high and high > 0 else (None, 0.0)
    return None, 0.0


def _compares(g: Builder, condition: gs.Tensor, op: str, y: Value) -> bool:
    """Whether a condition is `y op 0`."""
    if not condition.inputs or condition.inputs[0].op != op:
        return False
    left, right = (g.wrap(t) for t in condition.inputs[0].inputs)
    return left.name == y.name and right.is_constant and set(right.shape) <= {1} and not g.values(right).any()


def _factor(g: Builder, tensor: gs.Tensor, y: Value) -> Value | None:
    """The d of y d; of a sum of such, the sum of their factors."""
    if not tensor.inputs:
        return None
    node = tensor.inputs[0]
    if node.op == "Mul":
        names = [t.name for t in node.inputs]
        return g.wrap(node.inputs[1 - names.index(y.name)]) if y.name in names else None
    if node.op == "Add":
        parts = [_factor(g, t, y) for t in node.inputs]
        return None if parts[0] is None or parts[1] is None else parts[0] + parts[1]
    return None
