"""Half precision: the model computes in it, and what explains the model in single precision.

Relevance is divided and summed over whole pictures: 1e-6 is a subnormal number in half precision, 65504 the largest,
and a sum of thousands loses its small terms. So each tensor that a rule sees is cast first; the forward nodes stay.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Bounds, Site
from onnxplain.ir.value import Value


def widened(g: Builder, site: Site) -> Site:
    """The site with operands, outputs and twins in single precision at least; itself where they are."""
    values = [*site.operands, *site.ys]
    layer = tuple(widened(g, each) for each in site.role.layer)
    bias = None if site.role.bias is None else widened(g, site.role.bias)
    moved = any(a is not b for a, b in zip((*layer, bias), (*site.role.layer, site.role.bias), strict=True))
    if not moved and not any(value.is_half for value in values):
        return site
    return replace(
        site,
        x=tuple(None if x is None else g.wide(x) for x in site.x),
        ys=tuple(g.wide(y) for y in site.ys),
        ref=None if site.ref is None else widened(g, site.ref),
        bounds=None if site.bounds is None else _wide_bounds(g, site.bounds),
        role=replace(site.role, layer=layer, bias=bias),
    )


def narrow(value: Value, known: Container[str]) -> Value:
    """The forward tensor of which a value is the cast; the value itself where it is a forward tensor."""
    node = value.tensor.inputs[0] if value.tensor.inputs else None
    if value.name in known or node is None or node.op != "Cast":
        return value
    before = value.g.wrap(node.inputs[0])
    return before if before.is_half else value


def _wide_bounds(g: Builder, bounds: Bounds) -> Bounds:
    def wide(x: Value) -> tuple[Value, Value]:
        low, high = bounds(narrow(x, ()))
        return g.wide(low), g.wide(high)

    return wide
