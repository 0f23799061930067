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
    """1 above zero, y + alpha below; for alpha = 1 that is the lesser of the two."""
    slope, alpha = s.y + s.attr("alpha", 1.0), s.attr("alpha", 1.0)
    return (dy * (g.at_most(slope, 1) if alpha == 1 else g.where(s[0] > 0, 1, slope)),)


@vjp("Selu")
def selu(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    alpha, gamma = s.attr("alpha", 1.67326319217681884765625), s.attr("gamma", 1.05070102214813232421875)
    return (g.where(s[0] > 0, dy * gamma, dy * (s.y + alpha * gamma)),)


@vjp("Celu")
def celu(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    x = s[0]
    return (dy * g.exp(g.negative_part(x) * (1 / s.attr("alpha", 1.0))),)


@vjp("Sigmoid")
def sigmoid(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * s.y * (1 - s.y),)


@vjp("Tanh")
def tanh(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * (1 - s.y * s.y),)


@vjp("Softplus")
def softplus(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * g.sigmoid(s[0]),)


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
    """Exact: Phi(x) + x phi(x). Approximate: the derivative of 0.5 x (1 + tanh(a (x + b x^3)))."""
    x = s[0]
    if s.attr("approximate", "none") == "tanh":
        a, b = math.sqrt(2 / math.pi), 0.044715
        t = g.tanh(a * (x + b * x * x * x))
        return (dy * (0.5 * (1 + t) + 0.5 * a * x * (1 - t * t) * (1 + 3 * b * x * x)),)
    return (dy * (0.5 * (1 + g.erf(x * math.sqrt(0.5))) + x * _INV_SQRT_2PI * g.exp(-0.5 * x * x)),)


@vjp("Mish")
def mish(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    x = s[0]
    t = g.tanh(g.op("Softplus", x))
    return (dy * (t + x * g.sigmoid(x) * (1 - t * t)),)


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
