"""Operators that keep a part of a tensor's places, or put others around them: how its grid changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

from onnxplain.ir.site import Site
from onnxplain.ir.value import Dim, Value
from onnxplain.passes.explain.factors import CHANNEL, TOKENS, Factor
from onnxplain.passes.explain.grid import SINGLE, Grid, channel_axis
from onnxplain.passes.explain.view import View

_END, _FAR = 2**62, 2**30


def drops_places(site: Site, output: int, grid: Grid) -> bool:
    """Whether a site takes from a tensor of that grid only tokens of no place: the class token, by its index."""
    taken = _taken(site, output, grid)
    if taken is None:
        return False
    size = site[0].shape[grid.roles.index(TOKENS)]
    last = size - grid.after if isinstance(size, int) else _END
    return all(i < grid.before or i >= last for i in taken)


def sliced(site: Site, y: Value, x: Grid) -> Grid | None:
    taken = _taken(site, 0, x)
    if taken is not None:
        return _kept_tokens(site, y, x, taken)
    if not all(v is None or v.is_constant for v in site.x[1:]):
        return None
    given = [[int(v) for v in site.numbers(y.g, i)] for i in (1, 2)]
    axes = range(len(x.axes)) if site.optional(3) is None else [int(a) % len(x.axes) for a in site.numbers(y.g, 3)]
    steps = [1] * len(axes) if site.optional(4) is None else [int(s) for s in site.numbers(y.g, 4)]
    chosen = {axis: slice(*each) for axis, *each in zip(axes, *given, steps, strict=True)}
    return _kept(site[0], y, x, {a: s for a, s in chosen.items() if site[0].shape[a] != y.shape[a] or s.step != 1})


def padded(site: Site, y: Value, x: Grid) -> Grid | None:
    """Rows and columns more, or fewer, around the picture."""
    if not site[1].is_constant or TOKENS in x.roles:
        return None
    axes = range(len(x.axes)) if site.optional(3) is None else [int(a) % len(x.axes) for a in site.numbers(y.g, 3)]
    before, after = site.numbers(y.g, 1).reshape(2, -1).astype(int).tolist()
    views: dict[int, View | None] = {}
    for axis, front, back in zip(axes, before, after, strict=True):
        role = x.roles[axis]
        if role == CHANNEL or not (front or back):
            continue
        if not isinstance(role, int):
            return None
        cut = x.views[role].cut(max(-front, 0), max(-back, 0), site[0].shape[axis]) if x.views else None
        views[role] = None if cut is None else cut.padded(max(front, 0), max(back, 0))
    grid = x.resized(y)
    return None if grid is None else grid.seeing(views)


def gathered(site: Site, y: Value, x: Grid) -> Grid | None:
    axis = site.attr("axis", 0) % len(x.axes)
    if isinstance(x.roles[axis], int) and site[1].is_constant and site[1].rank == 1:
        return _rows(y.g.values(site[1]).astype(int).tolist(), axis, site[0], y, x)
    if x.roles[axis] not in (CHANNEL, SINGLE) or site[1].rank > 1:
        return None
    kept = (channel_axis(y, axis),) if site[1].rank else ()
    return replace(x, axes=(*x.axes[:axis], *kept, *x.axes[axis + 1 :]))


def split(site: Site, y: Value, x: Grid) -> Grid | None:
    axis = site.attr("axis", 0) % len(x.axes)
    if x.roles[axis] == CHANNEL:
        return x.with_axis(axis, channel_axis(y, axis))
    ends: list[int] = []
    for each in site.ys:
        size = each.shape[axis]
        if not isinstance(size, int):
            return None
        ends.append((ends[-1] if ends else 0) + size)
        if each.name == y.name:
            return _kept(site[0], y, x, {axis: slice(ends[-1] - size, ends[-1], 1)})
    return None


def _rows(indices: list[int], axis: int, operand: Value, y: Value, x: Grid) -> Grid | None:
    """Rows by their indices, if these are an even part of all."""
    size = operand.shape[axis]
    if not isinstance(size, int) or len(indices) < 2:
        return None
    chosen = [i % size for i in indices]
    step = chosen[1] - chosen[0]
    if step == 0 or chosen != list(range(chosen[0], chosen[-1] + (1 if step > 0 else -1), step)):
        return None
    stop = chosen[-1] + (1 if step > 0 else -1)
    return _kept(operand, y, x, {axis: slice(chosen[0], stop if stop >= 0 else None, step)})


def _kept(operand: Value, y: Value, x: Grid, chosen: Mapping[int, slice]) -> Grid | None:
    """What is left where only some places are kept along some axes, or some channels."""
    views: dict[int, View | None] = {}
    for axis, part in chosen.items():
        role = x.roles[axis]
        if role == CHANNEL:
            x = x.with_axis(axis, channel_axis(y, axis))
        elif isinstance(role, int):
            views[role] = _seen(part, operand.shape[axis], x.views[role]) if x.views else None
        elif role != SINGLE:
            return None
    grid = x.resized(y) if views else x
    return None if grid is None else grid.seeing(views)


def _seen(part: slice, size: Dim, view: View) -> View | None:
    """What is seen of a dimension in a part of its cells; every so-manieth shows the same, coarser."""
    step = part.step
    if isinstance(size, int):
        kept = range(size)[part]
        if not kept:
            return None
        before, after = (kept.start, size - kept.stop) if step > 0 else (kept.stop + 1, size - 1 - kept.start)
    elif step < 0:
        if part.start != -1 or part.stop > -_FAR:
            return None
        before, after = 0, 0
    else:
        behind = part.stop >= _FAR
        if part.start < 0 or not (behind or part.stop < 0):
            return None
        before, after = part.start, 0 if behind else -part.stop
    cut = view.cut(before, after, size)
    if cut is None:
        return None
    return (cut if step > 0 else cut.mirrored()).enlarged(Fraction(1, abs(step)))


def _kept_tokens(site: Site, y: Value, x: Grid, taken: range) -> Grid | None:
    """What is left of a row of tokens of which some of no place are dropped."""
    axis = x.roles.index(TOKENS)
    size = site[0].shape[axis]
    if not isinstance(size, int) or not taken or taken.step != 1:
        return None
    before, after = x.before - taken.start, x.after - (size - taken.stop)
    if before < 0 or after < 0:
        return None
    if before or after:
        return replace(x.with_axis(axis, (Factor(TOKENS, y.shape[axis], 1, (y, axis)),)), before=before, after=after)
    return replace(x.with_axis(axis, x.row), row=(), before=0, after=0) if x.row else x


def _taken(site: Site, output: int, x: Grid) -> range | None:
    """Which tokens a site takes, None where it takes all or none can be named."""
    if site.op not in ("Slice", "Gather", "Split") or TOKENS not in x.roles:
        return None
    axis = x.roles.index(TOKENS)
    size, g = site[0].shape[axis], site.y.g
    if site.op == "Gather":
        if site.attr("axis", 0) % len(x.axes) != axis or not site[1].is_constant or not isinstance(size, int):
            return None
        chosen = [int(i) % size for i in g.values(site[1]).ravel()]
        return range(chosen[0], chosen[-1] + 1) if chosen == list(range(chosen[0], chosen[-1] + 1)) else None
    if site.op == "Split":
        sizes = [y.shape[axis] for y in site.ys[: output + 1]]
        if site.attr("axis", 0) % len(x.axes) != axis or not all(isinstance(n, int) for n in sizes):
            return None
        start, end = (sum(n for n in part if isinstance(n, int)) for part in (sizes[:-1], sizes))
        return range(start, end)
    if not all(v is None or v.is_constant for v in site.x[1:]):
        return None
    axes = list(range(len(x.axes))) if site.optional(3) is None else [int(a) for a in site.numbers(g, 3)]
    at = next((i for i, a in enumerate(axes) if a % len(x.axes) == axis), None)
    if at is None:
        return None
    start, stop = (int(site.numbers(g, i)[at]) for i in (1, 2))
    step = 1 if site.optional(4) is None else int(site.numbers(g, 4)[at])
    if isinstance(size, int):
        return range(size)[slice(start, stop, step)]
    return range(start, stop, step) if start >= 0 and stop >= 0 and step > 0 else None
