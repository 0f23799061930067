"""The standard operators' domain has two names, of which one is enough for all that follows."""

from __future__ import annotations

from collections.abc import Iterable, MutableSequence

from onnx import ModelProto, NodeProto, OperatorSetIdProto
from onnx.helper import make_opsetid

from onnxplain.ir.subgraphs import every_node

ALIAS = "ai.onnx"
"""The long name of the domain ''."""


def plain_domains(model: ModelProto) -> None:
    """Write '' for 'ai.onnx' in imports, nodes, functions, and in the graphs inside nodes."""
    _import(model.opset_import)
    _name(model.graph.node)
    for function in model.functions:
        _import(function.opset_import)
        _name(function.node)
        if function.domain == ALIAS:
            function.domain = ""


def _import(entries: MutableSequence[OperatorSetIdProto]) -> None:
    """Of two versions for the one domain the later counts, as in ONNX Runtime."""
    if not any(entry.domain == ALIAS for entry in entries):
        return
    versions = {"" if entry.domain == ALIAS else entry.domain: entry.version for entry in entries}
    del entries[:]
    entries.extend(make_opsetid(domain, version) for domain, version in versions.items())


def _name(nodes: Iterable[NodeProto]) -> None:
    for node in every_node(nodes):
        if node.domain == ALIAS:
            node.domain = ""
