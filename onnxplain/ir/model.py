"""A model as the passes see it: an onnx-graphsurgeon graph, its weights, and what graphsurgeon would lose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

from onnxplain.ir.load import Source
from onnxplain.ir.names import node_names, tensor_names, unique
from onnxplain.ir.weights import WeightStore

# graphsurgeon logs to the terminal, and a compiler's only words are its own.
G_LOGGER.severity = G_LOGGER.CRITICAL


@dataclass
class Notes:
    """Metadata and doc strings, which graphsurgeon drops; put back by name when the model is written."""

    model: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    inputs: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    doc_string: str = ""
    producer: tuple[str, str] = ("", "")

    @staticmethod
    def of(proto: onnx.ModelProto) -> Notes:
        """The notes of a proto whose nodes have unique names."""
        return Notes(
            model=_entries(proto.metadata_props),
            nodes=_noted(proto.graph.node),
            inputs=_noted(proto.graph.input),
            doc_string=proto.doc_string,
            producer=(proto.producer_name, proto.producer_version),
        )

    def put_back(self, proto: onnx.ModelProto) -> None:
        """Write the notes into `proto`."""
        proto.doc_string = self.doc_string
        proto.producer_name, proto.producer_version = self.producer
        for key, value in self.model.items():
            proto.metadata_props.add(key=key, value=value)
        for each, noted in (
            *((n, self.nodes) for n in proto.graph.node),
            *((i, self.inputs) for i in proto.graph.input),
        ):
            doc_string, entries = noted.get(each.name, ("", {}))
            each.doc_string = doc_string
            for key, value in entries.items():
                each.metadata_props.add(key=key, value=value)


@dataclass
class Model:
    """The forward graph, and later the explained one.

    Invariants after the canonical passes: nodes are in topological order and have unique names; every tensor on the
    way from an input to an output has a dtype and a rank. `outputs` are the model's own, as it declared them. `left`
    says of nodes that a pass would have spelled out, by name, why it could not; `remarks` are for whoever asked.
    `taken` are all names of tensors and nodes.
    """

    graph: gs.Graph
    weights: WeightStore
    notes: Notes
    sha256: str
    name: str
    external: bool
    outputs: tuple[onnx.ValueInfoProto, ...]
    taken: set[str]
    left: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def fresh(self, name: str) -> str:
        """A name for what is added: this one, or one like it where a tensor or a node bears it, or did."""
        return unique(name, self.taken)

    @staticmethod
    def of(source: Source) -> Model:
        """Import a source whose proto has been through the proto-level passes."""
        graph = gs.import_onnx(source.proto)
        for node in graph.nodes:
            while node.outputs and node.outputs[-1].is_empty():
                node.outputs.pop()  # left out, which is also said by saying nothing
        return Model(
            graph=graph,
            weights=source.weights,
            notes=Notes.of(source.proto),
            sha256=source.sha256,
            name=source.name,
            external=source.external,
            outputs=source.outputs,
            taken=tensor_names(graph) | node_names(graph),
        )

    def place_of(self, node: gs.Node) -> int:
        """Where in the list of nodes this one is. (`index` would find the first that is equal.)"""
        return next(i for i, each in enumerate(self.graph.nodes) if each is node)


def _noted(described: Iterable[onnx.NodeProto | onnx.ValueInfoProto]) -> dict[str, tuple[str, dict[str, str]]]:
    """Doc string and metadata by name, of what has any."""
    return {
        each.name: (each.doc_string, _entries(each.metadata_props))
        for each in described
        if each.doc_string or each.metadata_props
    }


def _entries(props: object) -> dict[str, str]:
    return {entry.key: entry.value for entry in props}  # type: ignore[attr-defined]
