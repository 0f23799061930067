"""Derivatives of lookups: what arrives is added where it was read."""

from __future__ import annotations

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
        row = int(g.values(indices)) % size
        return (g.pad(g.unsqueeze(dy, [axis]), [row], [size - 1 - row], [axis]),)
    moved = [*range(axis, axis + indices.rank), *range(axis), *range(axis + indices.rank, dy.rank)]
    rows = g.transpose(dy, moved)
    to_front = [axis, *range(axis), *range(axis + 1, x.rank)]
    zeros = g.transpose(g.cast(g.full_like(x, 0), dy), to_front)
    scattered = g.op("ScatterND", zeros, g.unsqueeze(indices, [indices.rank]), rows, reduction="add")
    return (g.transpose(scattered, [*range(1, axis + 1), 0, *range(axis + 1, x.rank)]),)


@vjp("GatherElements")
def gather_elements(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    zeros = g.cast(g.full_like(s[0], 0), dy)
    return (g.op("ScatterElements", zeros, s[1], dy, axis=s.attr("axis", 0), reduction="add"),)


@vjp("GatherND")
def gather_nd(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """Raises: ValueError for batch_dims, which ScatterND cannot undo."""
    if s.attr("batch_dims", 0):
        raise ValueError("GatherND with batch_dims has no derivative here")
    return (g.op("ScatterND", g.cast(g.full_like(s[0], 0), dy), s[1], dy, reduction="add"),)


@vjp("TopK")
def top_k(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    zeros = g.cast(g.full_like(s[0], 0), dy)
    return (g.op("ScatterElements", zeros, s.ys[1], dy, axis=s.attr("axis", -1)),)
