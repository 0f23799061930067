"""Which axis of the explained input holds channels, and which are space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxplain.errors import UsageError

AUTO, FIRST, LAST, NONE = "auto", "channels-first", "channels-last", "none"
_USUAL_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Layout:
    """Axes of an input (N, ...): `channel` is None where there are no channels (N, features)."""

    rank: int
    channel: int | None

    @property
    def spatial(self) -> tuple[int, ...]:
        """Axes that are neither batch nor channels."""
        return tuple(axis for axis in range(1, self.rank) if axis != self.channel)

    @property
    def name(self) -> str:
        """In a word; the axis's number where there is none for it."""
        if self.channel is None:
            return NONE
        return {1: FIRST, self.rank - 1: LAST}.get(self.channel, str(self.channel))

    @staticmethod
    def named(rank: int, name: str) -> Layout:
        """What a name, or the number of an axis, means for an input of so many axes. Raises: UsageError."""
        if name not in (FIRST, LAST, NONE) and not name.isdecimal():
            raise UsageError(
                f"there is no layout {name!r}. The layouts are: {AUTO}, {FIRST}, {LAST}, {NONE}, "
                "or the number of the axis that holds channels."
            )
        if name.isdecimal() and not 1 <= int(name) < rank:
            raise UsageError(
                f"layout {name}: the input has {rank} axes, 0 holds the batch, and one of the others may hold channels."
            )
        if name == NONE or rank <= 2:
            return Layout(rank, None)
        return Layout(rank, 1 if name == FIRST else rank - 1 if name == LAST else int(name))

    @staticmethod
    def by_size(shape: Sequence[int | str | None]) -> Layout:
        """A guess where nothing else tells: an axis of 1, 3 or 4 holds channels, axis 1 before the last before others.

        Without such an axis channels come first, but in (N, a, b), a grey picture or a table, there are none.
        """
        rank = len(shape)
        if rank <= 2:
            return Layout(rank, None)
        usual = [axis for axis in (1, rank - 1, *range(2, rank - 1)) if shape[axis] in _USUAL_CHANNELS]
        return Layout(rank, usual[0] if usual else None if rank == 3 else 1)


def refuse_other_count(what: str, count: int, x: gs.Tensor, layout: Layout) -> None:
    """Raises: UsageError if there is neither one number for all channels of an input nor one for each.

    what: which numbers, for the message. Where the count of channels is known only at run time any will do.
    """
    if layout.channel is None:
        if count != 1:
            raise UsageError(f"{what} has {count} numbers, and the input has no channels: one is needed.")
        return
    channels = x.shape[layout.channel]
    if count not in (1, channels) and isinstance(channels, int):
        raise UsageError(
            f"{what} has {count} numbers, and the input has {channels} channels: one, or one for each, is needed."
        )
