"""Branches whose condition is known: the one that is taken takes the place of the If."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxplain.ir.model import Model
from onnxplain.passes.base import Pass, Report
from onnxplain.passes.canonical.constants import FoldConstants, LiftConstants
from onnxplain.passes.canonical.refine import RefineShapes


class InlineBranches(Pass[Model]):
    """An If on a constant becomes the branch that is taken.

    Exporters emit one where a Squeeze depends on a size. Conditions that follow from sizes are folded first; what a
    branch makes known may decide another, so it goes on until nothing changes.
    Postcondition: what If is left decides at run time.
    """

    def run(self, model: Model) -> Report:
        changed = 0
        while any(_decided(node) for node in model.graph.nodes):
            nodes: list[gs.Node] = []
            for node in model.graph.nodes:
                if _decided(node):
                    nodes += _taken(model, node)
                    changed += 1
                else:
                    nodes.append(node)
            model.graph.nodes[:] = nodes
            for each in (LiftConstants(), FoldConstants(), RefineShapes(), FoldConstants()):
                each.run(model)
        return Report(changed)

    def ensures(self, model: Model) -> None:
        assert not any(_decided(node) for node in model.graph.nodes)


def _decided(node: gs.Node) -> bool:
    return node.op == "If" and not node.domain and isinstance(node.inputs[0], gs.Constant)


def _taken(model: Model, node: gs.Node) -> list[gs.Node]:
    """The nodes of the branch that the condition chooses, under names of their own, giving what the If gave."""
    condition = bool(model.weights.array(node.inputs[0]).ravel()[0])
    branch = node.attrs["then_branch" if condition else "else_branch"]
    _rename(model, branch, node.name)
    nodes = list(branch.nodes)
    made = [t for inner in nodes for t in inner.outputs]
    for inner, outer in zip(list(branch.outputs), list(node.outputs), strict=True):
        given = gs.Node("Identity", model.fresh(f"{node.name}/{outer.name}"), {}, [inner], [])
        outer.inputs.clear()
        given.outputs.append(outer)
        # The sizes that a branch declares are not to be trusted; they are inferred next.
        for tensor in (inner, outer) if inner in made else (outer,):
            tensor.shape = None
        nodes.append(given)
    node.inputs.clear()
    return nodes


def _rename(model: Model, branch: gs.Graph, prefix: str) -> None:
    renamed: set[int] = set()
    for index, inner in enumerate(branch.nodes):
        inner.name = model.fresh(f"{prefix}/{index}/{inner.name or inner.op}")
        for tensor in (*inner.outputs, *(t for t in inner.inputs if isinstance(t, gs.Constant))):
            if not tensor.is_empty() and id(tensor) not in renamed:
                tensor.name = model.fresh(f"{prefix}/{tensor.name}")
                renamed.add(id(tensor))
