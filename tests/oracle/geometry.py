"""Where the windows of convolutions and pools lie: strides, dilations and explicit padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .registry import Op


@dataclass(frozen=True)
class Windows:
    """One entry for each spatial axis; `extent` is a window's size with its dilation."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begin: list[int]
    end: list[int]

    @property
    def extent(self) -> list[int]:
        return [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]


def windows(op: Op, size: Sequence[int], kernel: Sequence[int]) -> Windows:
    """Read the window attributes, with auto_pad made explicit for an input of this spatial size."""
    rank = len(size)
    strides, dilations = op.integers("strides", [1] * rank), op.integers("dilations", [1] * rank)
    pads = op.integers("pads", [0] * 2 * rank)
    begin, end = pads[:rank], pads[rank:]
    how = op.text("auto_pad", "NOTSET")
    if how == "VALID":
        begin, end = [0] * rank, [0] * rank
    elif how.startswith("SAME"):
        extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        total = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(size, strides, extent, strict=True)]
        begin, end = halves(total, larger_end=how == "SAME_UPPER")
    return Windows(list(kernel), strides, dilations, begin, end)


def halves(total: Sequence[int], *, larger_end: bool) -> tuple[list[int], list[int]]:
    """Share padding between both ends; an odd one goes to the end, or to the beginning."""
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (small, large) if larger_end else (large, small)


def overhang(op: Op, size: Sequence[int], w: Windows) -> list[int]:
    """How far ceil_mode's last window reaches past the padded input.

    A window that would start in the padding at the end is dropped, as ONNX (since opset 22, for all) and torch do.
    """
    if not op.integer("ceil_mode", 0) or op.text("auto_pad", "NOTSET").startswith("SAME"):
        return [0] * len(size)
    past = []
    for n, s, e, begin, end in zip(size, w.strides, w.extent, w.begin, w.end, strict=True):
        count = -(-(n + begin + end - e) // s) + 1
        if (count - 1) * s >= n + begin:
            count -= 1
        past.append(max((count - 1) * s + e - (n + begin + end), 0))
    return past


def pad(x: Tensor, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad the trailing axes with a constant, or cut them where the amount is negative."""
    if not any(begin) and not any(end):
        return x
    amounts = [amount for pair in reversed(list(zip(begin, end, strict=True))) for amount in pair]
    return F.pad(x, amounts, value=value)


def window_sum(x: Tensor, w: Windows) -> Tensor:
    """The sum over each window of an input that is already padded: a convolution with ones, channel by channel."""
    rank = len(w.kernel)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    ones = torch.ones(1, 1, *w.kernel, dtype=x.dtype)
    y = convolve(x.reshape(-1, 1, *x.shape[2:]), ones, None, w.strides, [0] * rank, w.dilations)
    return y.reshape(*x.shape[:2], *y.shape[2:])
