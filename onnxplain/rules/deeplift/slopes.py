"""Functions of one number: their mean slope between two points, which is what Rescale and RevealCancel ask for.

A quotient of two small differences is rounding alone. Piecewise linear functions have a form without such differences:
their slope changes at kinks, and the share of a way that lies beyond a kink is a quotient of sums. One that returns its
input or a bound needs no such form, since nothing is rounded between the two differences. For smooth functions
the mean of the derivatives at both ends takes over where the points are near: it differs from the quotient by the
square of their distance, which is below rounding long before the quotient is lost in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import ml_dtypes
import numpy as np

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Operand, Value

Secant = Callable[[Builder, Site, Site, Value], Value]
"""secant(g, a, b, m): m times the mean slope of a function between a and b, the same site at two inputs."""


def secant_of(op: str, threshold: float) -> Secant:
    """The mean slope of an operator; `threshold` is the distance below which derivatives take over."""
    if op in _BY_KINKS:
        slope = _BY_KINKS[op]
        return lambda g, a, b, m: m * slope(g, a, b)
    way = threshold * _SHARE.get(op, 1)
    return blend(way) if op in BOUNDED else quotient(way, BENDING_WITHIN.get(op))


JUMPS = frozenset({"ThresholdedRelu", "Shrink", "Mod"})
"""Functions with jumps, which no derivative knows of: only at a distance of zero does it take over."""

BENDS = frozenset({"Elu", "Selu", "Celu"})
"""Functions whose derivative, or its slope, jumps at zero: it takes over later, where the jump weighs less."""

BENDING_WITHIN: Mapping[str, Callable[[Value], Value]] = {
    **dict.fromkeys(("Log", "Pow"), abs),
    **dict.fromkeys(("Asin", "Acos", "Atanh"), lambda x: 1 - abs(x)),
    "Acosh": lambda x: x - 1,
    "Tan": lambda x: abs(x.g.op("Cos", x)),
}
"""Functions that bend over distances in proportion to how far a pole or the end of their domain is, not of one."""

BOUNDED = frozenset({"Sigmoid", "Tanh", "Softplus", "Softsign", "Gelu", "Mish", "Erf", "Sin", "Cos"}) | JUMPS | BENDS
"""Functions whose derivative is finite everywhere, so that zero times it is zero."""

_SHARE = dict.fromkeys(JUMPS, 0.0) | dict.fromkeys(BENDS, 0.02)


def quotient(threshold: float, within: Callable[[Value], Value] | None = None) -> Secant:
    """Dy/Dx, and the mean of both derivatives where Dx is no larger than `threshold`, or that times `within`(x)."""

    def secant(g: Builder, a: Site, b: Site, m: Value) -> Value:
        signal = a.varying.index(True)
        dx = a[signal] - b[signal]
        near = abs(dx) <= (threshold if within is None else within(a[signal]) * threshold)
        return g.where(near, _limit(g, a, b, m, signal), m * ((a.y - b.y) / g.where(near, 1, dx)))

    return secant


def blend(threshold: float) -> Secant:
    """The same by products with 0 and 1, which take ONNX Runtime's CPU a hundredth of the time of a choice."""

    def secant(g: Builder, a: Site, b: Site, m: Value) -> Value:
        signal = a.varying.index(True)
        dx = a[signal] - b[signal]
        far = g.mask(abs(dx) > threshold, dx)
        near = 1 - far
        return _limit(g, a, b, m, signal) * near + m * far * ((a.y - b.y) / (dx * far + near))

    return secant


def _limit(g: Builder, a: Site, b: Site, m: Value, signal: int) -> Value:
    return 0.5 * (_derivative(g, a, m, signal) + _derivative(g, b, m, signal))


def _derivative(g: Builder, s: Site, m: Value, signal: int) -> Value:
    flow = s.vjp(g, m)[s.wrt.index(signal)]
    if flow is None:
        raise s.refused("by the operand that depends on the input")
    return flow


def beyond(g: Builder, a: Value, b: Value, a_rectified: Value | None = None, b_rectified: Value | None = None) -> Value:
    """Which share of the way from b to a lies above zero: (a+ + b+) / (|a| + |b|), and 0 where both are zero.

    It is 1 where both are positive, 0 where neither is, however near they are.
    """
    size = abs(a) + (abs(b) + _least(a))
    return (
        (g.relu(a) if a_rectified is None else a_rectified) + (g.relu(b) if b_rectified is None else b_rectified)
    ) / size


_READ_AS_ZERO_BELOW = 2.0**-126
"""ONNX Runtime leaves out the sum with a constant that is zero in single precision, whatever type the constant has."""


def _least(x: Value) -> float:
    """A number below all that matters in the dtype of x, to divide by instead of zero."""
    return min(max(float(ml_dtypes.finfo(x.dtype).tiny), _READ_AS_ZERO_BELOW), 1e-7)  # type: ignore[no-untyped-call]


def _past(g: Builder, a: Site, b: Site, kink: Operand) -> Value:
    """Which share of the way lies beyond a kink."""
    return beyond(g, a[0] - kink, b[0] - kink)


def _relu(g: Builder, a: Site, b: Site) -> Value:
    return beyond(g, a[0], b[0], a.y, b.y)


def _leaky_relu(g: Builder, a: Site, b: Site) -> Value:
    alpha = float(a.attr("alpha", 0.01))
    return beyond(g, a[0], b[0]) * (1 - alpha) + alpha


def _prelu(g: Builder, a: Site, b: Site) -> Value:
    return (1 - a[1]) * beyond(g, a[0], b[0]) + a[1]


def _abs(g: Builder, a: Site, b: Site) -> Value:
    """(x + x0) / (|x| + |x0|), as for a sum of magnitudes; nothing where both are zero."""
    return (a[0] + b[0]) / (abs(a[0]) + (abs(b[0]) + _least(a[0])))


def _clip(g: Builder, a: Site, b: Site) -> Value:
    """|Dy| / |Dx|, which keeps its digits however near the points are: within the bounds both differences are the same
    number, and across one of them no digit cancels. Where the points are one, the derivative takes over.

    It is held to 1, should a runtime round y and x at different places; in half precision ONNX Runtime does, and the
    shares of the way beyond either bound, in which nothing cancels, are taken instead.
    """
    if np.dtype(a.node.outputs[0].dtype).itemsize < 4:
        return _clip_by_shares(g, a, b)
    least = _least(a.y)
    resting = _derivative(g, b, g.constant(least, a.y.dtype), 0)
    return g.clip((abs(a.y - b.y) + resting) / (abs(a[0] - b[0]) + least), 0, 1)


def _clip_by_shares(g: Builder, a: Site, b: Site) -> Value:
    """From slope 0 to 1 at the lower bound, and back at the upper, which wins where it is the lower."""
    low, high = a.optional(1), a.optional(2)
    if low is None:
        return g.full_like(a[0], 1) if high is None else 1 - _past(g, a, b, high)
    return _past(g, a, b, low) - _past(g, a, b, g.maximum(high, low)) if high is not None else _past(g, a, b, low)


def _hard_sigmoid(g: Builder, a: Site, b: Site) -> Value:
    alpha, beta = float(a.attr("alpha", 0.2)), float(a.attr("beta", 0.5))
    if alpha == 0:
        return g.full_like(a[0], 0)
    low, high = sorted((-beta / alpha, (1 - beta) / alpha))
    return (_past(g, a, b, low) - _past(g, a, b, high)) * alpha


def _hard_swish(g: Builder, a: Site, b: Site) -> Value:
    """x h(x), h a hard sigmoid: by the symmetric product rule."""
    h, h0 = (g.op("HardSigmoid", each[0], alpha=1 / 6, beta=0.5) for each in (a, b))
    slope = (_past(g, a, b, -3.0) - _past(g, a, b, 3.0)) * (1 / 6)
    return 0.5 * (h + h0) + 0.5 * (a[0] + b[0]) * slope


_BY_KINKS: dict[str, Callable[[Builder, Site, Site], Value]] = {
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Abs": _abs,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
}
