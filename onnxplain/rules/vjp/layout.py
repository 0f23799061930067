"""Derivatives of operators that only move elements: each is undone."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.rules.table import ALL, vjp


@vjp("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (g.reshape_like(dy, s[0]),)


@vjp("Transpose")
def transpose(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    perm = s.attr("perm", list(range(s[0].rank))[::-1])
    return (g.transpose(dy, [int(a) for a in np.argsort(perm)]),)


@vjp("Expand")
def expand(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy,)


@vjp("Concat", wrt=ALL)
def concat(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    axis = s.attr("axis") % dy.rank
    sizes = g.concat([g.sizes(x, [axis]) for x in s.operands], axis=0)
    if len(s.x) == 1:
        return (dy,)
    return g.ops("Split", dy, sizes, outputs=len(s.x), axis=axis)


@vjp("Split")
def split(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """The parts side by side; zeros for those through which nothing came back."""
    parts = [g.full_like(y, 0) if d is None else d for d, y in zip(s.arrived, s.ys, strict=True)]
    return (g.concat(parts, axis=s.attr("axis", 0)),)


@vjp("Slice")
def slice_(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """Zeros around what was cut out.

    Bounds and forward steps known at compile time become a Pad; others scatter into zeros by position.
    """
    x = s[0]
    starts, ends, axes, steps = (s.optional(i) for i in range(1, 5))
    known = [v is None or v.is_constant for v in (starts, ends, axes, steps)]
    if all(known) and starts is not None and ends is not None:
        first, last = (list(map(int, g.values(v))) for v in (starts, ends))
        along = [int(a) % x.rank for a in g.values(axes)] if axes is not None else list(range(len(first)))
        stride = [int(k) for k in g.values(steps)] if steps is not None else [1] * len(first)
        sizes = [int(n) for a in along if isinstance(n := x.shape[a], int)]
        if all(k > 0 for k in stride) and len(sizes) == len(along):
            spans = [range(n)[b:e:k] for b, e, k, n in zip(first, last, stride, sizes, strict=True)]
            for axis, span in zip(along, spans, strict=True):
                dy = _apart(g, dy, axis, len(span), span.step)
            before = [span.start for span in spans]
            after = [n - span.start - len(span) * span.step for n, span in zip(sizes, spans, strict=True)]
            return (g.pad(dy, before, after, along),)
    return (put_back(g, s, dy),)


def _apart(g: Builder, x: Value, axis: int, size: int, step: int) -> Value:
    """Zeros behind each element along an axis, so that the elements are `step` apart."""
    if step == 1:
        return x
    wide = g.pad(g.unsqueeze(x, [axis + 1]), [0], [step - 1], [axis + 1])
    others = (g.sizes(x, range(axis)), g.ints([size * step]), g.sizes(x, range(axis + 1, x.rank)))
    return g.reshape(wide, g.concat([v for v in others if v.shape != (0,)], axis=0))


def put_back(g: Builder, s: Site, dy: Value, dtype: type[np.integer[Any]] = np.int64) -> Value:
    """dy at the positions the node took from its operand, zeros elsewhere: the node is rerun on the positions.

    dtype: of the positions, where runtimes have the operator for some whole numbers only.
    """
    x = s[0]
    total = g.reduce("ReduceProd", g.shape(x), [0])
    positions = g.op("Range", g.constant(np.int64(0)), g.squeeze(total, [0]), g.constant(np.int64(1)))
    taken = s.with_operands(g.cast(g.reshape(positions, g.shape(x)), dtype), *s.x[1:]).rerun(g)
    taken = g.reshape(g.cast(taken, np.int64), [-1])
    zeros = g.op("ConstantOfShape", total, value=np.zeros(1, dy.dtype))
    flat = g.op("ScatterElements", zeros, taken, g.reshape(dy, [-1]), axis=0, reduction="add")
    return g.reshape(flat, g.target_shape(x))


@vjp("DepthToSpace")
def depth_to_space(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """SpaceToDepth undoes the order DCR; for CRD the channels of each block are brought together afterwards."""
    block = s.attr("blocksize")
    d = g.op("SpaceToDepth", dy, blocksize=block)
    if s.attr("mode", "DCR") == "DCR":
        return (d,)
    blocks = g.reshape(d, g.concat([g.ints([0, block * block, -1]), g.sizes(d, [2, 3])], axis=0))
    return (g.reshape_like(g.transpose(blocks, [0, 2, 1, 3, 4]), s[0]),)


@vjp("SpaceToDepth")
def space_to_depth(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (g.op("DepthToSpace", dy, blocksize=s.attr("blocksize"), mode="DCR"),)


@vjp("Tile")
def tile(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (put_back(g, s, dy),)


@vjp("Pad")
def pad(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """Cut off what was padded; in the modes that repeat the operand, add it where it came from."""
    if s.attr("mode", "constant") != "constant":
        return (put_back(g, s.with_operands(*s.x[:2], None, s.optional(3)), dy),)
    pads, axes = s[1], s.optional(3)
    along = list(range(s[0].rank)) if axes is None else [int(a) % s[0].rank for a in s.numbers(g, 3)]
    if pads.is_constant:
        before = [int(v) for v in g.values(pads)][: len(along)]
        after = [int(v) for v in g.values(pads)][len(along) :]
        return (g.pad(dy, [-b for b in before], [-a for a in after], along),)
    half = [len(along)]
    before_v = g.slice(pads, [0], half, [0])
    after_v = g.slice(pads, half, [2 * len(along)], [0])
    return (g.pad(dy, -before_v, -after_v, along),)


@vjp("Trilu")
def trilu(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (g.op("Trilu", dy, s.optional(1), upper=s.attr("upper", 1)),)
