"""Dead code: what no output needs is dropped."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxplain.ir.model import Model
from onnxplain.passes.base import Pass, Report


class DropDeadCode(Pass[Model]):
    """Remove nodes on which no output depends; nodes stay in their order."""

    def run(self, model: Model) -> Report:
        return Report(_sweep(model.graph)[0])


def _sweep(graph: gs.Graph) -> tuple[int, set[str]]:
    """Drop what the graph's outputs do not need. Returns: how many nodes went, and every name that is read."""
    needed = {t.name for t in graph.outputs}
    kept, dropped = [], 0
    for node in reversed(graph.nodes):
        if not any(t.name in needed for t in node.outputs):
            dropped += 1
            continue
        needed.update(t.name for t in node.inputs)
        for body in node.subgraphs():
            inside, read = _sweep(body)
            dropped += inside
            needed |= read
        kept.append(node)
    graph.nodes[:] = kept[::-1]
    return dropped, needed
