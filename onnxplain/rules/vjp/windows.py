"""What convolution and pooling have in common: how what a window reads is put back, and counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.ir.window import Window


def transposed(g: Builder, dy: Value, w: Value, x: Value, window: Window, group: int) -> Value:
    """The transpose of the convolution that made dy from x, cut to the extent of x.

    Pads stay symmetric, since runtimes place a ConvTranspose with others off the GPU; what is left over is cut off.
    Where sizes are unknown, output_padding of stride - 1 covers every remainder that the forward division dropped.
    """
    axes = list(x.spatial)
    low = [min(b, e) for b, e in zip(window.before, window.after, strict=True)]
    start = [b - p for b, p in zip(window.before, low, strict=True)]
    extra = []
    for i, axis in enumerate(axes):
        have, want, slack = dy.shape[axis], x.shape[axis], window.strides[i] - 1
        if isinstance(have, int) and isinstance(want, int):
            reached = (have - 1) * window.strides[i] + window.reach[i] - 2 * low[i]
            slack = min(max(start[i] + want - reached, 0), slack)
        extra.append(slack)
    full = g.op(
        "ConvTranspose", dy, w, strides=window.strides, dilations=window.dilations, group=group,
        pads=[*low, *low], output_padding=extra if any(extra) else None,
    )  # fmt: skip
    exact = window.before == window.after and all(k == 1 for k in window.strides)
    return cut(g, full, x, start, exact=exact)


def cut(g: Builder, full: Value, like: Value, start: Sequence[int], *, exact: bool = False) -> Value:
    """The window of `full` that begins at `start` and has the extent of `like`, padded where it is too short.

    `exact` says that with start 0 the extent is right already, whatever the sizes are.
    """
    axes = list(like.spatial)
    sizes, wants = [full.shape[a] for a in axes], [like.shape[a] for a in axes]
    if all(isinstance(n, int) for n in (*sizes, *wants)):
        after = [int(w or 0) + b - int(n or 0) for n, w, b in zip(sizes, wants, start, strict=True)]
        return g.pad(full, [-b for b in start], after, axes)
    if exact and not any(start):
        return full
    begin = g.ints(start)
    return g.slice(full, begin, begin + g.sizes(like, axes), axes)


def spread(g: Builder, share: Value, x: Value, window: Window) -> Value:
    """Add each window's share to every element of x under it: the transpose of summing windows.

    Shapes: share (N, C, *T), x (N, C, *S) -> (N, C, *S).
    """
    ones = g.constant(np.ones([1, 1, *window.kernel], share.dtype))
    planes = transposed(g, _planes(g, share), ones, _planes(g, x), window, group=1)
    return g.reshape(planes, g.target_shape(x))


def counts(g: Builder, s: Site, dy: Value, window: Window, *, pads_too: bool) -> Value:
    """How many elements lie under each window, as (1, 1, *T); `pads_too` says whether padding counts.

    With ceil_mode, windows reach past the padding, where nothing counts.
    """
    x = s[0]
    one, sizes = g.constant(np.ones([1] * x.rank, dy.dtype)), g.sizes(x, list(x.spatial))
    before, after = window.before, window.after
    past = [stride - 1 if s.attr("ceil_mode", 0) else 0 for stride in window.strides]
    if pads_too:
        sizes = sizes + g.ints([b + a for b, a in zip(before, after, strict=True)])
        before, after = [0] * len(past), [0] * len(past)
    inside = g.op("Expand", one, g.concat([g.ints([1, 1]), sizes], axis=0))
    padded = g.pad(inside, before, [a + p for a, p in zip(after, past, strict=True)], list(x.spatial))
    ones = g.constant(np.ones([1, 1, *window.kernel], dy.dtype))
    found = g.op("Conv", padded, ones, strides=window.strides, dilations=window.dilations)
    return cut(g, found, dy, [0] * len(past), exact=not any(past))


def _planes(g: Builder, x: Value) -> Value:
    """(N, C, *S) as (N C, 1, *S)."""
    return g.reshape(x, g.concat([g.ints([-1, 1]), g.sizes(x, list(x.spatial))], axis=0))
