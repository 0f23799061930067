"""Nodes in the order in which they can run. ONNX asks for it; ONNX Runtime does not, and its converters break it."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import GraphProto, NodeProto

from onnxplain.ir.subgraphs import bodies


def order(graph: GraphProto) -> None:
    """Move each node behind those that it depends on; the order stays as it is where it can.

    Nodes of a circle, or that read a tensor from nowhere, stay where they are for `load` to refuse.
    """
    made_by = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    reads = [{made_by[name] for name in read_by(node) if name in made_by} for node in graph.node]
    if all(before < i for i, needed in enumerate(reads) for before in needed):
        return
    placed: dict[int, None] = {}
    waiting = list(range(len(reads)))
    while waiting:
        left = []
        for i in waiting:
            if all(before in placed for before in reads[i]):
                placed[i] = None
            else:
                left.append(i)
        if len(left) == len(waiting):
            return
        waiting = left
    nodes = [NodeProto.FromString(graph.node[i].SerializeToString()) for i in placed]
    del graph.node[:]
    graph.node.extend(nodes)


def read_by(node: NodeProto) -> Iterator[str]:
    """What a node takes, and what its branches take from outside."""
    yield from node.input
    for body in bodies(node):
        for inner in body.node:
            yield from read_by(inner)
        yield from (output.name for output in body.output)
