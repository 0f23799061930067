"""The graphs inside nodes: branches of If, bodies of Loop and Scan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import GraphProto, NodeProto


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs in a node's own attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def every_node(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Each node, followed by those in its bodies, however deep."""
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from every_node(body.node)


def every_graph(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph, then those in its nodes, however deep. The one that was given last may be rewritten meanwhile."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from every_graph(body)
