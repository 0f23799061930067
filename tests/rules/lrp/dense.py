"""LRP's rules written slowly and plainly in float64, for one sample: a layer is a matrix, relevance a vector.

Nothing of the project is used here. `z[j, i] = w[j, i] x[i]` is what input i contributes to output j.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Dense:
    """y = w x + b for one sample, everything flattened. low, high: bounds of x, for the box rule."""

    w: Matrix
    b: Vector
    x: Vector
    low: Vector
    high: Vector

    @property
    def z(self) -> Matrix:
        return self.w * self.x[None, :]

    @property
    def y(self) -> Vector:
        return self.z.sum(axis=1) + self.b


Rule = Callable[[Dense, Vector], Vector]


def stabilised(total: float, eps: float) -> float:
    if eps == 0:
        return total if total != 0 else 1.0
    return total + eps if total >= 0 else total - eps


def shared(contributions: Matrix, totals: Vector, relevance: Vector, eps: float) -> Vector:
    """Each output's relevance, among the inputs in proportion to what they contribute to its total."""
    found = np.zeros(contributions.shape[1])
    for j in range(len(relevance)):
        found += contributions[j] / stabilised(totals[j], eps) * relevance[j]
    return found


def epsilon(eps: float, bias: bool = True) -> Rule:
    """Bach et al. 2015, eq. 58; survey eq. 12 and 13."""

    def rule(d: Dense, r: Vector) -> Vector:
        return shared(d.z, d.z.sum(axis=1) + d.b * bias, r, eps)

    return rule


def relative_epsilon(share: float) -> Rule:
    def rule(d: Dense, r: Vector) -> Vector:
        return shared(d.z, d.y, r, share * float(np.sqrt((d.y**2).mean())) + 1e-9)

    return rule


def alpha_beta(alpha: float, beta: float, eps: float, bias: bool = True) -> Rule:
    """Bach et al. 2015, eq. 60; survey eq. 15."""

    def rule(d: Dense, r: Vector) -> Vector:
        b = d.b * bias
        up, down = np.maximum(d.z, 0), np.minimum(d.z, 0)
        positive = shared(up, up.sum(axis=1) + np.maximum(b, 0), r, eps)
        negative = shared(down, down.sum(axis=1) + np.minimum(b, 0), r, eps)
        return alpha * positive - beta * negative

    return rule


def alpha_beta_whole_bias(alpha: float, beta: float, eps: float) -> Rule:
    """iNNvestigate: each of the two denominators carries the whole bias."""

    def rule(d: Dense, r: Vector) -> Vector:
        up, down = np.maximum(d.z, 0), np.minimum(d.z, 0)
        return alpha * shared(up, up.sum(axis=1) + d.b, r, eps) - beta * shared(down, down.sum(axis=1) + d.b, r, eps)

    return rule


def gamma(value: float, eps: float) -> Rule:
    """Andéol et al. 2021; for x >= 0 and y > 0 Montavon et al. 2019 and the survey's eq. 14."""

    def rule(d: Dense, r: Vector) -> Vector:
        found = np.zeros(len(d.x))
        for j, y in enumerate(d.y):
            if y > 0:
                z, b = d.z[j] + value * np.maximum(d.z[j], 0), d.b[j] + value * max(d.b[j], 0)
            elif y < 0:
                z, b = d.z[j] + value * np.minimum(d.z[j], 0), d.b[j] + value * min(d.b[j], 0)
            else:
                continue
            found += z / stabilised(z.sum() + b, eps) * r[j]
        return found

    return rule


def box(eps: float) -> Rule:
    """Montavon et al. 2017, eq. 20: the root point lies in the box on the side that the weight's sign says."""

    def rule(d: Dense, r: Vector) -> Vector:
        z = d.z - d.low[None, :] * np.maximum(d.w, 0) - d.high[None, :] * np.minimum(d.w, 0)
        return shared(z, z.sum(axis=1), r, eps)

    return rule


def w_square(eps: float) -> Rule:
    """Montavon et al. 2017, eq. 15."""
    return lambda d, r: shared(d.w**2, (d.w**2).sum(axis=1), r, eps)


def flat(eps: float, seen: Matrix) -> Rule:
    """Evenly over what an output sees: `seen` is 1 where the operator connects an input to an output."""
    return lambda d, r: shared(seen, seen.sum(axis=1), r, eps)


def captum_gamma(value: float) -> Rule:
    """Captum 0.9's GammaRule: w + gamma w+ whatever the operand's sign, the bias as it is."""

    def rule(d: Dense, r: Vector) -> Vector:
        z = (d.w + value * np.maximum(d.w, 0)) * d.x
        return shared(z, z.sum(axis=1) + d.b, r, 1e-9)

    return rule


def captum_alpha1_beta0() -> Rule:
    """Captum 0.9's Alpha1_Beta0_Rule: w+ with the raw operand and the raw bias."""

    def rule(d: Dense, r: Vector) -> Vector:
        z = np.maximum(d.w, 0) * d.x
        return shared(z, z.sum(axis=1) + d.b, r, 1e-9)

    return rule


# Operators as matrices


Shape = Sequence[int]


def places(shape: Shape) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(n) for n in shape)))


def conv(
    w: NDArray[np.float64], size: Shape, strides: Shape, pads: Shape, dilations: Shape, group: int
) -> tuple[Matrix, Shape]:
    """The matrix of a convolution of one image (C, *size), and the output's shape (M, *T)."""
    outputs, per_group, *kernel = w.shape
    rank = len(size)
    extent = [
        (size[a] + pads[a] + pads[a + rank] - (kernel[a] - 1) * dilations[a] - 1) // strides[a] + 1 for a in range(rank)
    ]
    matrix = np.zeros((outputs, *extent, per_group * group, *size))
    for m in range(outputs):
        first = m // (outputs // group) * per_group
        for t in places(extent):
            for c in range(per_group):
                for k in places(kernel):
                    at = [t[a] * strides[a] + k[a] * dilations[a] - pads[a] for a in range(rank)]
                    if all(0 <= at[a] < size[a] for a in range(rank)):
                        matrix[(m, *t, first + c, *at)] += w[(m, c, *k)]
    return matrix.reshape(int(np.prod([outputs, *extent])), -1), [outputs, *extent]


def conv_transpose(
    w: NDArray[np.float64], size: Shape, strides: Shape, pads: Shape, dilations: Shape, group: int, extra: Shape
) -> tuple[Matrix, Shape]:
    """The matrix of a transposed convolution of one image (C, *size): every input element stamps the kernel."""
    inputs, per_group, *kernel = w.shape
    rank = len(size)
    extent = [
        (size[a] - 1) * strides[a] + (kernel[a] - 1) * dilations[a] + 1 + extra[a] - pads[a] - pads[a + rank]
        for a in range(rank)
    ]
    matrix = np.zeros((per_group * group, *extent, inputs, *size))
    for c in range(inputs):
        first = c // (inputs // group) * per_group
        for s in places(size):
            for m in range(per_group):
                for k in places(kernel):
                    at = [s[a] * strides[a] + k[a] * dilations[a] - pads[a] for a in range(rank)]
                    if all(0 <= at[a] < extent[a] for a in range(rank)):
                        matrix[(first + m, *at, c, *s)] += w[(c, m, *k)]
    return matrix.reshape(int(np.prod([per_group * group, *extent])), -1), [per_group * group, *extent]


def product(w: Matrix, shape: Shape, *, left: bool) -> tuple[Matrix, Shape]:
    """The matrix of x w, or of w x where the constant is on the left; x (..., a, b) has leading axes of its own."""
    x_rows, x_columns = shape[-2:]
    lead = list(shape[:-2])
    rows, columns = (w.shape[0], x_columns) if left else (x_rows, w.shape[1])
    matrix = np.zeros((*lead, rows, columns, *lead, x_rows, x_columns))
    for at in places(lead):
        for i in range(rows):
            for j in range(columns):
                for k in range(w.shape[1] if left else w.shape[0]):
                    if left:
                        matrix[(*at, i, j, *at, k, j)] += w[i, k]
                    else:
                        matrix[(*at, i, j, *at, i, k)] += w[k, j]
    return matrix.reshape(int(np.prod([*lead, rows, columns])), -1), [*lead, rows, columns]
