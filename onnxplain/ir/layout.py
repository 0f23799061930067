"""Which axis of the explained input holds channels, and which are space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxplain.errors import UsageError

LAYOUTS = ("auto", "channels-first", "channels-last")
_ELEMENTWISE = frozenset(
    {"Identity", "Cast", "Add", "Sub", "Mul", "Div", "Neg", "Dropout", "BatchNormalization", "Pad"}
)
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
        return "channels-last" if self.channel == self.rank - 1 else "channels-first"


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


def layout_of(x: gs.Tensor, asked: str = "auto") -> Layout:
    """The layout of a model's input.

    What the network does with the input decides: a convolution reads axis 1 as channels, a Transpose before it says
    which axis that was. Where neither tells, an axis of 1, 3 or 4 does, and channels come first in doubt.

    Raises: UsageError for a layout that does not exist.
    """
    if asked not in LAYOUTS:
        raise UsageError(f"there is no layout {asked!r}. The layouts are: {', '.join(LAYOUTS)}.")
    rank = len(x.shape)
    if rank <= 2:
        return Layout(rank, None)
    if asked != "auto":
        return Layout(rank, 1 if asked == "channels-first" else rank - 1)
    channel = _channel_by_use(x)
    return Layout(rank, _channel_by_size(x.shape) if channel is None else channel)


def _channel_by_use(x: gs.Tensor) -> int | None:
    """Follow the input through elementwise operators to the first convolution."""
    axes = list(range(len(x.shape)))
    tensor = x
    while True:
        consumers = {node.op: node for node in tensor.outputs}
        if "Conv" in consumers:
            return axes[1]
        if "Transpose" in consumers:
            node = consumers["Transpose"]
            axes = [axes[a] for a in node.attrs.get("perm", axes[::-1])]
        elif len(consumers) == 1 and next(iter(consumers)) in _ELEMENTWISE:
            node = next(iter(consumers.values()))
        else:
            return None
        tensor = node.outputs[0]


def _channel_by_size(shape: Sequence[int | str | None]) -> int:
    if shape[1] not in _USUAL_CHANNELS and shape[-1] in _USUAL_CHANNELS:
        return len(shape) - 1
    return 1
