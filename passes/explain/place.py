"""One place of an output that holds a score for each class at each token or pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxplain.errors import UsageError
from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value, shown
from onnxplain.passes.explain.factors import CHANNEL
from onnxplain.passes.explain.grid import Grid

MEAN = "mean"


@dataclass(frozen=True)
class Place:
    """Where in the scores to look.

    axis: that of the classes.
    at:   an index along each of the other axes but the batch, MEAN for the mean over them, None where none is needed.
    """

    axis: int
    at: tuple[int, ...] | str | None

    def scores(self, g: Builder, scores: Value) -> Value:
        """The scores there, (N, classes)."""
        others = [axis for axis in range(1, scores.rank) if axis != self.axis]
        if not others:
            return scores
        if self.at == MEAN:
            return g.mean(scores, others, keepdims=False)
        if isinstance(self.at, tuple):
            scores = g.slice(scores, list(self.at), [i + 1 for i in self.at], others)
        return g.squeeze(scores, others)


def place_of(scores: Value, at: str | None, class_axis: int | None, told: int | None, grid: Grid | None) -> Place:
    """Which axis of the scores (N, ...) holds the classes, and where to look along the others.

    at:         "mean", or an index for each axis that is neither batch nor classes, separated by commas.
    class_axis: as asked for; else the softmax behind the scores tells (`told`), or what the axes are known to hold.
    Raises:     UsageError where it cannot be told, or there is no such place.
    """
    axis = _class_axis(scores, class_axis, told, grid)
    others = [i for i in range(1, scores.rank) if i != axis]
    sizes = [scores.shape[i] for i in others]
    if at is None:
        if any(size != 1 for size in sizes):
            raise UsageError(
                f"the scores {scores.name!r} have shape {shown(scores.shape)}: classes along axis {axis}, and a score "
                f"each for every place along {'axis' if len(others) == 1 else 'axes'} {', '.join(map(str, others))}.\n"
                f"  Say which place to explain: --at {','.join('0' * len(others))} or the like, or --at {MEAN} for the "
                "mean over all. If another axis holds the classes, say --class-axis."
            )
        return Place(axis, None)
    if not others:
        raise UsageError(
            f"the scores {scores.name!r} have shape {shown(scores.shape)}: one for each class and no places to choose "
            "from.\n  Leave --at out."
        )
    return Place(axis, MEAN if at.strip() == MEAN else _indices(at, sizes))


def _indices(at: str, sizes: Sequence[int | str | None]) -> tuple[int, ...]:
    parts = [part.strip() for part in at.split(",")]
    if len(parts) != len(sizes) or not at.isascii() or not all(part.isdecimal() for part in parts):
        known = ", ".join("?" if size is None else str(size) for size in sizes)
        raise UsageError(
            f"--at takes {MEAN}, or {len(sizes)} numbers from 0 separated by commas (sizes {known}), not {at!r}."
        )
    indices = tuple(int(part) for part in parts)
    for index, size in zip(indices, sizes, strict=True):
        if isinstance(size, int) and index >= size:
            raise UsageError(f"--at {at}: place {index} is out of range: there are {size}, from 0 to {size - 1}.")
    return indices


def _class_axis(scores: Value, asked: int | None, told: int | None, grid: Grid | None) -> int:
    if asked is not None:
        if not -scores.rank < asked < scores.rank or asked == 0 or asked + scores.rank == 0:
            raise UsageError(
                f"--class-axis {asked}: the scores have shape {shown(scores.shape)}, and the classes lie along one of "
                f"axes 1 to {scores.rank - 1}."
            )
        return asked % scores.rank
    if told is not None:
        return told % scores.rank
    wide = [axis for axis in range(1, scores.rank) if scores.shape[axis] != 1]
    if len(wide) < 2:
        return wide[0] if wide else 1
    if grid is not None and grid.roles.count(CHANNEL) == 1:
        return grid.roles.index(CHANNEL)
    return 2 if scores.rank == 3 else 1
