"""Derivatives of pooling."""

from __future__ import annotations

import math

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.ir.window import Window, pool_attributes
from onnxplain.rules.table import vjp
from onnxplain.rules.vjp.elementwise import signed_power
from onnxplain.rules.vjp.windows import counts, spread


@vjp("MaxPool")
def max_pool(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """To the first maximum of each window, added where windows overlap.

    The indices come from a second MaxPool, so that the one on the forward path stays as the runtime likes it.
    """
    x = s[0]
    _, winners = g.ops("MaxPool", x, outputs=2, **pool_attributes(s.node))
    zeros = g.reshape(g.full_like(x, 0), [-1])
    flat = g.op(
        "ScatterElements",
        zeros,
        g.reshape(winners, [-1]),
        g.reshape(dy, [-1]),
        axis=0,
        reduction="add" if Window.of_node(s.node).overlaps else None,
    )
    return (g.reshape(flat, g.target_shape(x)),)


@vjp("AveragePool")
def average_pool(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """Each window's share, spread by a transposed convolution with ones over every channel by itself."""
    window, pads_too = Window.of(s), bool(s.attr("count_include_pad", 0))
    whole = not s.attr("ceil_mode", 0) and (pads_too or not any(window.pads))
    divisor = math.prod(window.kernel) if whole else counts(g, s, dy, window, pads_too=pads_too)
    return (spread(g, dy / divisor, s[0], window),)


@vjp("LpPool", "GlobalLpPool")
def lp_pool(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """y = (sum |x|^p)^(1/p), and zero where y = 0.

    dx = sign(x) |x|^(p-1) * (sum over the windows that see x of dy y^(1-p)).
    """
    x, y, p = s[0], s.y, s.attr("p", 2)
    share = dy if p == 1 else dy * g.mask(y > 0, dy) / g.where(y > 0, y, 1) ** (p - 1)
    seen = share if s.op == "GlobalLpPool" else spread(g, share, x, Window.of(s))
    return (seen * signed_power(g, x, p - 1),)


@vjp("GlobalAveragePool")
def global_average_pool(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    x = s[0]
    return (g.expand_like(dy / g.count(x, list(x.spatial), dy), x),)


@vjp("GlobalMaxPool")
def global_max_pool(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """To the first maximum of each channel, as in torch."""
    x = s[0]
    planes = g.reshape(x, [0, 0, -1])
    first = g.op("ArgMax", planes, axis=2, keepdims=1)
    zeros = g.full_like(planes, 0)
    put = g.op("ScatterElements", zeros, first, g.reshape(dy, [0, 0, 1]), axis=2)
    return (g.reshape(put, g.target_shape(x)),)
