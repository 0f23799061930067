"""What ONNX Runtime would run on the CPU although it has CUDA, written so that it stays on the card."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.passes.optimise.rewriting import NodeRewrite, is_emitted


class CountOnDevice(NodeRewrite):
    """How many elements some axes hold, as a real number, is the sum of so many ones.

    ONNX Runtime keeps sizes on the CPU. A size that becomes a factor would be copied to the card at every run, which
    CUDA graphs refuse; ConstantOfShape reads its operand on the CPU and writes on the card.
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        """The sum, for a Cast of a ReduceProd to a real type."""
        if node.op != "Cast" or not node.inputs[0].inputs or node.inputs[0].inputs[0].op != "ReduceProd":
            return None
        product, dtype = node.inputs[0].inputs[0], np.dtype(node.outputs[0].dtype)
        if dtype.kind != "f" or product.attrs.get("keepdims", 1) == 1:
            return None
        if not is_emitted(product):
            return "the model's own product may be of anything"
        ones = g.op("ConstantOfShape", g.wrap(product.inputs[0]), value=np.ones(1, dtype))
        return g.op("ReduceSum", ones, keepdims=0)


class WideDequantisation(NodeRewrite):
    """A bias stored in 32 bits is dequantised by a product: CUDA has no DequantizeLinear for it.

    ONNX Runtime computes it once, when it loads the model.
    """

    own_too = True

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        """(x - zero point) * scale, for a constant x of int32."""
        if node.op != "DequantizeLinear" or np.dtype(node.inputs[0].dtype) != np.int32:
            return None
        x, scale = (g.wrap(t) for t in node.inputs[:2])
        if not x.is_constant:
            return "it is no weight"
        if scale.rank and x.rank > 1:
            return "its scales lie along an axis"
        if len(node.inputs) > 2:
            x = x - g.wrap(node.inputs[2])
        return g.cast(x, scale) * scale
