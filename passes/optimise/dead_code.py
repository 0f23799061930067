"""Dead code: what no output needs is dropped."""

from __future__ import annotations

from onnxplain.ir.model import Model
from onnxplain.passes.base import Pass, Report


class DropDeadCode(Pass[Model]):
    """Remove nodes on which no output depends; nodes stay in their order."""

    def run(self, model: Model) -> Report:
        needed = {t.name for t in model.graph.outputs}
        kept = []
        for node in reversed(model.graph.nodes):
            if any(t.name in needed for t in node.outputs):
                needed.update(t.name for t in node.inputs)
                needed.update(t.name for graph in node.subgraphs(recursive=True) for t in graph.tensors().values())
                kept.append(node)
        dropped = len(model.graph.nodes) - len(kept)
        model.graph.nodes[:] = kept[::-1]
        return Report(dropped)
