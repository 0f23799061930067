"""What follows the input without a derivative: comparisons, whole numbers, the places of a maximum."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from onnxplain.errors import UnsupportedOp
from onnxplain.ir.site import Site
from onnxplain.passes.explain.trace import Trace

_BY_SHAPE = frozenset({"Shape", "Size", "EyeLike", "RandomNormalLike", "RandomUniformLike", "ConstantOfShape"})
"""Operators that look at the shape of what they are given, or make something random of it."""

_TAKEN_WHOLE = frozenset({"Mul", "Div", "Pow", "Clip", "PRelu", "Mod"})
"""Operators whose rule of differences looks at what becomes of the output, whichever operand moved it."""


def refuse_jumps(trace: Trace, name: str) -> None:
    """Make sure that what changes between input and baseline reaches the score only where rules of differences see it.

    Where has a rule that compares its choices. A quantiser's own scale is no jump: what it adds is rounding.
    Raises: UnsupportedOp, for the first node at which it would be lost.
    """
    origins = _origins(trace)
    for site in trace.sites:
        for operand in _unseen(site):
            if operand in origins:
                origin = origins[operand]
                raise UnsupportedOp(
                    f"{name} cannot pass {site.op!r} (node {site.name!r}): its operand {operand!r} jumps with the "
                    f"input, at {origin.op!r} (node {origin.name!r}).\n"
                    "  A jump has no rule there, and the differences from the baseline would not add up.\n"
                    "  Use integrated-gradients, whose residual says what jumps, or a method without a baseline."
                )


def _unseen(site: Site) -> Iterator[str]:
    for index, (x, varies) in enumerate(zip(site.x, site.varying, strict=True)):
        known = site.op in _TAKEN_WHOLE or (site.op == "Where" and index == 0) or (site.op == "CastLike" and index == 1)
        if x is not None and not varies and not known:
            yield x.name


def _origins(trace: Trace) -> dict[str, gs.Node]:
    """The tensors that follow the values of the input without a derivative, and the node where that begins."""
    found: dict[str, gs.Node] = {}
    for node in trace.nodes:
        if node.op in _BY_SHAPE:
            continue
        before = next((found[t.name] for t in node.inputs if t.name in found), None)
        moved = before is not None or any(t.name in trace.varying for t in node.inputs)
        given = node.outputs[:1] if node.op == "DynamicQuantizeLinear" else node.outputs
        if moved:
            found.update({t.name: before or node for t in given if t.name not in trace.varying})
    return found
