"""Means of what was repeated, as Grad-CAM takes them behind a global average pool."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.passes.optimise.rewriting import NodeRewrite


class MeanOfRepeats(NodeRewrite):
    """The mean over the axes along which a tensor was expanded from size one is the tensor before."""

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        expand = node.inputs[0].inputs[0] if node.op == "ReduceMean" and node.inputs[0].inputs else None
        if expand is None or expand.op != "Expand" or len(node.inputs) < 2:
            return None
        source, axes = (g.wrap(t) for t in (expand.inputs[0], node.inputs[1]))
        have, want = source.tensor.shape, expand.outputs[0].shape
        if not axes.is_constant or have is None or want is None or len(have) != len(want):
            return "its axes or sizes are not known"
        over = [int(a) % len(have) for a in g.values(axes).ravel()]
        if not over or not _only_there(have, want, over):
            return "it was expanded along others, or not from size one"
        return source if node.attrs.get("keepdims", 1) == 1 else g.squeeze(source, over)


def _only_there(have: Sequence[object], want: Sequence[object], over: Sequence[int]) -> bool:
    """Whether sizes are one along the axes, and along all others what they became."""
    pairs = enumerate(zip(have, want, strict=True))
    return all(a == 1 if axis in over else a == b and a is not None for axis, (a, b) in pairs)
