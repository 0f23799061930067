"""Where a tensor keeps its places: as maps (N, C, *S), channels last, in windows, or as a row of tokens.

It is followed through the graph from the input on, factor by factor: each axis is a product of the batch, of channels
and of places, which Transpose moves and Reshape regroups (`onnxplain.passes.explain.factors`). Convolutions and pools
say it anew. What mixes places (attention) loses it, and the residual sum behind finds it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnxplain.ir.builder import Builder
from onnxplain.ir.layout import Layout
from onnxplain.ir.site import Site
from onnxplain.ir.value import Dim, Value
from onnxplain.passes.explain.factors import BATCH, CHANNEL, TOKENS, Axis, Factor, regrouped
from onnxplain.passes.explain.trace import Trace

_SINGLE, _MIXED = "single", "mixed"
_END = 2**62

_ALIKE = frozenset(
    {
        "Add", "Sub", "Mul", "Div", "Sum", "Max", "Min", "Pow", "Mean", "Where", "PRelu", "Identity", "Dropout", "Cast",
        "CastLike", "Neg", "Abs", "Sqrt", "Exp", "Log", "Reciprocal", "Erf", "Relu", "LeakyRelu", "Elu", "Selu", "Celu",
        "Sigmoid", "HardSigmoid", "HardSwish", "Swish", "Gelu", "Mish", "Tanh", "Softplus", "Softsign", "Clip",
        "ThresholdedRelu", "Shrink", "Softmax", "LogSoftmax", "BatchNormalization", "InstanceNormalization",
        "GroupNormalization", "LayerNormalization", "RMSNormalization", "LpNormalization", "LRN",
        "MeanVarianceNormalization", "QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear", "Expand",
    }
)  # fmt: skip
"""Operators whose output has its places where an operand of its shape has them."""

_WINDOWED = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "DepthToSpace", "SpaceToDepth"})
"""Operators whose output is (N, C, *S) by definition."""


@dataclass(frozen=True)
class Grid:
    """What each axis of a tensor holds.

    row:    where one axis holds tokens besides those of places, the spatial dimensions that these are of.
    before: tokens of no place in front of those (a class token), and `after` behind them.
    """

    axes: tuple[Axis, ...]
    row: Axis = ()
    before: int = 0
    after: int = 0

    @staticmethod
    def of_maps(y: Value, channel: int | None = 1, spatial: Sequence[int] | None = None) -> Grid:
        """Of a tensor with one axis for the batch, one for channels and one for each spatial dimension."""
        kinds: dict[int, int | str] = {0: BATCH, **({} if channel is None else {channel: CHANNEL})}
        kinds |= {axis: i for i, axis in enumerate(y.spatial if spatial is None else spatial)}
        return Grid(tuple((Factor(kinds[axis], y.shape[axis], 1, (y, axis)),) for axis in range(y.rank)))

    @property
    def places(self) -> Axis:
        """The spatial dimensions, in order; of one that was split, the part that says which patch."""
        factors = (f for f in (self.row or [f for axis in self.axes for f in axis]) if isinstance(f.kind, int))
        outermost: dict[int, Factor] = {}
        for f in factors:
            assert isinstance(f.kind, int)
            if f.kind not in outermost or f.stride > outermost[f.kind].stride:
                outermost[f.kind] = f
        return tuple(outermost[kind] for kind in sorted(outermost))

    @property
    def shape(self) -> tuple[Dim, ...]:
        """Sizes of the spatial dimensions, as far as they are known."""
        return tuple(f.size for f in self.places)

    @property
    def roles(self) -> tuple[int | str, ...]:
        """Each axis in a word: BATCH, CHANNEL, TOKENS (all places), a spatial dimension's number, or another."""
        return tuple(self._role(axis) for axis in self.axes)

    def _role(self, axis: Axis) -> int | str:
        if not axis:
            return _SINGLE
        if len(axis) == 1 and (axis[0].kind in (BATCH, TOKENS) or axis[0] in self.places):
            return axis[0].kind
        if axis == self.places:
            return TOKENS
        channels = all(f.kind == CHANNEL or (isinstance(f.kind, int) and f not in self.places) for f in axis)
        return CHANNEL if channels else _MIXED

    @property
    def is_map(self) -> bool:
        """Whether every place has one vector of channels, and there is more than one place."""
        roles = self.roles
        once = all(roles.count(role) == 1 for role in (BATCH, CHANNEL)) and _MIXED not in roles
        placed = roles.count(TOKENS) == 1 or all(f.kind in roles for f in self.places)
        return once and placed and any(size != 1 for size in self.shape)

    def maps(self, g: Builder, x: Value) -> Value:
        """A tensor of this grid, or its derivative, as (N, C, *S); tokens of no place are dropped."""
        roles = self.roles
        tokens = TOKENS in roles
        if self.before or self.after:
            x = g.slice(x, [self.before], [-self.after if self.after else _END], [roles.index(TOKENS)])
        order = [roles.index(role) for role in (BATCH, CHANNEL, *([TOKENS] if tokens else range(len(self.places))))]
        x = g.transpose(x, order + [axis for axis in range(x.rank) if axis not in order])
        x = g.squeeze(x, list(range(len(order), x.rank)))
        if not tokens:
            return x
        sizes = [f.length(g) for f in self.places]
        return g.named(g.reshape(x, g.concat([g.ints([0, 0]), *sizes], axis=0)), [*x.shape[:2], *self.shape])

    def with_axis(self, axis: int, content: Axis) -> Grid:
        """The grid with something else in one axis."""
        return replace(self, axes=(*self.axes[:axis], content, *self.axes[axis + 1 :]))

    def resized(self, y: Value) -> Grid | None:
        """The same axes in other sizes; None where one axis holds more than a dimension."""
        if any(isinstance(f.kind, int) and len(axis) > 1 for axis in self.axes for f in axis):
            return None
        axes = (
            (Factor(axis[0].kind, y.shape[i], 1, (y, i)),) if axis and isinstance(axis[0].kind, int) else axis
            for i, axis in enumerate(self.axes)
        )
        return replace(self, axes=tuple(axes))


def grids(trace: Trace, layout: Layout) -> dict[str, Grid]:
    """The grid of each tensor between the input and the score for which it is known, by the tensor's name."""
    source = trace.source
    found: dict[str, Grid] = {}
    if layout.spatial and layout.rank == source.rank:
        found[source.name] = Grid.of_maps(source, layout.channel, layout.spatial)
    for site in trace.sites:
        for i, y in enumerate(site.ys):
            grid = _grid_of(site, i, found) if y.name in trace.varying and y.tensor.shape is not None else None
            if grid is not None and len(grid.axes) == y.rank:
                found[y.name] = grid
    return found


def drops_places(site: Site, output: int, grid: Grid) -> bool:
    """Whether a site takes from a tensor of that grid only tokens of no place: the class token, by its index."""
    taken = _taken(site, output, grid)
    if taken is None:
        return False
    size = site[0].shape[grid.roles.index(TOKENS)]
    last = size - grid.after if isinstance(size, int) else _END
    return all(i < grid.before or i >= last for i in taken)


def _grid_of(site: Site, output: int, known: Mapping[str, Grid]) -> Grid | None:
    y, operand = site.ys[output], site.optional(0)
    if site.op in _ALIKE:
        return next((known[x.name] for x in site.operands if x.name in known and _spans(x, y)), None)
    x = known.get(operand.name) if operand is not None else None
    if site.op in _WINDOWED:
        return _windowed(site, y, x)
    if site.op == "Concat":
        return _concat(site, known)
    if site.op == "MatMul":
        return _product(site, y, known)
    if x is None:
        return None
    mover = {
        "Transpose": _transpose, "Reshape": _reshape, "Flatten": _reshape, "Squeeze": _squeeze, "Resize": _resize,
        "Unsqueeze": _unsqueeze, "Slice": _slice, "Pad": _pad, "Gather": _gather, "Split": _split,
        **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"), _reduce),
    }.get(site.op)  # fmt: skip
    return None if mover is None else mover(site, y, x)


def _spans(x: Value, y: Value) -> bool:
    """Whether an operand is not stretched to the output's shape."""
    if x.tensor.shape is None or x.rank != y.rank:
        return False
    return all(have != 1 or want == 1 for have, want in zip(x.shape, y.shape, strict=True))


def _windowed(site: Site, y: Value, x: Grid | None) -> Grid | None:
    if x is not None and TOKENS in x.roles:
        pointwise = site.op == "Conv" and all(k == 1 for k in site.attr("kernel_shape", site[1].shape[2:]))
        return x.with_axis(1, _channel(y, 1)) if pointwise and x.roles[1] == CHANNEL else None
    return Grid.of_maps(y) if y.rank > 2 else None


def _channel(y: Value, axis: int) -> Axis:
    return (Factor(CHANNEL, y.shape[axis], 1, (y, axis)),)


def _resize(site: Site, y: Value, x: Grid) -> Grid | None:
    return x.resized(y)


def _concat(site: Site, known: Mapping[str, Grid]) -> Grid | None:
    placed = [i for i, x in enumerate(site.operands) if x.name in known]
    if not placed:
        return None
    grid = known[site[placed[0]].name]
    axis = site.attr("axis", 0) % len(grid.axes)
    role = grid.roles[axis]
    if role == CHANNEL:
        return grid.with_axis(axis, _channel(site.y, axis))
    sizes = [x.shape[axis] for x in site.operands]
    before, after = sizes[: placed[0]], sizes[placed[0] + 1 :]
    in_a_row = role == TOKENS or (role == 0 and len(grid.places) == 1)
    if not in_a_row or len(placed) > 1 or not all(isinstance(size, int) for size in (*before, *after)):
        return None
    more, behind = (sum(size for size in part if isinstance(size, int)) for part in (before, after))
    tokens = (Factor(TOKENS, site.y.shape[axis], 1, (site.y, axis)),)
    wider = replace(grid, row=grid.places, before=grid.before + more, after=grid.after + behind)
    return wider.with_axis(axis, tokens)


def _product(site: Site, y: Value, known: Mapping[str, Grid]) -> Grid | None:
    """A product with weights changes the channels; what changes places mixes them."""
    if sum(site.varying) != 1:
        return None
    signal = site.varying.index(True)
    grid, changed = known.get(site[signal].name), y.rank - 1 - signal
    if grid is None or len(grid.axes) != y.rank or grid.roles[changed] != CHANNEL:
        return None
    return grid.with_axis(changed, _channel(y, changed))


def _transpose(site: Site, y: Value, x: Grid) -> Grid:
    perm = site.attr("perm", list(range(len(x.axes)))[::-1])
    return replace(x, axes=tuple(x.axes[axis] for axis in perm))


def _reshape(site: Site, y: Value, x: Grid) -> Grid | None:
    axes = regrouped([factor for axis in x.axes for factor in axis], y)
    return None if axes is None else replace(x, axes=axes)


def _squeeze(site: Site, y: Value, x: Grid) -> Grid | None:
    if site.optional(1) is None:
        axes = {axis for axis, size in enumerate(site[0].shape) if size == 1}
    else:
        axes = {int(axis) % len(x.axes) for axis in site.numbers(y.g, 1)}
    if any(x.roles[axis] not in (CHANNEL, _SINGLE) for axis in axes):
        return None
    return replace(x, axes=tuple(content for axis, content in enumerate(x.axes) if axis not in axes))


def _unsqueeze(site: Site, y: Value, x: Grid) -> Grid:
    axes, old = {int(axis) % y.rank for axis in site.numbers(y.g, 1)}, iter(x.axes)
    return replace(x, axes=tuple(() if axis in axes else next(old) for axis in range(y.rank)))


def _slice(site: Site, y: Value, x: Grid) -> Grid | None:
    taken = _taken(site, 0, x)
    if taken is not None:
        return _kept_tokens(site, y, x, taken)
    if not all(v is None or v.is_constant for v in site.x[1:]):
        return None
    axes = range(len(x.axes)) if site.optional(3) is None else [int(a) % len(x.axes) for a in site.numbers(y.g, 3)]
    by = [1] * len(axes) if site.optional(4) is None else [int(s) for s in site.numbers(y.g, 4)]
    steps = dict(zip(axes, by, strict=True))
    moved = [
        axis
        for axis, role in enumerate(x.roles)
        if role not in (CHANNEL, _SINGLE) and (site[0].shape[axis] != y.shape[axis] or steps.get(axis, 1) != 1)
    ]
    for axis in (axis for axis, role in enumerate(x.roles) if role == CHANNEL):
        x = x.with_axis(axis, _channel(y, axis))
    # Every so-manieth row and column, as where patches are merged: the same picture, coarser.
    coarser = all(isinstance(x.roles[axis], int) and steps.get(axis, 1) > 1 for axis in moved)
    return (x.resized(y) if moved else x) if coarser else None


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


def _reduce(site: Site, y: Value, x: Grid) -> Grid | None:
    """One number for all channels of a place."""
    if site.optional(1) is None or not site[1].is_constant:
        return None
    axes = {int(a) % len(x.axes) for a in site.numbers(y.g, 1)}
    if any(x.roles[axis] != CHANNEL for axis in axes):
        return None
    kept = site.attr("keepdims", 1) == 1
    axes_left = [_channel(y, a) if a in axes else content for a, content in enumerate(x.axes) if kept or a not in axes]
    return replace(x, axes=tuple(axes_left))


def _pad(site: Site, y: Value, x: Grid) -> Grid | None:
    """Rows and columns added at the end alone, to fill up windows."""
    if not site[1].is_constant or TOKENS in x.roles:
        return None
    axes = range(len(x.axes)) if site.optional(3) is None else [int(a) % len(x.axes) for a in site.numbers(y.g, 3)]
    before = [int(v) for v in site.numbers(y.g, 1)][: len(axes)]
    moved = any(n for n, axis in zip(before, axes, strict=True) if x.roles[axis] != CHANNEL)
    return None if moved else x.resized(y)


def _gather(site: Site, y: Value, x: Grid) -> Grid | None:
    axis = site.attr("axis", 0) % len(x.axes)
    if x.roles[axis] not in (CHANNEL, _SINGLE) or site[1].rank > 1:
        return None
    kept = (_channel(y, axis),) if site[1].rank else ()
    return replace(x, axes=(*x.axes[:axis], *kept, *x.axes[axis + 1 :]))


def _split(site: Site, y: Value, x: Grid) -> Grid | None:
    axis = site.attr("axis", 0) % len(x.axes)
    return x.with_axis(axis, _channel(y, axis)) if x.roles[axis] == CHANNEL else None
