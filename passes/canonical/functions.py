"""Local functions, inlined: a rule is for an operator, and a function is none."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import FunctionProto, ModelProto, NodeProto, inliner

from onnxplain.errors import UnsupportedModel
from onnxplain.ir.load import Source
from onnxplain.ir.subgraphs import every_node
from onnxplain.passes.base import Pass, Report


class InlineFunctions(Pass[Source]):
    """Replace calls of the model's local functions by their bodies.

    From the outermost inwards: what a function hands on to another may be left out where it is called itself, and then
    the other's own default holds.
    """

    def run(self, source: Source) -> Report:
        proto = source.proto
        count = len(proto.functions)
        _keep(proto, _reached(proto))
        for function in proto.functions:
            _agree_on_opsets(proto, function)
        while proto.functions:
            inner = {_callee(node) for f in proto.functions for node in every_node(f.node) if _callee(node) != _name(f)}
            # Where none is outermost they call each other in a circle, which ONNX's inliner refuses.
            outer = [f for f in proto.functions if _name(f) not in inner] or list(proto.functions)
            _state_defaults(proto, outer)
            done = {_name(f) for f in outer}
            inlined = inliner.inline_selected_functions(proto, sorted(done))
            _keep(inlined, [f for f in inlined.functions if _name(f) not in done])
            proto.CopyFrom(inlined)
        return Report(count)

    def ensures(self, source: Source) -> None:
        assert not source.proto.functions


def _reached(model: ModelProto) -> list[FunctionProto]:
    """The functions that are called, by the graph or by others that are."""
    known: dict[tuple[str, str], list[FunctionProto]] = {}
    for function in model.functions:
        known.setdefault(_name(function), []).append(function)
    reached: list[FunctionProto] = []
    waiting: list[Iterable[NodeProto]] = [model.graph.node]
    while waiting:
        for node in every_node(waiting.pop()):
            called = known.pop(_callee(node), [])
            reached += called
            waiting += [function.node for function in called]
    return reached


def _keep(model: ModelProto, functions: Iterable[FunctionProto]) -> None:
    kept = list(functions)
    del model.functions[:]
    model.functions.extend(kept)


def _state_defaults(model: ModelProto, functions: Iterable[FunctionProto]) -> None:
    """Give calls in the graph the attributes that they leave at a function's defaults, which ONNX's inliner ignores."""
    called = {(*_name(f), f.overload): f for f in functions}
    for node in every_node(model.graph.node):
        function = called.get((*_callee(node), node.overload))
        if function is not None:
            given = {attribute.name for attribute in node.attribute}
            node.attribute.extend(default for default in function.attribute_proto if default.name not in given)


def _agree_on_opsets(model: ModelProto, function: FunctionProto) -> None:
    """Let function and model import the same opsets: the inliner refuses to mix them, and copies no imports.

    Raises: UnsupportedModel if one of the function's operators is not the same in both.
    """
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for entry in function.opset_import:
        if entry.domain not in versions:
            model.opset_import.append(entry)
            continue
        have, want = entry.version, versions[entry.domain]
        changed = next((n for n in every_node(function.node) if _changes(n, entry.domain, have, want)), None)
        if changed is not None:
            domain = f" of domain {entry.domain!r}" if entry.domain else ""
            raise UnsupportedModel(
                f"the function {function.name!r} is written in opset {have}{domain} and the model in {want}, and its "
                f"{changed.op_type!r} is not the same in both.\n"
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


def _name(function: FunctionProto) -> tuple[str, str]:
    return function.domain, function.name


def _callee(node: NodeProto) -> tuple[str, str]:
    return node.domain, node.op_type
