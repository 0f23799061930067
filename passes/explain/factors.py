"""Axes as products of factors, so that what Reshape splits and joins can be told apart again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Dim, Value

BATCH, CHANNEL, TOKENS = "batch", "channel", "tokens"


@dataclass(frozen=True)
class Factor:
    """A part of an axis.

    kind:   BATCH, CHANNEL, TOKENS (places and others in a row, never split), or the number of a spatial dimension.
    stride: of a spatial dimension, how many rows one step of this factor is; above one it says which patch.
    where:  a tensor and the axis of it that has this size.
    """

    kind: int | str
    size: Dim
    stride: int = 1
    where: tuple[Value, int] | None = field(default=None, compare=False)

    def length(self, g: Builder) -> Value:
        """The size as a vector of one."""
        if isinstance(self.size, int):
            return g.ints([self.size])
        if self.where is None:
            raise ValueError("a size that is not known and to be found nowhere")
        value, axis = self.where
        return g.shape(value, axis, axis + 1)

    def split(self, inner: int) -> tuple[Factor, Factor]:
        """Which of the parts of `inner` elements, and where in it."""
        assert isinstance(self.size, int)
        outer = replace(self, size=self.size // inner, stride=self.stride * inner, where=None)
        return outer, replace(self, size=inner, where=None)


Axis = tuple[Factor, ...]


def regrouped(factors: Sequence[Factor], y: Value) -> tuple[Axis, ...] | None:
    """The axes of a tensor that holds these factors in this order; None where they cannot be told.

    Sizes in numbers are taken off from the front, then from the back; one axis in between may have any size.
    """
    left, dims = list(factors), list(y.shape)
    front: list[Axis] = []
    while dims:
        axis = _taken(left, dims[0], back=False)
        if axis is None:
            break
        front.append(axis)
        dims.pop(0)
    rear: list[Axis] = []
    while dims:
        axis = _taken(left, dims[-1], back=True)
        if axis is None:
            break
        rear.insert(0, axis)
        dims.pop()
    middle = _remaining(left, dims)
    if middle is None:
        return None
    axes = [*front, *middle, *rear]
    if not dims and left:
        axes[-1] = (*axes[-1], *left)
    return tuple(_joined(axis) for axis in axes)


def _remaining(left: list[Factor], dims: Sequence[Dim]) -> list[Axis] | None:
    """What is left for axes whose sizes are not known in numbers."""
    if not dims:
        return [] if all(factor.size == 1 for factor in left) else None
    if len(dims) == 1 and not isinstance(dims[0], int):
        return [tuple(left)]
    if len(dims) == len(left) and not any(isinstance(d, int) for d in (*dims, *(f.size for f in left))):
        return [(factor,) for factor in left]
    return None


def _taken(left: list[Factor], size: Dim, *, back: bool) -> Axis | None:
    """Factors of that size together, taken off one end; None where that end does not give it."""
    at = -1 if back else 0
    if not isinstance(size, int):
        return (left.pop(at),) if size is not None and left and left[at].size == size else None
    if size == 1:
        return (left.pop(at),) if left and left[at].size == 1 else ()
    rest, need = list(left), size
    taken: list[Factor] = []
    while need > 1:
        if not rest or not isinstance(rest[at].size, int):
            return None
        factor = rest.pop(at)
        have = int(factor.size or 0)
        if have and need % have == 0:
            need //= have
        elif have and have % need == 0 and factor.kind != TOKENS:
            outer, inner = factor.split(need if back else have // need)
            factor = inner if back else outer
            rest.insert(len(rest) if back else 0, outer if back else inner)
            need = 1
        else:
            return None
        taken.insert(0 if back else len(taken), factor)
    left[:] = rest
    return tuple(taken)


def _joined(axis: Axis) -> Axis:
    """Neighbours that were one factor made one again."""
    joined: list[Factor] = []
    for factor in axis:
        last = joined[-1] if joined else None
        if last is not None and isinstance(last.size, int) and isinstance(factor.size, int):
            of_one = isinstance(factor.kind, int) and last.stride == factor.size * factor.stride
            if last.kind == factor.kind and (of_one or factor.kind == CHANNEL):
                joined[-1] = replace(factor, size=last.size * factor.size, where=None)
                continue
        joined.append(factor)
    return tuple(joined)
