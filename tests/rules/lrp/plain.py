"""Operators without weights, as relevance passes them: loops over elements, in float64, for a batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.rules.lrp.dense import stabilised

Floats = NDArray[np.float64]
Place = tuple[int, ...]
Flow = Callable[[Floats, Floats], Floats]
"""(x, the relevance that arrives) -> the relevance of x."""

EPS = 1e-6


@dataclass(frozen=True)
class Windows:
    """How a pool slides; `ceil` lets the last window begin inside and end outside."""

    kernel: Sequence[int]
    strides: Sequence[int]
    pads: Sequence[int]
    dilations: Sequence[int]
    ceil: bool = False

    def over(self, size: Sequence[int]) -> Iterator[tuple[Place, list[Place]]]:
        """(output place, the input places that lie under its window)."""
        n = len(size)
        counts = []
        for a in range(n):
            room = size[a] + self.pads[a] + self.pads[a + n] - (self.kernel[a] - 1) * self.dilations[a] - 1
            count = -(-room // self.strides[a]) + 1 if self.ceil else room // self.strides[a] + 1
            if self.ceil and (count - 1) * self.strides[a] >= size[a] + self.pads[a]:
                count -= 1  # a window that begins in the padding at the end is none
            counts.append(count)
        for t in itertools.product(*map(range, counts)):
            under = []
            for k in itertools.product(*map(range, self.kernel)):
                at = tuple(t[a] * self.strides[a] + k[a] * self.dilations[a] - self.pads[a] for a in range(n))
                if all(0 <= at[a] < size[a] for a in range(n)):
                    under.append(at)
            yield t, under


def winner_takes_all(windows: Windows) -> Flow:
    def flow(x: Floats, r: Floats) -> Floats:
        found = np.zeros_like(x)
        for n, c in np.ndindex(*x.shape[:2]):
            for t, under in windows.over(x.shape[2:]):
                best = max(under, key=lambda at: x[(n, c, *at)])
                found[(n, c, *best)] += r[(n, c, *t)]
        return found

    return flow


def in_proportion(windows: Windows, whole: int | None = None) -> Flow:
    """Each window's relevance in proportion to the values under it; they are divided by `whole`, or by their number."""

    def flow(x: Floats, r: Floats) -> Floats:
        found = np.zeros_like(x)
        for n, c in np.ndindex(*x.shape[:2]):
            for t, under in windows.over(x.shape[2:]):
                count = whole or len(under)
                mean = sum(x[(n, c, *at)] for at in under) / count
                for at in under:
                    found[(n, c, *at)] += x[(n, c, *at)] / count / stabilised(mean, EPS) * r[(n, c, *t)]
        return found

    return flow


def shared(*parts: Floats, r: Floats) -> list[Floats]:
    """The relevance of a sum, among the parts in proportion."""
    total = np.sum(np.stack(np.broadcast_arrays(*parts)), axis=0)
    divisor = np.vectorize(lambda t: stabilised(float(t), EPS))(total)
    return [part / divisor * r for part in parts]


def centred(x: Floats) -> Floats:
    return x - x.mean(axis=-1, keepdims=True)


def layer_norm(scale: Floats, bias: Floats, epsilon: float) -> Flow:
    """y = w x / deviation + b with w[j, i] = scale[j] (1 if i == j, minus 1/n): the deviation counts as a constant."""

    def flow(x: Floats, r: Floats) -> Floats:
        n = x.shape[-1]
        found = np.zeros_like(x)
        for at in np.ndindex(*x.shape[:-1]):
            deviation = np.sqrt(centred(x[at]).var() + epsilon)
            w = scale[:, None] * (np.eye(n) - 1 / n) / deviation
            y = w @ x[at] + bias
            for j in range(n):
                found[at] += w[j] * x[at] / stabilised(y[j], EPS) * r[at][j]
        return found

    return flow


def product(a: Floats, b: Floats, r: Floats) -> tuple[Floats, Floats]:
    """Every term a[i, k] b[k, j] of a matrix product gives half of its relevance to each factor."""
    of_a, of_b = np.zeros_like(a), np.zeros_like(b)
    for at in np.ndindex(*a.shape[:-2]):
        for i, j in np.ndindex(a.shape[-2], b.shape[-1]):
            y = sum(a[at][i, k] * b[at][k, j] for k in range(a.shape[-1]))
            for k in range(a.shape[-1]):
                half = a[at][i, k] * b[at][k, j] / stabilised(2 * y, EPS) * r[at][i, j]
                of_a[at][i, k] += half
                of_b[at][k, j] += half
    return of_a, of_b


def softmax(x: Floats, r: Floats) -> Floats:
    """x_i (R_i - y_i sum R), over the last axis."""
    found = np.zeros_like(x)
    for at in np.ndindex(*x.shape[:-1]):
        weights = np.exp(x[at] - x[at].max())
        y = weights / weights.sum()
        for i in range(x.shape[-1]):
            found[at][i] = x[at][i] * (r[at][i] - y[i] * r[at].sum())
    return found
