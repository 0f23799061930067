"""Names in a graph, and such as nothing in it bears yet: what has a name of another's takes its place when written."""

from __future__ import annotations

import onnx_graphsurgeon as gs
from onnx import GraphProto

from onnxplain.ir.subgraphs import every_graph


def unique(name: str, taken: set[str]) -> str:
    """The name, or the first of `name_1`, `name_2`, ... that is not taken. It is then."""
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def tensor_names(graph: gs.Graph) -> set[str]:
    """Every name of a tensor in the graph, and in branches and bodies, which ONNX does not let bear it once more."""
    names = {t.name for t in (*graph.inputs, *graph.outputs)}
    for node in graph.nodes:
        names.update(t.name for t in (*node.inputs, *node.outputs))
        for body in node.subgraphs():
            names |= tensor_names(body)
    return names


def node_names(graph: gs.Graph) -> set[str]:
    """Every name of a node in the graph, and in branches and bodies."""
    names = {node.name for node in graph.nodes}
    return names.union(*(node_names(body) for node in graph.nodes for body in node.subgraphs()))


def names_in(graph: GraphProto) -> set[str]:
    """Every name of a tensor or a node in the graph, and in branches and bodies."""
    names: set[str] = set()
    for each in every_graph(graph):
        names.update(t.name for t in (*each.input, *each.output, *each.initializer))
        for node in each.node:
            names.update((node.name, *node.input, *node.output))
    return names
