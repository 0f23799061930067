"""Which axis of the input the network takes for channels: its first operator that mixes them tells.

Each axis of a tensor is followed as a product of parts of the input's axes (`onnxplain.passes.explain.factors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from onnxplain.ir.layout import AUTO, Layout
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.passes.explain.factors import BATCH, CHANNEL, Axis, Factor
from onnxplain.passes.explain.following import ALIKE, reshaped, transposed, unsqueezed
from onnxplain.passes.explain.grid import Grid
from onnxplain.passes.explain.trace import Trace

_POOLS = frozenset(
    {
        "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "DepthToSpace",
        "SpaceToDepth", "LRN",
    }
)  # fmt: skip
"""Operators that treat places alike and keep channels, which are axis 1."""

_SECOND = _POOLS | {
    "Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization",
}  # fmt: skip
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_NORMALISED = frozenset({"LayerNormalization", "RMSNormalization"})
_SCALING = frozenset({"Add", "Sub", "Mul", "Div"})
_SAME_AXES = frozenset({"Slice", "Split", "Pad", "Concat", "Resize", "Tile"})
_REDUCING = frozenset({"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"})


def layout_of(trace: Trace, asked: str = AUTO) -> Layout:
    """The layout of the input: as asked for, by what the network does with it, or, where that tells nothing, by size.

    Raises: UsageError for a layout that does not exist.
    """
    rank = trace.source.rank
    if asked != AUTO:
        return Layout.named(rank, asked)
    by_use = _by_use(trace) if rank > 2 else None
    return Layout.by_size(trace.source.shape) if by_use is None else by_use


def _by_use(trace: Trace) -> Layout | None:
    """By the first operator that mixes channels and nothing else; before that, by what merely hints at them."""
    source = trace.source
    seen = _Seen(source, {source.name: tuple((Factor(a or BATCH, d),) for a, d in enumerate(source.shape))})
    hint: Layout | None = None
    for site in trace.sites:
        for operand, axis, sure in seen.mixed(site):
            found = seen.told(site[operand], axis)
            if sure and found is not None:
                return found
            hint = hint or found
        seen.follow(site)
    return hint


@dataclass
class _Seen:
    """What has been followed of an input.

    axes:    of each tensor, the parts of the input's axes in each of its own; CHANNEL for what is made on the way.
    centred: axes of the input of which, each alone, a mean was taken.
    """

    source: Value
    axes: dict[str, tuple[Axis, ...]]
    centred: set[int | str] = field(default_factory=set)

    def mixed(self, site: Site) -> list[tuple[int, int, bool]]:
        """(operand, axis of it, sure) where a site treats one axis of an operand as channels.

        Weights on the left mix places in a graph network, and a constant along an axis may be a window in time: both
        are hints and no more, but for the constants behind a mean along that axis, which are those of a layer norm.
        """
        known = [i for i, x in enumerate(site.x) if x is not None and x.name in self.axes]
        if not known:
            return []
        if site.op in _SCALING:
            return [(i, a, self._is_centred(site[i], a)) for i in known for a in _constant_along(site, i)]
        if site.op in ("MatMul", "Gemm", "Einsum"):
            return _contracted(site, known[0]) if sum(site.varying) == 1 and site.varying[known[0]] else []
        if known[0] != 0:
            return []
        rank = len(self.axes[site[0].name])
        if site.op in _SECOND:
            made = site.op in _POOLS and not self._kinds(site[0], 1)
            return [] if made or rank < 2 else [(0, 1, True)]
        last = site.op in _RECURRENT or (site.op in _NORMALISED and site.attr("axis", -1) % rank == rank - 1)
        return [(0, rank - 1, True)] if last else []

    def told(self, x: Value, axis: int) -> Layout | None:
        """The layout if that axis of a tensor holds the channels; None where it is not one axis of the input.

        Patches hold parts of rows and columns besides: what lies along no other axis is the channels. If nothing does,
        and no axis is lost, there are none.
        """
        axes, shape = self.axes[x.name], self.source.shape
        if axis >= len(axes) or any(f.kind == BATCH for f in axes[axis]):
            return None
        elsewhere = {f.kind for i, content in enumerate(axes) if i != axis for f in content}
        alone = self._kinds(x, axis) - elsewhere
        if len(alone) > 1:
            return None
        if not alone:
            whole = {*range(1, len(shape))} <= elsewhere and 1 not in shape[1:]
            return Layout(len(shape), None) if whole else None
        (channel,) = alone
        beside = any(d != 1 for a, d in enumerate(shape) if a not in (0, channel))
        return Layout(len(shape), int(channel)) if beside else None

    def follow(self, site: Site) -> None:
        known = {i: self.axes[x.name] for i, x in enumerate(site.x) if x is not None and x.name in self.axes}
        if site.op == "ReduceMean" and 0 in known and len(reduced := _reduced(site)) == 1:
            self.centred |= self._kinds(site[0], reduced[0])
        for y in site.ys if known else ():
            axes = None if y.tensor.shape is None else _followed(site, y, known)
            if axes is not None and len(axes) == y.rank:
                self.axes[y.name] = axes

    def _is_centred(self, x: Value, axis: int) -> bool:
        return bool(self._kinds(x, axis)) and self._kinds(x, axis) <= self.centred

    def _kinds(self, x: Value, axis: int) -> set[int | str]:
        """Axes of the input that an axis of a tensor holds parts of."""
        return {f.kind for f in self.axes[x.name][axis] if isinstance(f.kind, int)}


def _followed(site: Site, y: Value, known: Mapping[int, tuple[Axis, ...]]) -> tuple[Axis, ...] | None:
    operand, axes = next(iter(known.items()))
    if site.op in ALIKE or site.op in _SAME_AXES or site.op in _POOLS:
        full = [each for each in known.values() if len(each) == y.rank]
        axes = full[0] if full else ((),) * (y.rank - len(axes)) + axes
        return _resized(axes, y) if len(axes) == y.rank else None  # a quantiser's scale has none of them
    if site.op in ("MatMul", "Gemm") and sum(site.varying) == 1 and operand == 1:
        return _resized(axes, y) if len(axes) == y.rank else None
    if operand != 0 or (site.op in ("Squeeze", "Unsqueeze") and len(site.x) > 1 and not site[1].is_constant):
        return None
    grid = Grid(axes)
    if site.op == "Transpose":
        return transposed(site, y, grid).axes
    if site.op == "Unsqueeze":
        return unsqueezed(site, y, grid).axes
    if site.op in ("Reshape", "Flatten"):
        regrouped = reshaped(site, y, grid)
        return None if regrouped is None else regrouped.axes
    if site.op == "Gather":
        axis = site.attr("axis", 0) % len(axes)
        return _resized(axes, y) if site[1].rank == 1 else _without(axes, [axis]) if site[1].rank == 0 else None
    if site.op == "Squeeze":
        gone = [int(a) for a in site.numbers(y.g, 1)] if site.optional(1) is not None else _ones(site[0])
        return _without(axes, [a % len(axes) for a in gone])
    if site.op in _REDUCING:
        gone = _reduced(site)
        kept = site.attr("keepdims", 1) == 1
        return tuple(() if a in gone else each for a, each in enumerate(axes)) if kept else _without(axes, gone)
    return None


def _resized(axes: tuple[Axis, ...], y: Value) -> tuple[Axis, ...] | None:
    """The same axes in a tensor's sizes; None where that leaves parts of unknown size."""
    found: list[Axis] = []
    for content, size in zip(axes, y.shape, strict=True):
        if len(content) == 1:
            found.append((replace(content[0], size=size),))
        elif not content:
            found.append(() if size == 1 else (Factor(CHANNEL, size),))
        elif isinstance(size, int) and _product(content) != size:
            return None
        else:
            found.append(content)
    return tuple(found)


def _product(content: Axis) -> int | None:
    total = 1
    for f in content:
        if not isinstance(f.size, int):
            return None
        total *= f.size
    return total


def _constant_along(site: Site, operand: int) -> list[int]:
    """The one axis along which the other operand, which is stored, is not one number."""
    if len(site.x) != 2 or not site[1 - operand].is_constant or site[operand].rank != site.y.rank:
        return []
    sizes = site[1 - operand].shape
    wide = [a for a, d in enumerate(sizes, site.y.rank - len(sizes)) if d != 1]
    return wide if len(wide) == 1 else []


def _contracted(site: Site, operand: int) -> list[tuple[int, int, bool]]:
    """The axis of an operand over which the product with weights sums."""
    rank = site[operand].rank
    if site.op == "Einsum":
        terms, _, result = str(site.attr("equation")).replace(" ", "").partition("->")
        given = terms.split(",")
        others = "".join(term for i, term in enumerate(given) if i != operand)
        summed = [a for a, letter in enumerate(given[operand]) if letter in others and letter not in result]
        return [(operand, summed[0], True)] if len(summed) == 1 and "." not in terms and result else []
    if site.op == "Gemm":
        turned = site.attr("transB" if operand else "transA", 0)
        return [(operand, operand if turned else 1 - operand, not operand)] if operand < 2 else []
    return [(operand, max(rank - 1 - operand, 0), not operand)]


def _reduced(site: Site) -> list[int]:
    """Axes that a reduction takes; none where that is known only at run time."""
    axes = site.optional(1)
    if axes is None:
        return [] if site.attr("noop_with_empty_axes", 0) else list(range(site[0].rank))
    return [int(a) % site[0].rank for a in site.numbers(site.y.g, 1)] if axes.is_constant else []


def _without(axes: tuple[Axis, ...], gone: list[int]) -> tuple[Axis, ...]:
    return tuple(content for a, content in enumerate(axes) if a not in gone)


def _ones(x: Value) -> list[int]:
    return [a for a, size in enumerate(x.shape) if size == 1]
