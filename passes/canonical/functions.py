"""Local functions, inlined: a rule is for an operator, and a function is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx import FunctionProto, NodeProto, inliner

from onnxplain.errors import UnsupportedModel
from onnxplain.ir.load import Source
from onnxplain.passes.base import Pass, Report


class InlineFunctions(Pass[Source]):
    """Replace calls of the model's local functions by their bodies.

    From the outermost inwards: what a function hands on to another may be left out where it is called itself, and then
    the other's own default holds.
    """

    def run(self, source: Source) -> Report:
        proto = source.proto
        count = len(proto.functions)
        while proto.functions:
            inner = {_callee(node) for f in proto.functions for node in _nodes(f.node) if _callee(node) != _name(f)}
            # Where none is outermost they call each other in a circle, which ONNX's inliner refuses.
            outer = [f for f in proto.functions if _name(f) not in inner] or list(proto.functions)
            _prepare(source, outer)
            inlined = inliner.inline_selected_functions(proto, sorted({_name(f) for f in outer}))
            kept = [f for f in inlined.functions if _name(f) in inner]
            del inlined.functions[:]
            inlined.functions.extend(kept)
            proto.CopyFrom(inlined)
        return Report(count)

    def ensures(self, source: Source) -> None:
        assert not source.proto.functions


def _prepare(source: Source, functions: Iterable[FunctionProto]) -> None:
    """Write down what ONNX's inliner does not see to, wherever the graph calls one of the functions."""
    called = {(*_name(f), f.overload): f for f in functions}
    for node in list(_nodes(source.proto.graph.node)):
        function = called.get((*_callee(node), node.overload))
        if function is not None:
            _state_defaults(node, function)
            _agree_on_opsets(source, node, function)


def _state_defaults(call: NodeProto, function: FunctionProto) -> None:
    """Give a call the attributes that it leaves at the function's defaults: the inliner takes those for none."""
    given = {attribute.name for attribute in call.attribute}
    call.attribute.extend(default for default in function.attribute_proto if default.name not in given)


def _agree_on_opsets(source: Source, call: NodeProto, function: FunctionProto) -> None:
    """Let function and model import the same opsets: the inliner leaves the calls of others, and copies no imports.

    Raises: UnsupportedModel if one of the function's operators is not the same in both.
    """
    versions = {entry.domain: entry.version for entry in source.proto.opset_import}
    for entry in function.opset_import:
        if entry.domain not in versions:
            source.proto.opset_import.append(entry)
            continue
        have, want = entry.version, versions[entry.domain]
        changed = next((n for n in _nodes(function.node) if _changes(n, entry.domain, have, want)), None)
        if changed is not None:
            domain = f" of domain {entry.domain!r}" if entry.domain else ""
            raise UnsupportedModel(
                f"the function {function.name!r} (node {call.name!r}) is written in opset {have}{domain} and the model "
                f"in {want}, and its {changed.op_type!r} is not the same in both.\n"
                "  Export the model with one opset for all, or with its functions inlined."
            )
        entry.version = want


def _changes(node: NodeProto, domain: str, have: int, want: int) -> bool:
    """Whether an operator of the domain may do one thing in one version of it and another in the other."""
    return node.domain == domain and _since(node.op_type, domain, have) != _since(node.op_type, domain, want)


def _since(op_type: str, domain: str, version: int) -> int | None:
    """Which version gave an operator the form that it has in this one; None where it is not known there."""
    known = onnx.defs.has(op_type, version, domain)
    return onnx.defs.get_schema(op_type, version, domain).since_version if known else None


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes and those of the graphs within them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _name(function: FunctionProto) -> tuple[str, str]:
    return function.domain, function.name


def _callee(node: NodeProto) -> tuple[str, str]:
    return node.domain, node.op_type
