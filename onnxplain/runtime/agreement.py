"""Whether two runtimes explain alike: how far apart they are, beside how far an explanation moves by itself.

Attributions jump where a ReLU or a maximum changes its mind, and no two ways to add numbers round alike. So a
difference counts only where it is more than a few times what the input's own last bits bring about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxplain.runtime.feeds import Array

ALIKE, LEEWAY = 1e-3, 5
"""Relative error; above it, how many times what an attribution moves by itself is still agreement."""

DRAWS = 4


@dataclass(frozen=True)
class Distance:
    """How far apart two attributions are, relatively.

    error: ||found - expected|| / ||expected||, the worst sample.
    moves: the same between the expected one and itself on inputs that differ in their last bits; None where the error
           is too small to ask.
    """

    error: float
    moves: float | None = None

    @property
    def suspect(self) -> bool:
        """Whether the error is large, and not explained by how far the attribution moves anyway."""
        return not self.error <= max(ALIKE, LEEWAY * (self.moves or 0.0))


def distance(
    found: Array, expected: Array, batch: Array, run: Callable[[Array], Array], change: float | None = None
) -> Distance:
    """From what is expected to what was found.

    batch:  the inputs of both.
    run:    what made `expected` out of them.
    change: by how much inputs are moved, relatively; twice the rounding of their type by default.
    """
    error = relative_error(found, expected)
    return Distance(error) if error <= ALIKE else Distance(error, movement(batch, run, expected, change))


def relative_error(found: Array, expected: Array) -> float:
    """||found - expected|| / ||expected||, the worst sample; a sample that is zero in both has none."""
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(found, expected, strict=True)]
    return max(
        float(np.linalg.norm(a - b) / (np.linalg.norm(b) or 1.0)) if not np.array_equal(a, b) else 0.0 for a, b in pairs
    )


def movement(batch: Array, run: Callable[[Array], Array], expected: Array, change: float | None = None) -> float:
    """How far an attribution goes when each number of the input grows or shrinks by so much of itself, at most.

    The largest of four draws; 0 for integers, which have no last bits.
    """
    if batch.dtype.kind in "iub":
        return 0.0
    share = change or 2 * float(np.finfo(batch.dtype).eps)
    draw = np.random.default_rng(1)
    signs = (draw.choice([-1, 1], batch.shape) for _ in range(DRAWS))
    return max(relative_error(run((batch * (1 + share * s)).astype(batch.dtype)), expected) for s in signs)
