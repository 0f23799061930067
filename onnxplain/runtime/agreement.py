"""Whether two runtimes explain alike: how far apart they are, beside how far an explanation moves by itself.

Attributions jump where a ReLU or a maximum changes its mind, and no two ways to add numbers round alike. So a
difference counts only where it is more than a few times what the input's own last bits bring about.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from onnxplain.runtime.feeds import Array

ALIKE, LEEWAY = 1e-3, 5
"""Relative error; above it, how many times what an attribution moves by itself is still agreement."""

DRAWS = 4


@dataclass(frozen=True)
class Distance:
    """How far apart two attributions of one sample are, relatively; of several samples, those of the worst.

    error: ||found - expected|| / ||expected||.
    moves: the same between the expected one and itself on inputs that differ in their last bits; None where no sample's
           error is so large that it was asked.
    """

    error: float
    moves: float | None = None

    @property
    def suspect(self) -> bool:
        """Whether the error is no number, or large and not explained by how far the attribution moves anyway."""
        return not (math.isfinite(self.error) and self.error <= max(ALIKE, LEEWAY * (self.moves or 0.0)))


def distance(
    found: Array, expected: Array, batch: Array, run: Callable[[Array], Array], change: float | None = None
) -> Distance:
    """From what is expected to what was found: of the worst sample, one that is suspect before any that is not.

    A sample that moves does not excuse another.

    batch:  the inputs of both.
    run:    what made `expected` out of them.
    change: by how much inputs are moved, relatively; twice the rounding of their type by default.
    """
    errors = relative_errors(found, expected)
    if (errors <= ALIKE).all():
        return Distance(float(errors.max()))
    moves = movement(batch, run, expected, change)
    each = [Distance(float(e), float(m)) for e, m in zip(errors, moves, strict=True)]
    return max(each, key=lambda d: (d.suspect, not math.isfinite(d.error), d.error))


def relative_errors(found: Array, expected: Array) -> Array:
    """||found - expected|| / ||expected|| of each sample; 0 where both are the same, zeros too."""
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(found, expected, strict=True)]
    return np.array(
        [0.0 if np.array_equal(a, b) else np.linalg.norm(a - b) / (np.linalg.norm(b) or 1.0) for a, b in pairs]
    )


def relative_error(found: Array, expected: Array) -> float:
    """The largest of `relative_errors`; NaN if one of them is."""
    return float(relative_errors(found, expected).max())


def movement(batch: Array, run: Callable[[Array], Array], expected: Array, change: float | None = None) -> Array:
    """How far each sample's attribution goes when each number of the input grows or shrinks by so much of itself.

    The largest of four draws; 0 for integers, which have no last bits.
    """
    if batch.dtype.kind in "iub":
        return np.zeros(len(batch))
    share = change or 2 * float(ml_dtypes.finfo(batch.dtype).eps)  # type: ignore[no-untyped-call]
    draw = np.random.default_rng(1)
    signs = (draw.choice([-1, 1], batch.shape) for _ in range(DRAWS))
    wide = batch.astype(np.float64)
    moved = [run((wide * (1 + share * s)).astype(batch.dtype)) for s in signs]
    largest: Array = np.max([relative_errors(each, expected) for each in moved], axis=0)
    return largest
