"""From signed scores to a picture: how each family of methods reduces its map to (N, *spatial) in [0, 1].

Each sample is scaled by itself, and where there is nothing to show the heatmap is zero, never NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from onnxplain.errors import UnsupportedModel
from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Dim, Value, shown
from onnxplain.methods.method import Settings
from onnxplain.methods.study import Study
from onnxplain.passes.explain.grid import Views
from onnxplain.passes.explain.view import View

_ROUNDING = 2.0**-20
"""What interpolation leaves of the largest value, eight units in the last place."""


def magnitude(study: Study, settings: Settings, attribution: Value) -> Value:
    """The largest magnitude over channels (survey eq. 5, 6), over its maximum."""
    g, channel = study.g, study.layout.channel
    size = abs(attribution)
    return _over_maximum(g, size if channel is None else g.max(size, [channel], keepdims=False))


def positive(study: Study, settings: Settings, attribution: Value) -> Value:
    """The positive part of the sum over channels, over its maximum."""
    g, channel = study.g, study.layout.channel
    total = attribution if channel is None else g.sum(attribution, [channel], keepdims=False)
    return _over_maximum(g, g.relu(total))


def activation(study: Study, attribution: Value, views: Views | None) -> Value:
    """A coarse map (N, *S) upsampled to the input, from its minimum to its maximum (survey eq. 10, 26).

    A map that is the same everywhere has nothing to show; interpolation rounds it to slightly different numbers.
    Places of the input that it does not cover are zero.
    """
    g = study.g
    if attribution.dtype == np.float64:  # runtimes interpolate no doubles
        attribution = _over(g, attribution, g.max(abs(attribution), range(1, attribution.rank)))
    fine, placed = upsampled(study, attribution, views)
    fine = g.wide(fine)
    axes = range(1, fine.rank)
    low, high = g.min(fine, axes), g.max(fine, axes)
    span = high - low
    shows = span > g.maximum(abs(low), abs(high)) * _ROUNDING
    return placed((fine - low) * g.mask(shows, fine) / g.where(shows, span, 1))


def upsampled(
    study: Study, coarse: Value, views: Views | None, mode: str = "linear"
) -> tuple[Value, Callable[[Value], Value]]:
    """A coarse map (N, *S) in the input's own resolution, by interpolation.

    views: which part of each spatial dimension of the input it covers.
    mode:  "linear" (pixel centres aligned, as torch's align_corners=False) or "nearest" (as torch's).

    Returns: the part that lies in the input, and what puts zeros around it.
    Raises:  UnsupportedModel where it cannot be told where its places lie.
    """
    g, x, spatial = study.g, study.x, study.layout.spatial
    if coarse.rank - 1 != len(spatial):
        raise UnsupportedModel(
            f"the layer looked at has {coarse.rank - 1} spatial dimensions and the input {x.name!r} of shape "
            f"{shown(x.shape)} has {len(spatial)}: where a place lies in the input cannot be told.\n"
            "  Choose a method that reaches the input, such as gradient, or export the model with the input's own axes."
            f" Its channels are taken to lie so: {study.layout.name}; if that is wrong, say where with --layout."
        )
    if views is not None and all(view.whole for view in views):
        return _resized(g, coarse, g.sizes(x, spatial), mode), lambda fine: fine
    spans = [_span(view, coarse.shape[1 + i], x.shape[spatial[i]]) for i, view in enumerate(views or ())]
    if not spans or None in spans:
        raise UnsupportedModel(
            f"between the input {x.name!r} and the layer looked at the picture is cropped, padded, mirrored or put "
            "together: where a place lies in the input cannot be told.\n"
            "  Choose a method that reaches the input, such as gradient; if the model's sizes are free, export it with "
            "fixed ones."
        )
    known = [span for span in spans if span is not None]
    mirrored = [1 + i for i, view in enumerate(views or ()) if view.high < view.low]
    ends, step = g.ints([-1] * len(mirrored)), g.ints([-(2**62)] * len(mirrored))
    if mirrored:
        coarse = g.op("Slice", coarse, ends, step, g.ints(mirrored), ends)
    fine = _resized(g, coarse, g.ints([span.size for span in known]), mode)
    fine = g.slice(fine, [s.start for s in known], [s.stop for s in known], list(range(1, fine.rank)))
    around = [0, *(span.before for span in known), 0, *(span.after for span in known)]
    return fine, lambda fine: g.op("Pad", fine, g.ints(around)) if any(around) else fine


@dataclass(frozen=True)
class _Span:
    """A map along one dimension, in pixels: its size, the part of it within the input, and what is around that."""

    size: int
    start: int
    stop: int
    before: int
    after: int


def _span(view: View, cells: Dim, pixels: Dim) -> _Span | None:
    """None where sizes are free, or no pixel is covered."""
    padded = bool(view.before or view.after)
    if not isinstance(pixels, int) or (padded and not isinstance(cells, int)):
        return None
    low, high = sorted((view.low, view.high))
    before, after = (view.before, view.after) if view.low < view.high else (view.after, view.before)
    cell = (high - low) * pixels / (int(cells or 0) - before - after) if padded else Fraction(0)
    start, stop = round(low * pixels - before * cell), round(high * pixels + after * cell)
    inside = range(max(start, 0), min(stop, pixels))
    if not inside:
        return None
    return _Span(stop - start, inside.start - start, inside.stop - start, inside.start, pixels - inside.stop)


def _resized(g: Builder, coarse: Value, sizes: Value, mode: str) -> Value:
    """(N, *S) interpolated; runtimes interpolate planes and volumes, and a signal is a plane of one row."""
    planes = g.unsqueeze(coarse, [1, 2] if coarse.rank == 2 else [1])
    leading = [g.shape(planes, 0, 2), *([g.ints([1])] if coarse.rank == 2 else [])]
    how = (
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        if mode == "linear"
        else {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    )
    fine = g.op("Resize", planes, None, None, g.concat([*leading, sizes], axis=0), **how)
    return g.squeeze(fine, [1, 2] if coarse.rank == 2 else [1])


def _over_maximum(g: Builder, size: Value) -> Value:
    size = g.wide(size)
    return _over(g, size, g.max(size, range(1, size.rank)))


def _over(g: Builder, x: Value, top: Value) -> Value:
    """x / top in single precision, for which doubles may be too large or too small before."""
    return g.cast(x / g.where(top > 0, top, 1), np.float32)
