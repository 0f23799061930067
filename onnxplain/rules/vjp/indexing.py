"""Derivatives of lookups: what arrives is added where it was read."""

from __future__ import annotations

import numpy as np

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.rules.table import vjp


@vjp("Gather")
def gather(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """Rows are added back along the axis, which is moved to the front for the scatter and back again."""
    x, indices = s[0], s[1]
    axis = s.attr("axis", 0) % x.rank
    if indices.is_constant and indices.rank == 0 and isinstance(x.shape[axis], int):
        size = int(x.shape[axis] or 0)
        row = int(s.numbers(g, 1)) % size
        return (g.pad(g.unsqueeze(dy, [axis]), [row], [size - 1 - row], [axis]),)
    moved = [*range(axis, axis + indices.rank), *range(axis), *range(axis + indices.rank, dy.rank)]
    rows = g.transpose(dy, moved)
    to_front = [axis, *range(axis), *range(axis + 1, x.rank)]
    zeros = g.transpose(g.cast(g.full_like(x, 0), dy), to_front)
    scattered = g.op("ScatterND", zeros, g.unsqueeze(g.cast(indices, np.int64), [indices.rank]), rows, reduction="add")
    return (g.transpose(scattered, [*range(1, axis + 1), 0, *range(axis + 1, x.rank)]),)


@vjp("GatherElements")
def gather_elements(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    zeros = g.cast(g.full_like(s[0], 0), dy)
    return (g.op("ScatterElements", zeros, s[1], dy, axis=s.attr("axis", 0), reduction="add"),)


@vjp("GatherND")
def gather_nd(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    zeros, indices = g.cast(g.full_like(s[0], 0), dy), _with_batch(g, s[1], s.attr("batch_dims", 0))
    return (g.op("ScatterND", zeros, indices, dy, reduction="add"),)


def _with_batch(g: Builder, indices: Value, count: int) -> Value:
    """Indices that say which sample they are for, over the first `count` axes, as ScatterND needs them."""
    one, positions = g.constant(np.int64(1)), []
    for axis in range(count):
        every = g.op("Range", g.constant(np.int64(0)), g.squeeze(g.sizes(indices, [axis]), [0]), one)
        column = g.unsqueeze(every, [a for a in range(indices.rank) if a != axis])
        sizes = g.concat([g.shape(indices, 0, indices.rank - 1), g.ints([1])], axis=0)
        positions.append(g.op("Expand", column, sizes))
    return g.concat([*positions, indices], axis=indices.rank - 1)


@vjp("ScatterElements", "ScatterND", wrt=(0, 2))
def scatter(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """What was written over gets nothing back; what was written, or added, gets what arrives where it went."""
    reduction, axis = s.attr("reduction", "none"), s.attr("axis")
    if reduction not in ("none", "add"):
        raise s.refused(f"with reduction={reduction}")
    back = "GatherElements" if s.op == "ScatterElements" else "GatherND"
    updates = g.op(back, dy, s[1], axis=axis)
    return dy if reduction == "add" else g.op(s.op, dy, s[1], g.full_like(updates, 0), axis=axis), updates


@vjp("TopK")
def top_k(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    zeros = g.cast(g.full_like(s[0], 0), dy)
    return (g.op("ScatterElements", zeros, s.ys[1], dy, axis=s.attr("axis", -1)),)
