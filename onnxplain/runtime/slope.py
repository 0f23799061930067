"""Finite differences: whether an attribution is the slope of the explained score.

Float32 bounds what can be asked. A step that is too small drowns in rounding, one that is too large crosses the kinks
of piecewise linear networks, so several are tried and the best counts: a wrong gradient agrees with none of them. The
sample is moved by a little noise first, since a picture has flat parts, where the largest of equal values has no slope.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxplain import interface
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.feeds import Array

SLOPES = ("gradient", "gradient-x-input")
"""The methods whose attribution is a derivative."""

TOLERANCE = 0.2
"""Of the slopes' root mean square. A right gradient comes within some hundredths, a wrong one is off by far more."""

ENOUGH = 0.02
"""Below this no other step is tried."""

STEPS = (3e-4, 1e-4, 1e-3, 3e-5, 3e-3)
"""Of the samples' root mean square, in the order in which they are tried."""

NOISE = 0.03
"""Of the samples' root mean square."""

DIRECTIONS = 4


def slope_error(explain: Explainer, method: str, batch: Array, fed: Mapping[str, Array], seed: int = 0) -> float | None:
    """How far slopes measured along random directions are from what the attribution says.

    method: one of `SLOPES`, which the graph explains by.
    fed:    what else the graph takes, as for a call.

    Returns: the median over samples and directions of |measured - said| over the slopes' root mean square, of the best
             step; None if every step changes the explained class.
    """
    several = "," in explain.metadata.method
    attributed = explain.key(interface.ATTRIBUTION + (f"_{method}" if several else ""))
    score, explained = explain.key(interface.SCORE), explain.key(interface.CLASS)
    rng = np.random.default_rng(seed)
    size = np.sqrt(np.mean(batch.astype(np.float64) ** 2)) or 1.0
    x = (batch + NOISE * size * rng.standard_normal(batch.shape)).astype(batch.dtype)
    ways = rng.standard_normal((DIRECTIONS, *batch.shape))
    # The gradient times the input says what a relative change of each value does.
    changes, scale = (ways * x, 1.0) if method == "gradient-x-input" else (ways * size, size)
    result = explain(x, **fed)
    classes = result[explained].reshape(len(x), -1)
    attribution = result[attributed].astype(np.float64).reshape(*classes.shape, -1)
    said = scale * np.einsum("nki,dni->dnk", attribution, ways.reshape(DIRECTIONS, len(x), -1))
    errors: list[float] = []
    for step in STEPS:
        measured = np.full(said.shape, np.nan)
        for d, change in enumerate(changes):
            up, down = (explain((x + sign * step * change).astype(x.dtype), **fed) for sign in (1, -1))
            difference = (up[score].astype(np.float64) - down[score]).reshape(classes.shape) / (2 * step)
            kept = (up[explained].reshape(classes.shape) == classes) & (
                down[explained].reshape(classes.shape) == classes
            )
            measured[d] = np.where(kept, difference, np.nan)
        errors += _median_error(measured, said)
        if errors and min(errors) <= ENOUGH:
            break
    return min(errors) if errors else None


def _median_error(measured: Array, said: Array) -> list[float]:
    """The median error over the slopes' size; nothing where the class changed everywhere."""
    kept = np.isfinite(measured)
    if not kept.any():
        return []
    size = np.sqrt(np.mean(np.concatenate([measured[kept], said[kept]]) ** 2))
    return [float(np.median(np.abs(measured - said)[kept]) / size) if size else 0.0]
