"""Replacing single nodes by others, in place and in order, loop bodies included."""

from __future__ import annotations

from abc import abstractmethod

import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.emitter import PREFIX
from onnxplain.ir.model import Model
from onnxplain.ir.value import Value
from onnxplain.passes.base import Pass, Refusal, Report
from onnxplain.passes.explain.twin import LABELS

_EMITTED = f"{PREFIX}/"
_COPIES = tuple(f"{PREFIX}/{label}/" for label in LABELS)


class NodeRewrite(Pass[Model]):
    """Visits every node that the compiler emitted and lets `rewrite` put something else in its place.

    A pattern is sound for what the compiler emits. A model's own nodes may look alike and mean another thing, and are
    promised to stay as they are; so are their copies in a twin.
    """

    own_too = False
    """Whether the model's own nodes are visited as well."""

    @abstractmethod
    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        """What the node's output becomes; None where the node is none of this pass's, or why it declines."""

    def run(self, model: Model) -> Report:
        g = Builder(model)
        g.forget()
        refusals: list[Refusal] = []
        changed = self._visit(g, model.graph, refusals)
        return Report(changed, tuple(refusals))

    def _visit(self, g: Builder, graph: gs.Graph, refusals: list[Refusal]) -> int:
        changed, nodes = 0, []
        for node in graph.nodes:
            for body in node.subgraphs():
                with g.body():  # what is emitted inside does not exist outside
                    changed += self._visit(g, body, refusals)
            result = None
            if self.own_too or is_emitted(node):
                with g.body() as replacement, g.scope(node.name.removeprefix(_EMITTED)):
                    result = self.rewrite(g, node)
            if isinstance(result, Value):
                standing = _put(node, result, replacement)
                changed += 1
            else:
                standing = [node]
                if result is not None:
                    refusals.append(Refusal(node.name, result))
            for each in standing:
                g.remember(each)
            nodes += standing
        graph.nodes[:] = nodes
        return changed


def is_emitted(node: gs.Node) -> bool:
    """Whether the compiler made a node, and not as a copy of one of the model's own."""
    return bool(node.name.startswith(_EMITTED) and not node.name.startswith(_COPIES))


def _put(node: gs.Node, result: Value, replacement: list[gs.Node]) -> list[gs.Node]:
    """The nodes that stand for `node`, of which one gives its output under its name.

    A result that no new node gives (it was folded, or is there already) is handed on by an Identity.
    """
    made = result.tensor.inputs[0] if result.tensor.inputs else None
    if not any(made is each for each in replacement):
        node.op, node.domain = "Identity", None
        node.attrs.clear()
        node.inputs.clear()
        node.inputs.append(result.tensor)
        return [*replacement, node]
    output = node.outputs[0]
    node.outputs.clear()
    node.inputs.clear()
    result.tensor.inputs[0].outputs[0] = output
    return replacement
