"""Loops on ONNX Runtime's CPU: weights that a body has for itself."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.emitter import PREFIX
from onnxplain.ir.model import Model
from onnxplain.ir.value import Value
from onnxplain.passes.base import Pass, Report


class OwnWeights(Pass[Model]):
    """Convolutions in the body of a loop made here read copies of the main graph's weights.

    ONNX Runtime blocks a convolution's layout where weights and bias are constants of the same graph, in single
    precision. The file holds the weights once, in the main graph; the runtime makes the copies when it loads the file.
    """

    def run(self, model: Model) -> Report:
        g = Builder(model)
        bodies = [body for node in model.graph.nodes for body in node.subgraphs() if body.name.startswith(PREFIX)]
        return Report(sum(_visit(g, body) for body in bodies))


def _visit(g: Builder, body: gs.Graph) -> int:
    changed, nodes = 0, []
    copies: dict[str, Value] = {}
    for node in body.nodes:
        changed += sum(_visit(g, inner) for inner in node.subgraphs())
        if node.op == "Conv" and not node.domain:
            for index, tensor in enumerate(node.inputs[1:], start=1):
                if not isinstance(tensor, gs.Constant) or tensor.dtype != np.float32:
                    continue
                if tensor.name not in copies:
                    with g.body() as emitted:
                        copies[tensor.name] = g.copied(g.wrap(tensor))
                    nodes += emitted
                node.inputs[index] = copies[tensor.name].tensor
                changed += 1
        nodes.append(node)
    body.nodes[:] = nodes
    return changed
