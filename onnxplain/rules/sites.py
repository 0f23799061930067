"""Sites from nodes: a node of the graph joined with its entry in the derivative table."""

from __future__ import annotations

from collections.abc import Container

import onnx_graphsurgeon as gs

from onnxplain.errors import UnsupportedOp
from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.rules.table import VJP


def site_of(g: Builder, node: gs.Node, varying: Container[str]) -> Site:
    """The site of a node, its operands marked that depend on the explained input."""
    entry = VJP.get(node.op) if not node.domain else None
    operands = tuple(None if t.is_empty() else g.wrap(t) for t in node.inputs)
    return Site(
        node,
        operands,
        tuple(g.wrap(t) for t in node.outputs if not t.is_empty()),
        entry.operands(len(operands)) if entry else (0,),
        entry.rule if entry else _no_rule,
        differentiable=entry is not None,
        varying=tuple(x is not None and x.name in varying for x in operands),
    )


def _no_rule(g: Builder, s: Site, dy: Value) -> tuple[Value | None, ...]:
    raise UnsupportedOp(f"there is no derivative for {s.op!r} (node {s.name!r}, opset {g.opset}).")
