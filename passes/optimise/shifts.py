"""Numbers added to what a convolution returns become part of its bias, which costs nothing."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.passes.optimise.rewriting import NodeRewrite

_WITH_BIAS = frozenset({"Conv", "ConvTranspose"})


class ShiftIntoBias(NodeRewrite):
    """A stabiliser added to a convolution that nothing else reads: the sums of positive terms in z+ and in gamma.

    Through a ReLU as well: max(z, 0) + c = max(z + c, c), which the runtime computes within the convolution.
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        if node.op != "Add":
            return None
        for tensor, other in (node.inputs, node.inputs[::-1]):
            z = _before_relu(tensor)
            if z.inputs and z.inputs[0].op in _WITH_BIAS and g.wrap(other).is_constant:
                if len(z.outputs) != 1 or len(tensor.outputs) != 1:
                    return "others read the convolution as it is"
                moved = _shifted(g, z.inputs[0], g.wrap(other))
                return moved if z is tensor or not isinstance(moved, Value) else g.op("Clip", moved, _number(g, other))
        return None


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
