"""Derivatives of one-input non-linearities. A mask is taken from the output where it can be, so that the input keeps
one consumer and runtimes still fuse the activation into the layer before it.

A choice is made between numbers, and the cotangent multiplied by it: choosing between tensors element by element takes
ONNX Runtime's CPU up to a hundred times as long as a product."""

from __future__ import annotations

import math

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.rules.table import vjp

_INV_SQRT_2PI = 1 / math.sqrt(2 * math.pi)


@vjp("Relu")
def relu(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * g.mask(s.y > 0, dy),)


@vjp("LeakyRelu")
def leaky_relu(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * g.where(s[0] > 0, g.constant(1, dy.dtype), s.attr("alpha", 0.01)),)


@vjp("PRelu", wrt=(0, 1))
def prelu(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    x, slope = s[0], s[1]
    kept = dy * g.mask(x > 0, dy)
    return kept + (dy - kept) * slope, dy * g.negative_part(x)


@vjp("ThresholdedRelu")
def thresholded_relu(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * g.mask(s[0] > s.attr("alpha", 1.0), dy),)


@vjp("Shrink")
def shrink(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * g.mask(abs(s[0]) > s.attr("lambd", 0.5), dy),)


@vjp("Elu")
def elu(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """1 above zero, alpha e^x below. It is also y + alpha, but that loses its digits where y nears -alpha."""
    return (dy * _exponential(g, s[0], 1.0, s.attr("alpha", 1.0)),)


@vjp("Selu")
def selu(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    alpha, gamma = s.attr("alpha", 1.67326319217681884765625), s.attr("gamma", 1.05070102214813232421875)
    return (dy * _exponential(g, s[0], gamma, alpha * gamma),)


@vjp("Celu")
def celu(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * _exponential(g, s[0] * (1 / s.attr("alpha", 1.0)), 1.0, 1.0),)


def _exponential(g: Builder, x: Value, above: float, below: float) -> Value:
    """`above` above zero, and `below` times e^x elsewhere."""
    decay = g.exp(g.negative_part(x))
    return decay * above if above == below else decay * g.where(x > 0, g.constant(above, x.dtype), below)


@vjp("Sigmoid")
def sigmoid(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * s.y * (1 - s.y),)


@vjp("Tanh")
def tanh(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """4 e / (1 + e)^2 with e = e^(-2 |x|). It is also 1 - y^2, but of a saturated y that keeps no digit: ONNX Runtime
    computes y to 2.6e-7, and at x = 6 the slope is 2.5e-5."""
    decay = g.exp(abs(s[0]) * -2)
    once = 1 + decay
    return (dy * (4 * decay / (once * once)),)


@vjp("Softplus")
def softplus(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """1 / (1 + e^-x), not the operator Sigmoid, of which ONNX Runtime's keeps no digit far below zero."""
    return (dy / (1 + g.exp(-s[0])),)


@vjp("Softsign")
def softsign(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    away = 1 + abs(s[0])
    return (dy / (away * away),)


@vjp("HardSigmoid")
def hard_sigmoid(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * s.attr("alpha", 0.2) * g.mask((s.y > 0) & (s.y < 1), dy),)


@vjp("HardSwish")
def hard_swish(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """0 below -3, 1 above 3, (2x + 3) / 6 between."""
    x = s[0]
    bend = g.clip(x, -3, 3) * (1 / 3) - 0.5
    return (dy * g.mask(x > -3, dy) * (bend * g.mask(x < 3, dy) + 1),)


@vjp("Gelu")
def gelu(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """Exact: Phi(x) + x phi(x). Approximate: the derivative of x sigmoid(v), v = 2 a (x + b x^3)."""
    x = s[0]
    if s.attr("approximate", "none") == "tanh":
        a, b = math.sqrt(2 / math.pi), 0.044715
        square = x * x
        e, f = _parts(g, x * (2 * a + 2 * a * b * square))
        return (dy * (e + x * (2 * a + 6 * a * b * square) * e * f / (e + f)) / (e + f),)
    return (dy * (0.5 * (1 + g.erf(x * math.sqrt(0.5))) + x * _INV_SQRT_2PI * g.exp(-0.5 * x * x)),)


@vjp("Mish")
def mish(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """The derivative of x n / d, where n / d is tanh(softplus(x)): ONNX Runtime's log(1 + e^x) has too few digits."""
    x = s[0]
    e, f = _parts(g, x)
    n, squared = e * (e + 2 * f), f * f
    d = n + 2 * squared
    return (dy * (n + 4 * x * e * squared * (e + f) / d) / d,)


def _parts(g: Builder, x: Value) -> tuple[Value, Value]:
    """e^x as e / f, of which one is 1, so that neither is too large and sums of them lose no digit."""
    return g.exp(g.negative_part(x)), g.exp(g.negative_part(-x))


@vjp("Erf")
def erf(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * (2 / math.sqrt(math.pi)) * g.exp(-(s[0] * s[0])),)


@vjp("Softmax")
def softmax(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    axis = s.attr("axis", -1)
    return (s.y * (dy - g.sum(s.y * dy, [axis])),)


@vjp("LogSoftmax")
def log_softmax(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    axis = s.attr("axis", -1)
    return (dy - g.exp(s.y) * g.sum(dy, [axis]),)
