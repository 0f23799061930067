"""Running more samples than a graph of a fixed batch takes at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from onnxplain.errors import UsageError
from onnxplain.runtime.feeds import Array, cut

Results = dict[str, Array]


def in_portions(
    run: Callable[[Mapping[str, Array]], Results],
    feeds: Mapping[str, Array],
    axes: Mapping[str, int | None],
    *,
    count: int,
    size: int,
) -> Results:
    """Run `count` samples, `size` at a time; the last portion is filled up with the last sample.

    axes: along which axis each input holds the samples; None for one that all of them share.
          What an output holds its first size tells: one that lacks the batch must be the same in every portion, since
          portions of anything else cannot be told apart.
    Raises: UsageError naming an output that lacks the batch and differs, or one that is a sequence.
    """
    portions = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        portions.append(run({name: cut(array, axes[name], rows) for name, array in feeds.items()}))
    joined: Results = {}
    for name, first in portions[0].items():
        arrays = [portion[name] for portion in portions]
        if len(portions) == 1 and count == size:
            joined[name] = first
        elif isinstance(first, list):
            raise UsageError(
                f"the graph takes {size} samples at a time, and its output {name!r} is a sequence, which cannot be put "
                f"together for {count}.\n  Pass {size} samples at a time."
            )
        elif first.shape[:1] == (size,):
            joined[name] = np.concatenate(arrays)[:count]
        elif all(_same(first, array) for array in arrays):
            joined[name] = first
        else:
            raise UsageError(
                f"the graph takes {size} samples at a time, and its output {name!r} {first.shape} holds one thing for "
                f"all of them, so that of {count} samples has no meaning.\n"
                f"  Pass at most {size} samples at a time."
            )
    return joined


def _same(one: Array, other: Array) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
