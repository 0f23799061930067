"""Derivatives of quantisers: rounding is passed straight through, clipping is not.

The integers between two quantisers count as depending on the input; what arrives at them is the derivative by one step.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.rules.table import vjp


@vjp("DequantizeLinear")
def dequantize_linear(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """y = (q - zero) scale."""
    return (dy * along_axis(g, s, s[1]),)


@vjp("QuantizeLinear")
def quantize_linear(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """q = clip(round(x / scale) + zero): dy / scale where nothing was clipped, as in torch.fake_quantize.

    A ReLU that was folded into the clipping is felt by this; the ends of the range themselves pass.
    Source: Bengio et al. 2013 (straight-through); Krishnamoorthi 2018, sec. 3.2.2.
    """
    low, high = range_of(g, s)
    half = 0.5 * along_axis(g, s, s[1])
    x = s[0]
    kept = (x >= low - half) & (x <= high + half)
    return (_undone(g, dy, along_axis(g, s, s[1])) * g.mask(kept, x),)


@vjp("DynamicQuantizeLinear")
def dynamic_quantize_linear(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """q = round(x / scale) + zero with the range that x has: dy / scale, and nothing is clipped.

    The scale depends on x, but what is dequantised by it is x again, whatever the scale: the two derivatives cancel.
    """
    return (dy / s.ys[1],)


def range_of(g: Builder, s: Site) -> tuple[Value, Value]:
    """The lowest and the highest value that a quantiser can tell, as operands that broadcast against x."""
    scale, zero = along_axis(g, s, s[1]), s.optional(2)
    offset = None if zero is None else g.cast(along_axis(g, s, zero), scale)
    ends = (g.constant(end, scale.dtype) for end in _limits(s))
    low, high = (scale * (end if offset is None else end - offset) for end in ends)
    return low, high


def folds_relu(s: Site) -> bool:
    """Whether a quantiser clips what is negative and nothing else from below, as a ReLU would."""
    zero = s.optional(2)
    if s.op != "QuantizeLinear" or not s[0].tensor.inputs or s.attr("block_size", 0):
        return False
    low = _limits(s)[0]
    if zero is None:
        return low == 0
    return zero.is_constant and bool(np.all(zero.g.values(zero).astype(np.int64) == low))


def along_axis(g: Builder, s: Site, v: Value) -> Value:
    """One number for all, or one for each index along the node's axis, so that it broadcasts against the operand."""
    if s.attr("block_size", 0):
        raise s.refused("that quantises block by block")
    if v.rank == 0 or v.shape == (1,):
        return g.reshape(v, [1] * s[0].rank) if s[0].rank else v
    axis = s.attr("axis", 1) % s[0].rank
    return g.reshape(v, [-1 if i == axis else 1 for i in range(s[0].rank)])


def _limits(s: Site) -> tuple[int, int]:
    info: Any
    try:
        info = ml_dtypes.iinfo(s.y.dtype)  # type: ignore[no-untyped-call]
    except ValueError:
        raise s.refused(f"to {s.y.dtype}") from None
    return int(info.min), int(info.max)


def _undone(g: Builder, dy: Value, scale: Value) -> Value:
    """dy / scale; where dy was just multiplied by the same scale, what it was before."""
    node = dy.tensor.inputs[0] if dy.tensor.inputs else None
    if node is not None and node.op == "Mul" and node.inputs[1].name == scale.name:
        return g.wrap(node.inputs[0])
    return dy / scale
