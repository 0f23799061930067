"""Names: every node gets one of its own, since metadata, plans, scopes and twins go by it."""

from __future__ import annotations

from onnxplain.ir.load import Source
from onnxplain.ir.names import unique
from onnxplain.passes.base import Pass, Report


class NameNodes(Pass[Source]):
    """Give unnamed and equally named nodes unique names; tensors keep theirs."""

    def run(self, source: Source) -> Report:
        taken: set[str] = set()
        changed = 0
        for node in source.proto.graph.node:
            base = node.name or next(filter(None, node.output), node.op_type)
            name = unique(base, taken)
            if name != node.name:
                node.name = name
                changed += 1
        return Report(changed)

    def ensures(self, source: Source) -> None:
        names = [node.name for node in source.proto.graph.node]
        assert all(names), "a node has no name"
        assert len(set(names)) == len(names), "two nodes share a name"
