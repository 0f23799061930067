"""Grids, operator by operator: where each tensor between the input and the score keeps its places.

Transpose moves the factors of axes and Reshape regroups them. What mixes places (attention) loses them, and the
residual sum behind finds them again, or a convolution says them anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from onnxplain.ir.layout import Layout
from onnxplain.ir.site import Site
from onnxplain.ir.value import Dim, Value
from onnxplain.ir.window import Window
from onnxplain.passes.explain.factors import BATCH, CHANNEL, TOKENS, Factor, regrouped
from onnxplain.passes.explain.grid import SINGLE, Grid, channel_axis
from onnxplain.passes.explain.parts import gathered, padded, sliced, split
from onnxplain.passes.explain.trace import Trace
from onnxplain.passes.explain.view import View

ALIKE = frozenset(
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

_MOVES = frozenset({"Slice", "Pad", "Concat", "Gather", "Split", "GridSample", "Resize"})
"""Operators behind which a place may lie elsewhere, in ways that are not all followed."""


def grids(trace: Trace, layout: Layout) -> dict[str, Grid]:
    """The grid of each tensor between the input and the score for which it is known, by the tensor's name."""
    source = trace.source
    found: dict[str, Grid] = {}
    moved: set[str] = set()
    if layout.spatial and layout.rank == source.rank:
        found[source.name] = Grid.of_maps(source, layout.channel, layout.spatial)
    for site in trace.sites:
        lost = any(_may_move(site, found.get(x.name)) or x.name in moved for x in site.operands)
        for i, y in enumerate(site.ys):
            if y.name not in trace.varying or y.tensor.shape is None:
                continue
            grid = _grid_of(site, i, found)
            if site.op in _WINDOWED and site[0].name not in found:
                grid = _anew(y, source, lost)
            if grid is not None and len(grid.axes) == y.rank:
                found[y.name] = grid
            elif lost:
                moved.add(y.name)
    return found


def _grid_of(site: Site, output: int, known: Mapping[str, Grid]) -> Grid | None:
    y, operand = site.ys[output], site.optional(0)
    if site.op in ALIKE:
        return _alike([known[x.name] for x in site.operands if x.name in known and _spans(x, y)])
    x = known.get(operand.name) if operand is not None else None
    if site.op in _WINDOWED:
        return _windowed(site, y, x)
    if site.op == "Concat":
        return _concat(site, known)
    if site.op == "MatMul":
        return _product(site, y, known)
    if is_embedding(site) and site[1].name in known:
        return _embedded(y, known[site[1].name])
    if x is None:
        return None
    mover = {
        "Transpose": transposed, "Reshape": reshaped, "Flatten": reshaped, "Squeeze": _squeeze, "Resize": _resize,
        "Unsqueeze": unsqueezed, "Slice": sliced, "Pad": padded, "Gather": gathered, "Split": split,
        **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"), _reduce),
    }.get(site.op)  # fmt: skip
    return None if mover is None else mover(site, y, x)


def is_embedding(site: Site) -> bool:
    """Whether rows of a table are looked up by numbers that depend on the input, one for each token."""
    return site.op == "Gather" and site.varying == (False, True) and not site.attr("axis", 0) and site[0].rank == 2


def _embedded(y: Value, ids: Grid) -> Grid:
    """Each place's number became its features."""
    return replace(ids, axes=(*ids.axes, channel_axis(y, y.rank - 1)))


def _may_move(site: Site, x: Grid | None) -> bool:
    """Whether places of an operand may lie elsewhere behind a site; tokens come and go in rows that are followed."""
    return site.op in _MOVES and not is_embedding(site) and x is not None and TOKENS not in x.roles


def _spans(x: Value, y: Value) -> bool:
    """Whether an operand is not stretched to the output's shape."""
    if x.tensor.shape is None or x.rank != y.rank:
        return False
    return all(have != 1 or want == 1 for have, want in zip(x.shape, y.shape, strict=True))


def _alike(found: Sequence[Grid]) -> Grid | None:
    """That of the first operand, if the others show the same part of the input."""
    if not found:
        return None
    first, *others = found
    return first if all(_agree(first, other) for other in others) else replace(first, views=None)


def _agree(one: Grid, other: Grid) -> bool:
    """Whether two operands of one shape have the same place of the input at the same place, to within a cell."""
    if one.views is None or other.views is None:
        return one.views is other.views
    sizes = dict(zip((f.kind for f in one.places), one.shape, strict=True))
    near = all(a.near(b, sizes.get(i)) for i, (a, b) in enumerate(zip(one.views, other.views, strict=True)))
    return near and [r for r in one.roles if isinstance(r, int)] == [r for r in other.roles if isinstance(r, int)]


def _windowed(site: Site, y: Value, x: Grid | None) -> Grid | None:
    """Maps of the dimensions that the operand has, each seen through windows; an axis of one stays one."""
    if x is None or y.rank < 3:
        return None
    if TOKENS in x.roles:
        pointwise = site.op == "Conv" and all(k == 1 for k in site.attr("kernel_shape", site[1].shape[2:]))
        return x.with_axis(1, channel_axis(y, 1)) if pointwise and x.roles[1] == CHANNEL else None
    batch, channel, *kinds = x.roles
    if batch != BATCH:
        return None
    single = [kind == SINGLE and size == 1 for kind, size in zip(kinds, y.shape[2:], strict=True)]
    known = all(isinstance(kind, int) or one for kind, one in zip(kinds, single, strict=True)) and not all(single)
    if channel not in (CHANNEL, SINGLE) or not known:
        return replace(Grid.of_maps(y), views=None)
    axes = tuple(
        () if kind == SINGLE else (Factor(kind, y.shape[i], 1, (y, i)),)
        for i, kind in enumerate((BATCH, CHANNEL, *kinds))
    )
    seen = x.views or ()
    through = {kind: _through(site, i, seen[kind]) for i, kind in enumerate(kinds) if isinstance(kind, int) and seen}
    return Grid(axes, views=x.views).seeing(through)


def _anew(y: Value, source: Value, moved: bool) -> Grid | None:
    """Maps whose operand's places are not known: of a whole picture, if nothing that moves places stands before."""
    if y.rank < 3 or (
        isinstance(y.shape[0], int) and isinstance(source.shape[0], int) and y.shape[0] != source.shape[0]
    ):
        return None
    return replace(Grid.of_maps(y), views=None) if moved else Grid.of_maps(y)


def _through(site: Site, i: int, view: View) -> View:
    """What is seen along the i-th dimension of a window."""
    if site.op in ("DepthToSpace", "SpaceToDepth"):
        size = Fraction(site.attr("blocksize"))
        return view.enlarged(size if site.op == "DepthToSpace" else 1 / size)
    window = Window.of_node(site.node)
    if site.op == "ConvTranspose":
        return view.enlarged(Fraction(window.strides[i]))
    reach = window.dilations[i] * (int(window.kernel[i] or 1) - 1) + 1  # 1 where the weights' sizes are not known
    return view.windowed(reach, window.strides[i], window.before[i], window.after[i])


def _resize(site: Site, y: Value, x: Grid) -> Grid | None:
    grid = x.resized(y)
    if grid is None or x.views is None:
        return grid
    if site.attr("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return replace(grid, views=None)
    return grid.seeing({kind: _scaled(x.views[kind], site[0].shape[i], y.shape[i]) for i, kind in _placed(x)})


def _placed(x: Grid) -> list[tuple[int, int]]:
    """Axes that hold one spatial dimension, and which."""
    return [(axis, role) for axis, role in enumerate(x.roles) if isinstance(role, int)]


def _scaled(view: View, have: Dim, want: Dim) -> View | None:
    if not view.before and not view.after:
        return view
    return view.enlarged(Fraction(want, have)) if isinstance(have, int) and isinstance(want, int) else None


def _concat(site: Site, known: Mapping[str, Grid]) -> Grid | None:
    placed = [i for i, x in enumerate(site.operands) if x.name in known]
    if not placed:
        return None
    grid = known[site[placed[0]].name]
    axis = site.attr("axis", 0) % len(grid.axes)
    role = grid.roles[axis]
    if role == CHANNEL:
        alike = _alike([known[site[i].name] for i in placed])
        return None if alike is None else alike.with_axis(axis, channel_axis(site.y, axis))
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
    return grid.with_axis(changed, channel_axis(y, changed))


def transposed(site: Site, y: Value, x: Grid) -> Grid:
    perm = site.attr("perm", list(range(len(x.axes)))[::-1])
    return replace(x, axes=tuple(x.axes[axis] for axis in perm))


def reshaped(site: Site, y: Value, x: Grid) -> Grid | None:
    axes = regrouped([factor for axis in x.axes for factor in axis], y)
    return None if axes is None else replace(x, axes=axes)


def _squeeze(site: Site, y: Value, x: Grid) -> Grid | None:
    if site.optional(1) is None:
        axes = {axis for axis, size in enumerate(site[0].shape) if size == 1}
    else:
        axes = {int(axis) % len(x.axes) for axis in site.numbers(y.g, 1)}
    if any(x.roles[axis] not in (CHANNEL, SINGLE) for axis in axes):
        return None
    return replace(x, axes=tuple(content for axis, content in enumerate(x.axes) if axis not in axes))


def unsqueezed(site: Site, y: Value, x: Grid) -> Grid:
    axes, old = {int(axis) % y.rank for axis in site.numbers(y.g, 1)}, iter(x.axes)
    return replace(x, axes=tuple(() if axis in axes else next(old) for axis in range(y.rank)))


def _reduce(site: Site, y: Value, x: Grid) -> Grid | None:
    """One number for all channels of a place."""
    if site.optional(1) is None or not site[1].is_constant:
        return None
    axes = {int(a) % len(x.axes) for a in site.numbers(y.g, 1)}
    if any(x.roles[axis] != CHANNEL for axis in axes):
        return None
    kept = site.attr("keepdims", 1) == 1
    left = [(a, content) for a, content in enumerate(x.axes) if kept or a not in axes]
    return replace(x, axes=tuple(channel_axis(y, a) if a in axes else content for a, content in left))
