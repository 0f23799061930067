"""ONNX Runtime's blocked layout on CPU, and ways back into it.

The runtime runs convolutions on channels in blocks (NCHWc) and stays in that layout through what it computes within a
convolution, through ReLU, HardSigmoid, and sums and products of two tensors that both are in it. One operand outside
takes the result, and all that follows up to the next convolution, outside as well.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.model import Model
from onnxplain.ir.value import Value
from onnxplain.passes.base import Pass, Report

_BLOCK = 16
_SAME = frozenset(
    {"Relu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "MaxPool", "AveragePool", "GlobalAveragePool"}
)
_WITHIN = frozenset({"Clip", "LeakyRelu"})
"""What stays in the layout only where it is computed within a convolution, as its one reader."""

_JOINING = frozenset({"Add", "Mul", "Sum"})
_DEFAULTS = (("dilations", [1, 1]), ("strides", [1, 1]), ("pads", [0, 0, 0, 0]), ("kernel_shape", [1, 1]))


class EnterBlockedLayout(Pass[Model]):
    """Where one operand of a sum or product is in the blocked layout and the other is not, bring the other in.

    A depthwise 1x1 convolution with ones does nothing but change the layout. It costs one pass over the tensor, less
    than the reorderings of all that would follow outside. The same convolution in front of a Clip or a LeakyRelu, whose
    own one others read as it is, keeps it in the layout.
    """

    def run(self, model: Model) -> Report:
        return Report(self._visit(Builder(model), model.graph, set()))

    def _visit(self, g: Builder, graph: gs.Graph, blocked: set[str]) -> int:
        copies: Counter[str] = Counter()
        changed, nodes = 0, []
        for node in graph.nodes:
            changed += sum(self._visit(g, body, set(blocked)) for body in node.subgraphs())
            index = _to_bring_in(node, blocked)
            if index is not None:
                with g.body() as emitted, g.scope(f"{node.name.removeprefix('onnxplain/')}/blocked"):
                    x = node.inputs[index]
                    copies[x.name] += node.op in _WITHIN
                    copy = copies[x.name] if node.op in _WITHIN else 0
                    node.inputs[index] = through_convolution(g, g.wrap(x), copy=copy).tensor
                nodes += emitted
                blocked.add(node.inputs[index].name)
                changed += 1
            if _is_blocked(node, blocked):
                blocked.add(node.outputs[0].name)
            nodes.append(node)
        graph.nodes[:] = nodes
        return changed


def in_blocks(tensor: gs.Tensor) -> bool:
    """Whether a tensor can be in the layout: computed, (N, C, H, W), the channels in whole blocks, float32."""
    shape = tuple(tensor.shape) if tensor.shape is not None else ()
    computed = tensor.dtype == np.float32 and not isinstance(tensor, gs.Constant)
    return computed and len(shape) == 4 and isinstance(shape[1], int) and shape[1] % _BLOCK == 0


def through_convolution(g: Builder, x: Value, scale: float = 1.0, shift: float = 0.0, copy: int = 0) -> Value:
    """scale x + shift, by a depthwise 1x1 convolution.

    copy: equal nodes become one, here and in the runtime, and one with two readers has nothing computed within it.
          Those with different numbers differ in defaults that are written out.
    """
    channels = int(x.shape[1] or 0)
    bias = g.constant(np.full(channels, shift, np.float32)) if shift else None
    said = {name: value for bit, (name, value) in enumerate(_DEFAULTS) if copy >> bit & 1}
    return g.op("Conv", x, g.constant(np.full((channels, 1, 1, 1), scale, np.float32)), bias, group=channels, **said)


def _to_bring_in(node: gs.Node, blocked: set[str]) -> int | None:
    """Which operand of a node is to go through a convolution, so that the node runs in the layout."""
    readers = [reader for t in node.outputs for reader in t.outputs]
    if node.op in _WITHIN:
        x = node.inputs[0]
        bounded = all(isinstance(t, gs.Constant) or t.is_empty() for t in node.inputs[1:])
        wanted = any(reader.op == "Conv" or (reader.op in _JOINING and _alike(reader)) for reader in readers)
        return 0 if bounded and wanted and x.name in blocked and len(x.outputs) > 1 else None
    stays = bool(readers) and all(reader.op == "Conv" or reader.op in _JOINING | _SAME for reader in readers)
    if node.op in _JOINING and len(node.inputs) == 2 and _alike(node) and stays:
        outside = [i for i, t in enumerate(node.inputs) if t.name not in blocked]
        return outside[0] if len(outside) == 1 else None
    return None


def _is_blocked(node: gs.Node, blocked: set[str]) -> bool:
    """Whether the runtime leaves the node's output in the blocked layout."""
    if node.op == "Conv":
        return in_blocks(node.outputs[0])
    if node.op in _WITHIN:
        x = node.inputs[0]
        return x.name in blocked and len(x.outputs) == 1 and bool(x.inputs) and x.inputs[0].op == "Conv"
    if node.op in _SAME:
        return node.inputs[0].name in blocked and len(node.outputs) == 1
    return node.op in _JOINING and _alike(node) and all(t.name in blocked for t in node.inputs)


def _alike(node: gs.Node) -> bool:
    """Operands of one shape that can be in the layout."""
    shapes = [tuple(t.shape) if t.shape is not None else () for t in node.inputs]
    return len(set(shapes)) == 1 and all(in_blocks(t) for t in node.inputs)
