"""Masks on CUDA: what is kept by a condition is chosen, not multiplied."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.passes.optimise.rewriting import NodeRewrite


class KeptByChoice(NodeRewrite):
    """d times a condition as 0 or 1 is Where(condition, d, 0).

    A card takes as long for a Where as for a product, and reads one byte for a condition where a number has four: two
    kernels instead of three for each ReLU, and 14 bytes of traffic for each element instead of 22.
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        if node.op != "Mul":
            return None
        for mask, other in (node.inputs, node.inputs[::-1]):
            cast = mask.inputs[0] if mask.inputs else None
            if cast is not None and cast.op == "Cast" and cast.inputs[0].dtype == np.bool_:
                d = g.wrap(other)
                return g.where(g.wrap(cast.inputs[0]), d, 0)
        return None
