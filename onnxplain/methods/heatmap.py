"""From signed scores to a picture: how each family of methods reduces its map to (N, *spatial) in [0, 1].

Each sample is scaled by itself, and where there is nothing to show the heatmap is zero, never NaN.
"""

from __future__ import annotations

import numpy as np

from onnxplain.ir.builder import Builder
from onnxplain.ir.layout import Layout
from onnxplain.ir.value import Value


def magnitude(g: Builder, attribution: Value, layout: Layout) -> Value:
    """The largest magnitude over channels (survey eq. 5, 6), over its maximum."""
    size = abs(attribution)
    if layout.channel is not None:
        size = g.max(size, [layout.channel], keepdims=False)
    return _over_maximum(g, size)


def positive(g: Builder, attribution: Value, layout: Layout) -> Value:
    """The positive part of the sum over channels, over its maximum."""
    total = attribution if layout.channel is None else g.sum(attribution, [layout.channel], keepdims=False)
    return _over_maximum(g, g.relu(total))


def _over_maximum(g: Builder, size: Value) -> Value:
    size = g.cast(size, np.float32)
    top = g.max(size, range(1, size.rank))
    return size / g.where(top > 0, top, 1)
