"""Numbers added to what a convolution returns become part of its bias, which costs nothing."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.passes.optimise.blocked import in_blocks, through_convolution
from onnxplain.passes.optimise.rewriting import NodeRewrite

_WITH_BIAS = frozenset({"Conv", "ConvTranspose"})


class ShiftIntoBias(NodeRewrite):
    """A stabiliser added to a convolution that nothing else reads: the sums of positive terms in z+ and in gamma.

    Through a ReLU as well: max(z, 0) + c = max(z + c, c), which the runtime computes within the convolution; and
    through a sum: (s + z) + c = s + (z + c).
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        if node.op != "Add":
            return None
        for tensor, other in (node.inputs, node.inputs[::-1]):
            if not g.wrap(other).is_constant:
                continue
            rest, term = _summands(tensor)
            z = _before_relu(term)
            if z.inputs and z.inputs[0].op in _WITH_BIAS:
                if any(len(t.outputs) != 1 for t in (z, term, tensor)):
                    return "others read the convolution as it is"
                moved = _shifted(g, z.inputs[0], g.wrap(other))
                if not isinstance(moved, Value):
                    return moved
                moved = moved if z is term else g.op("Clip", moved, _number(g, other))
                return moved if rest is None else g.wrap(rest) + moved
        return None


class ShiftInBlocks(NodeRewrite):
    """A stabiliser added to the ReLU of a convolution that others read as it is, by a depthwise one of its own.

    max(z, 0) + c = max(z + c, c), computed within that convolution in ONNX Runtime's blocked layout on CPU: one
    operator instead of two.
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        if node.op != "Add" or not node.inputs[0].inputs or node.inputs[0].inputs[0].op != "Relu":
            return None
        rectified, number = node.inputs
        z, c = rectified.inputs[0].inputs[0], g.wrap(number)
        if not z.inputs or z.inputs[0].op != "Conv" or len(rectified.outputs) != 1 or not in_blocks(z):
            return "it is no convolution in blocks, or others read its ReLU"
        if not c.is_constant or set(c.shape) - {1} or c.rank > 4:
            return "what it adds is not one number"
        shift = _number(g, number)
        return g.op("Clip", through_convolution(g, g.wrap(z), shift=float(g.values(shift))), shift)


def _summands(tensor: gs.Tensor) -> tuple[gs.Tensor | None, gs.Tensor]:
    """What is added to a convolution, None if nothing is, and that convolution, a ReLU behind it included."""
    maker = tensor.inputs[0] if tensor.inputs else None
    if maker is not None and maker.op == "Add":
        for rest, term in (maker.inputs, maker.inputs[::-1]):
            z = _before_relu(term)
            if z.inputs and z.inputs[0].op in _WITH_BIAS and len(z.outputs) == len(term.outputs) == 1:
                return rest, term
    return None, tensor


def _before_relu(tensor: gs.Tensor) -> gs.Tensor:
    maker = tensor.inputs[0] if tensor.inputs else None
    return maker.inputs[0] if maker is not None and maker.op == "Relu" else tensor


def _number(g: Builder, tensor: gs.Tensor) -> Value:
    value = g.wrap(tensor)
    return g.constant(g.values(value).reshape(()), value.dtype)


def _shifted(g: Builder, layer: gs.Node, shift: Value) -> Value | str:
    """The layer with a number added to its bias."""
    shape = list(layer.outputs[0].shape or ())
    if set(shift.shape) - {1} or shift.rank > len(shape):
        return "what it adds is not one number"
    if len(shape) < 2 or not isinstance(shape[1], int):
        return "the number of channels is not known"
    number = g.values(shift).reshape(())
    x, w, *rest = (g.wrap(t) for t in layer.inputs)
    bias = rest[0] + number.item() if rest else g.constant(np.full(shape[1], number))
    return g.copy(layer, [x, w, bias])[0]
