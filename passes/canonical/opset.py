"""One opset in, so that rules need to know one form of each operator."""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx
from onnx import helper, shape_inference, version_converter

from onnxplain.errors import UnsupportedModel, enumerated
from onnxplain.ir.load import Source
from onnxplain.ir.names import names_in, unique
from onnxplain.ir.subgraphs import every_graph, every_node
from onnxplain.passes.base import Pass, Report
from onnxplain.passes.canonical import upsampling

LOW, HIGH = 20, 21
"""What is written. From 22 on, ONNX Runtime lacks CUDA kernels for MaxPool and others."""

NEWEST = 26


class ConvertOpset(Pass[Source]):
    """Bring the standard domain to opset 20, or 21 where the model is newer than 20."""

    def requires(self, source: Source) -> None:
        version = opset_of(source.proto)
        if version > NEWEST:
            raise UnsupportedModel(
                f"{source.name} uses opset {version}; up to {NEWEST} can be read.\n  Export it with an older opset."
            )

    def run(self, source: Source) -> Report:
        have = opset_of(source.proto)
        want = LOW if have <= LOW else HIGH
        if have == want:
            return Report()
        # What was inferred for the old form may contradict the new one.
        del source.proto.graph.value_info[:]
        if have > want:
            _relabel(source.proto, have, want, source.name)
            return Report(1)
        # Before version 4 every weight had to be an input too, and the converter insists.
        source.proto.ir_version = max(source.proto.ir_version, 4)
        older = have < upsampling.OLDER_THAN
        if older:
            upsampling.refuse_unclear(source.proto)
        try:
            converted = version_converter.convert_version(source.proto, want)
        except Exception as error:  # the converter's C++ side raises whatever it likes
            raise UnsupportedModel(
                f"{source.name} (opset {have}) cannot be converted to opset {want}: {_reason(error)}.\n"
                f"  Export the model with an opset between {LOW} and {HIGH}."
            ) from None
        if older:
            upsampling.settle(converted)
            _bounds_like_operands(converted)
        _keep_entries(source.proto, converted)
        source.proto.CopyFrom(converted)
        return Report(1)

    def ensures(self, source: Source) -> None:
        assert opset_of(source.proto) in (LOW, HIGH)


def _keep_entries(given: onnx.ModelProto, converted: onnx.ModelProto) -> None:
    """Put back the metadata of nodes and inputs, which the converter drops."""
    before, after = given.graph, converted.graph
    for had, have in ((before.node, after.node), (before.input, after.input)):
        entries = {each.name: each.metadata_props for each in had}
        for each in have:
            if each.name in entries and not each.metadata_props:
                each.metadata_props.extend(entries[each.name])


_BOUNDS = {"Clip": (1, 2), "Pad": (2,)}
"""Operands that were attributes, and so float32, before opset 11."""


def _bounds_like_operands(model: onnx.ModelProto) -> None:
    """Bounds of the operand's type: the converter leaves them float32, which no operator takes beside halves."""
    taken = names_in(model.graph)
    for graph in every_graph(model.graph):
        nodes = list(graph.node)
        if not any(node.op_type in _BOUNDS for node in nodes):
            continue
        del graph.node[:]
        for node in nodes:
            for i in _BOUNDS.get(node.op_type, ()) if not node.domain else ():
                if i < len(node.input) and node.input[i]:
                    name = unique(f"{node.output[0]}/{node.input[i]}", taken)
                    graph.node.append(helper.make_node("CastLike", [node.input[i], node.input[0]], [name]))
                    node.input[i] = name
            graph.node.append(node)


def _relabel(model: onnx.ModelProto, have: int, want: int, name: str) -> None:
    """Call a newer model one of opset 21.

    From 22 to 26 operators gained types and a few attributes, and changed in nothing else (a test goes through the
    schemas); ONNX's converter, which knows most of them, is not needed. Raises: UnsupportedModel naming the operator
    that is new, or uses what is new.
    """
    newer = [f"node {n.name!r} is {what}" for n in every_node(model.graph.node) if (what := _newer(n, have, want))]
    if newer:
        raise UnsupportedModel(
            f"{name} (opset {have}) cannot be converted to opset {want}: {enumerated(newer)}, which came later.\n"
            f"  Export the model with an opset between {LOW} and {HIGH}."
        )
    for node in every_node(model.graph.node):
        for attribute in _added(node, want):
            node.attribute.remove(attribute)
    _refuse_newer_types(model, have, want, name)
    for entry in model.opset_import:
        if not entry.domain:
            entry.version = want


def _newer(node: onnx.NodeProto, have: int, want: int) -> str:
    """The operator, and the attribute, that the older opset lacks; nothing where all is known to it."""
    if node.domain:
        return ""
    if not onnx.defs.has(node.op_type, want, ""):
        return repr(node.op_type)
    used = [a for a in _added(node, want) if a != _default(node.op_type, have, a.name)]
    return f"{node.op_type!r} with {used[0].name!r}" if used else ""


def _added(node: onnx.NodeProto, want: int) -> list[onnx.AttributeProto]:
    """Attributes that the operator got after that opset."""
    if node.domain:
        return []
    known = onnx.defs.get_schema(node.op_type, want, "").attributes
    return [a for a in node.attribute if a.name not in known]


def _refuse_newer_types(model: onnx.ModelProto, have: int, want: int, name: str) -> None:
    """Raise UnsupportedModel where operators take what they did not yet take in the older opset, as bfloat16."""
    types = _types(model)
    found = [
        f"node {n.name!r} is {n.op_type!r} of {kind}" for n in model.graph.node if (kind := _strange(n, want, types))
    ]
    if found:
        raise UnsupportedModel(
            f"{name} (opset {have}) cannot be converted to opset {want}: {enumerated(found)}, which was not allowed "
            "then.\n  Export the model in float32 or float16."
        )


def _strange(node: onnx.NodeProto, want: int, types: Mapping[str, str]) -> str:
    """The type of the first operand that the operator does not take in that opset."""
    if node.domain:
        return ""
    formal = onnx.defs.get_schema(node.op_type, want, "").inputs
    kinds = ((types.get(name), formal[min(i, len(formal) - 1)].types) for i, name in enumerate(node.input))
    return next((kind for kind, allowed in kinds if kind is not None and f"tensor({kind})" not in allowed), "")


def _types(model: onnx.ModelProto) -> dict[str, str]:
    """What each tensor holds, as far as inference knows."""
    try:
        graph = shape_inference.infer_shapes(model).graph
    except (shape_inference.InferenceError, RuntimeError):
        graph = model.graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    found |= {t.name: t.data_type for t in graph.initializer}
    names = {number: onnx.TensorProto.DataType.Name(number).lower() for number in set(found.values())}
    return {tensor: names[number] for tensor, number in found.items() if number}


def _default(op_type: str, version: int, attribute: str) -> onnx.AttributeProto | None:
    known = onnx.defs.get_schema(op_type, version, "").attributes.get(attribute)
    return None if known is None else known.default_value


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard domain that a model imports, 1 where it names none."""
    return next((int(entry.version) for entry in model.opset_import if not entry.domain), 1)


def _reason(error: Exception) -> str:
    """The converter's message without its source positions."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return re.sub(r"^\S+\.(?:h|cc|cpp):\d+:?\s*(?:\w+:\s*)?", "", text).rstrip(". ")
