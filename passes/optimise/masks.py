"""Masks for ONNX Runtime's CPU kernels."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.passes.optimise.rewriting import NodeRewrite

_STEEP = 3e38


class BlockedMasks(NodeRewrite):
    """y > 0 as numbers, for the output y of a ReLU, is a HardSigmoid so steep that it is a step.

    ONNX Runtime runs a HardSigmoid in its blocked layout, while Greater and Cast leave it. Exact for zero and for every
    normal float32 (3e38 times the smallest is 3.5); halves and doubles are left alone.
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        if node.op != "Cast" or not node.inputs[0].inputs:
            return None
        greater = node.inputs[0].inputs[0]
        if greater.op != "Greater" or not _is_zero(greater.inputs[1]):
            return None
        y = greater.inputs[0]
        if not y.inputs or y.inputs[0].op != "Relu":
            return "what it compares is not the output of a ReLU"
        if y.dtype != np.float32 or node.outputs[0].dtype != np.float32:
            return f"it is of {y.dtype}"
        return g.op("HardSigmoid", g.wrap(y), alpha=_STEEP, beta=0.0)


def _is_zero(tensor: gs.Tensor) -> bool:
    return isinstance(tensor, gs.Constant) and isinstance(tensor._values, np.ndarray) and not np.any(tensor._values)
