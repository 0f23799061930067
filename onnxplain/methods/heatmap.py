"""From signed scores to a picture: how each family of methods reduces its map to (N, *spatial) in [0, 1].

Each sample is scaled by itself, and where there is nothing to show the heatmap is zero, never NaN.
"""

from __future__ import annotations

import numpy as np

from onnxplain.errors import UnsupportedModel
from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.methods.study import Study

_ROUNDING = 2.0**-20
"""What interpolation leaves of the largest value, eight units in the last place."""


def magnitude(study: Study, attribution: Value) -> Value:
    """The largest magnitude over channels (survey eq. 5, 6), over its maximum."""
    g, channel = study.g, study.layout.channel
    size = abs(attribution)
    return _over_maximum(g, size if channel is None else g.max(size, [channel], keepdims=False))


def positive(study: Study, attribution: Value) -> Value:
    """The positive part of the sum over channels, over its maximum."""
    g, channel = study.g, study.layout.channel
    total = attribution if channel is None else g.sum(attribution, [channel], keepdims=False)
    return _over_maximum(g, g.relu(total))


def activation(study: Study, attribution: Value) -> Value:
    """A coarse map (N, *S) upsampled to the input, from its minimum to its maximum (survey eq. 10, 26).

    A map that is the same everywhere has nothing to show; interpolation rounds it to slightly different numbers.
    """
    g = study.g
    fine = g.cast(upsampled(study, attribution), np.float32)
    axes = range(1, fine.rank)
    low, high = g.min(fine, axes), g.max(fine, axes)
    span = high - low
    shows = span > g.maximum(abs(low), abs(high)) * _ROUNDING
    return (fine - low) * g.mask(shows, fine) / g.where(shows, span, 1)


def upsampled(study: Study, coarse: Value, mode: str = "linear") -> Value:
    """A coarse map (N, *S) at the input's spatial size, by interpolation.

    mode: "linear" (pixel centres aligned, as torch's align_corners=False) or "nearest" (as torch's).
    """
    g = study.g
    if coarse.rank - 1 != len(study.layout.spatial):
        raise UnsupportedModel(
            f"the layer looked at has {coarse.rank - 1} spatial dimensions and the input {study.x.name!r} of shape "
            f"{study.x.shape} has {len(study.layout.spatial)}: where a place lies in the input cannot be told.\n"
            "  Choose a method that reaches the input, such as gradient, or export the model with the input's own axes."
        )
    # Runtimes interpolate planes and volumes; a signal is a plane of one row.
    planes = g.unsqueeze(coarse, [1, 2] if coarse.rank == 2 else [1])
    leading = [g.shape(planes, 0, 2), *([g.ints([1])] if coarse.rank == 2 else [])]
    sizes = g.concat([*leading, g.sizes(study.x, study.layout.spatial)], axis=0)
    how = (
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        if mode == "linear"
        else {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    )
    fine = g.op("Resize", planes, None, None, sizes, **how)
    return g.squeeze(fine, [1, 2] if coarse.rank == 2 else [1])


def _over_maximum(g: Builder, size: Value) -> Value:
    size = g.cast(size, np.float32)
    top = g.max(size, range(1, size.rank))
    return size / g.where(top > 0, top, 1)
