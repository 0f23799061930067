"""Where a tensor keeps its places: as maps (N, C, *S), channels last, in windows, or as a row of tokens.

Each axis is a product of the batch, of channels and of places (`onnxplain.passes.explain.factors`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Dim, Value
from onnxplain.passes.explain.factors import BATCH, CHANNEL, TOKENS, Axis, Factor
from onnxplain.passes.explain.view import View

SINGLE, MIXED = "single", "mixed"
"""Roles of an axis that holds one element, and of one that holds what belongs to several axes."""

_END = 2**62

Views = tuple[View, ...]
"""What is seen of each spatial dimension of the input."""


@dataclass(frozen=True)
class Grid:
    """What each axis of a tensor holds.

    row:    where one axis holds tokens besides those of places, the spatial dimensions that these are of.
    before: tokens of no place in front of those (a class token), and `after` behind them.
    views:  which part of each spatial dimension of the input its places cover; None where that cannot be told.
    """

    axes: tuple[Axis, ...]
    row: Axis = ()
    before: int = 0
    after: int = 0
    views: Views | None = None

    @staticmethod
    def of_maps(y: Value, channel: int | None = 1, spatial: Sequence[int] | None = None) -> Grid:
        """Of a tensor that shows all of the input: an axis for the batch, for channels and for each dimension."""
        kinds: dict[int, int | str] = {0: BATCH, **({} if channel is None else {channel: CHANNEL})}
        kinds |= {axis: i for i, axis in enumerate(y.spatial if spatial is None else spatial)}
        axes = tuple((Factor(kinds[axis], y.shape[axis], 1, (y, axis)),) for axis in range(y.rank))
        return Grid(axes, views=(View(),) * sum(isinstance(kind, int) for kind in kinds.values()))

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
            return SINGLE
        if len(axis) == 1 and (axis[0].kind in (BATCH, TOKENS) or axis[0] in self.places):
            return axis[0].kind
        if axis == self.places:
            return TOKENS
        channels = all(f.kind == CHANNEL or (isinstance(f.kind, int) and f not in self.places) for f in axis)
        return CHANNEL if channels else MIXED

    @property
    def is_map(self) -> bool:
        """Whether every place has one vector of channels, and there is more than one place."""
        roles = self.roles
        once = all(roles.count(role) == 1 for role in (BATCH, CHANNEL)) and MIXED not in roles
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

    def seeing(self, changed: Mapping[int, View | None]) -> Grid:
        """The grid with other views of some dimensions, which are lost where one of them is None."""
        if self.views is None or None in changed.values():
            return replace(self, views=None)
        return replace(self, views=tuple(changed.get(i) or view for i, view in enumerate(self.views)))

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


def channel_axis(y: Value, axis: int) -> Axis:
    return (Factor(CHANNEL, y.shape[axis], 1, (y, axis)),)
