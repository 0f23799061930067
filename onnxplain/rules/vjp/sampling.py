"""The derivative of reading a picture at places that are computed: spatial transformers and their like."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import product

import numpy as np

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.rules.table import vjp


@dataclass(frozen=True)
class Side:
    """One neighbour along one axis, for every place (N, P): its position, its weight and that one's slope by the grid.

    inside: 1 where the neighbour lies in the picture, 0 where it would lie beside it.
    """

    position: Value
    weight: Value
    slope: Value | None
    inside: Value


@vjp("GridSample", wrt=(0, 1))
def grid_sample(g: Builder, s: Site, dy: Value) -> tuple[Value | None, ...]:
    """What arrives goes to the neighbours by their weights, and to the places by the differences between neighbours.

    y = sum over neighbours of x there, times the product of a weight for each axis; a weight depends on the place along
    its own axis alone.

    Shapes: x (N, C, *S), grid (N, *T, axes), dy (N, C, *T); the grid's last axis counts S from behind.
    """
    x, grid = s[0], s[1]
    nearest = _is_nearest(s)
    many, axes = g.reshape(x, [0, 0, -1]), list(x.spatial)
    arriving = g.reshape(dy, [0, 0, -1])
    flat = g.reshape(grid, g.concat([g.sizes(grid, [0]), g.ints([-1, len(axes)])], axis=0))
    sides = [_sides(g, s, flat, axis, nearest) for axis in axes]
    back = g.full_like(many, 0) if s.varying[0] else None
    slopes: list[list[Value]] = [[] for _ in axes]
    for corner in product(*sides):
        at = g.unsqueeze(_flat_index(g, x, corner), [1])
        at = g.op("Expand", at, g.shape(arriving))
        seen = reduce(lambda a, b: a * b, (side.inside for side in corner))
        if back is not None:
            weight = reduce(lambda a, b: a * b, (side.weight for side in corner), seen)
            share = arriving * g.unsqueeze(weight, [1])
            back = g.op("ScatterElements", back, at, share, axis=2, reduction="add")
        if s.varying[1] and not nearest:
            value = g.sum(arriving * g.op("GatherElements", many, at, axis=2), [1], keepdims=False) * seen
            for i, side in enumerate(corner):
                others = (other.weight for j, other in enumerate(corner) if j != i)
                slope = value if side.slope is None else value * side.slope
                slopes[i].append(reduce(lambda a, b: a * b, others, slope))
    to_grid = None
    if s.varying[1] and not nearest:
        columns = [g.unsqueeze(g.total(each), [2]) for each in reversed(slopes)]
        to_grid = g.reshape_like(g.concat(columns, axis=2), grid)
    return None if back is None else g.reshape_like(back, x), to_grid


def _is_nearest(s: Site) -> bool:
    mode, padding = s.attr("mode", "linear"), s.attr("padding_mode", "zeros")
    if mode not in ("linear", "nearest", "cubic") or padding not in ("zeros", "border", "reflection"):
        raise s.refused(f"with mode={mode} and padding_mode={padding}")
    return bool(mode == "nearest")


def _sides(g: Builder, s: Site, grid: Value, axis: int, nearest: bool) -> list[Side]:
    """The neighbours of every place along one axis."""
    x = s[0]
    size = g.cast(g.sizes(x, [axis]), grid)
    place = g.gather(grid, g.constant(np.int64(x.rank - 1 - axis)), axis=2)
    if s.attr("align_corners", 0):
        slope, at = (size - 1) * 0.5, (place + 1) * ((size - 1) * 0.5)
    else:
        slope, at = size * 0.5, (place + 1) * (size * 0.5) - 0.5
    if s.attr("mode", "linear") == "cubic":
        return _cubic_sides(g, s, at, slope, size)
    at, by = _within(g, s, at, size)
    slope = slope if by is None else slope * by
    if nearest:
        position = g.op("Round", at)
        return [_side(g, position, g.full_like(at, 1), None, size)]
    low = g.op("Floor", at)
    part = at - low
    return [_side(g, low, 1 - part, -slope, size), _side(g, low + 1, part, slope, size)]


def _cubic_sides(g: Builder, s: Site, at: Value, slope: Value, size: Value) -> list[Side]:
    """Four neighbours, weighed by Keys' polynomials of their distance; each is looked for in the picture by itself."""
    low = g.op("Floor", at)
    part = at - low
    found = []
    for step in (-1, 0, 1, 2):
        distance, sign = (part - step, 1) if step < 1 else (step - part, -1)
        cubic, square, linear, one = _NEAR if step in (0, 1) else _FAR
        weight = ((cubic * distance + square) * distance + linear) * distance + one
        change = ((3 * cubic) * distance + 2 * square) * distance + linear
        position, _ = _within(g, s, low + step, size)
        found.append(_side(g, position, weight, change * slope * sign, size))
    return found


_A = -0.75
_NEAR = (_A + 2, -_A - 3, 0, 1)
_FAR = (_A, -5 * _A, 8 * _A, -4 * _A)
"""Keys 1981, with the coefficient that ONNX's GridSample has: from the third power down."""


def _within(g: Builder, s: Site, at: Value, size: Value) -> tuple[Value, Value | None]:
    """Where the padding finds what lies outside of the picture, and the slope of that; None where it is one."""
    padding = s.attr("padding_mode", "zeros")
    if padding == "zeros":
        return at, None
    slope = None
    if padding == "reflection":
        # The mirrors stand at the outermost centres, or half an element beyond them.
        low, span = (0.0, g.maximum(size - 1, 1)) if s.attr("align_corners", 0) else (-0.5, size)
        off = abs(at - low)
        times = g.op("Floor", off / span)
        rest = off - times * span
        odd = g.op("Mod", times, g.constant(2, times.dtype), fmod=1)
        slope = g.where(at < low, g.constant(-1, at.dtype), 1) * (1 - 2 * odd)
        at = rest + odd * (span - 2 * rest) + low
    kept = g.mask((at > 0) & (at < size - 1), at)
    return g.minimum(g.maximum(at, 0), size - 1), kept if slope is None else slope * kept


def _side(g: Builder, position: Value, weight: Value, slope: Value | None, size: Value) -> Side:
    inside = g.mask((position >= 0) & (position <= size - 1), weight)
    return Side(g.minimum(g.maximum(position, 0), size - 1), weight, slope, inside)


def _flat_index(g: Builder, x: Value, corner: tuple[Side, ...]) -> Value:
    """Where each place's neighbour lies among all positions, row after row."""
    found: Value | None = None
    for axis, side in zip(x.spatial, corner, strict=True):
        position = g.cast(side.position, np.int64)
        found = position if found is None else found * g.sizes(x, [axis]) + position
    assert found is not None
    return found
