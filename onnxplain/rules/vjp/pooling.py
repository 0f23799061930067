"""Derivatives of pooling."""

from __future__ import annotations

import math

import numpy as np

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.rules.table import vjp
from onnxplain.rules.vjp.linear import transposed


@vjp("MaxPool")
def max_pool(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """To the first maximum of each window, added where windows overlap.

    The indices come from a second MaxPool, so that the one on the forward path stays as the runtime likes it.
    """
    x = s[0]
    _, winners = g.ops("MaxPool", x, outputs=2, **{k: v for k, v in s.node.attrs.items() if k != "storage_order"})
    zeros = g.reshape(g.full_like(x, 0), [-1])
    flat = g.op(
        "ScatterElements",
        zeros,
        g.reshape(winners, [-1]),
        g.reshape(dy, [-1]),
        axis=0,
        reduction="add" if _overlaps(s) else None,
    )
    return (g.reshape(flat, g.target_shape(x)),)


def _overlaps(s: Site) -> bool:
    kernel = s.attr("kernel_shape")
    return any(k > stride for k, stride in zip(_extents(s), s.attr("strides", [1] * len(kernel)), strict=True))


def _extents(s: Site) -> list[int]:
    """How far each window reaches, holes of dilation included."""
    kernel = s.attr("kernel_shape")
    return [(k - 1) * d + 1 for k, d in zip(kernel, s.attr("dilations", [1] * len(kernel)), strict=True)]


@vjp("AveragePool")
def average_pool(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """Each window's share, spread by a transposed convolution with ones over every channel by itself."""
    x = s[0]
    kernel = list(s.attr("kernel_shape"))
    n = len(kernel)
    strides, dilations = s.attr("strides", [1] * n), s.attr("dilations", [1] * n)
    pads = s.attr("pads", [0] * 2 * n)
    share = dy * (1 / math.prod(kernel)) if _whole_windows(s) else dy / _window_sizes(g, s, dy)
    ones = g.constant(np.ones([1, 1, *kernel], dy.dtype))
    spread = transposed(
        g, _planes(g, share), ones, _planes(g, x), strides=strides, dilations=dilations, pads=pads, group=1
    )
    return (g.reshape(spread, g.target_shape(x)),)


def _planes(g: Builder, x: Value) -> Value:
    """(N, C, *S) as (N C, 1, *S)."""
    return g.reshape(x, g.concat([g.ints([-1, 1]), g.sizes(x, list(x.spatial))], axis=0))


def _whole_windows(s: Site) -> bool:
    """Whether every window divides by the whole kernel: nothing is padded, or padding counts."""
    padded = any(s.attr("pads", [0]))
    return not s.attr("ceil_mode", 0) and (not padded or bool(s.attr("count_include_pad", 0)))


def _window_sizes(g: Builder, s: Site, dy: Value) -> Value:
    """How many elements each window averages, as (1, 1, *T)."""
    x = s[0]
    ones = g.expand_like(g.constant(np.ones([1] * x.rank, dy.dtype)), x)
    ones = g.slice(ones, [0, 0], [1, 1], [0, 1])
    attrs = {k: v for k, v in s.node.attrs.items() if k != "count_include_pad"}
    inside = g.op("AveragePool", ones, **{**attrs, "count_include_pad": 1})
    return inside * float(math.prod(s.attr("kernel_shape")))


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
