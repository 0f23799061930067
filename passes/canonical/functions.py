"""Local functions, inlined: a rule is for an operator, and a function is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import FunctionProto, NodeProto, inliner

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


def _state_defaults(call: NodeProto, function: FunctionProto) -> None:
    """Give a call the attributes that it leaves at the function's defaults: the inliner takes those for none."""
    given = {attribute.name for attribute in call.attribute}
    call.attribute.extend(default for default in function.attribute_proto if default.name not in given)


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
