"""Derivatives of normalisation layers, at inference."""

from __future__ import annotations

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.rules.table import vjp
from onnxplain.rules.vjp.elementwise import signed_power


@vjp("BatchNormalization")
def batch_normalization(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """A scale for each channel: gamma / sqrt(variance + epsilon)."""
    if s.attr("training_mode", 0):
        raise s.refused("in training mode, where it depends on the batch")
    x, scale, variance = s[0], s[1], s[4]
    k = scale / g.sqrt(variance + s.attr("epsilon", 1e-5))
    return (dy * per_channel(g, k, x),)


def per_channel(g: Builder, v: Value, x: Value) -> Value:
    """A vector of C numbers as (C, 1, ...), so that it multiplies (N, C, *S) channel by channel."""
    return g.reshape(v, [-1, *([1] * (x.rank - 2))])


def _normalised(g: Builder, x: Value, dy: Value, axes: list[int], eps: float) -> Value:
    """Derivative of (x - mean) / sqrt(variance + eps) over `axes`: the part of dy that is orthogonal to 1 and to x^."""
    centred = x - g.mean(x, axes)
    inverse = 1 / g.sqrt(g.mean(centred * centred, axes) + eps)
    unit = centred * inverse
    return inverse * (dy - g.mean(dy, axes) - unit * g.mean(dy * unit, axes))


@vjp("LayerNormalization", "InstanceNormalization", "GroupNormalization")
def normalization(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """What is normalised, and by what, is as `normalised_axes` has it."""
    if any(value is not None for value in s.arrived[1:]):
        raise s.refused("whose mean or deviation is used by itself")
    x = as_normalised(g, s, s[0])
    dx = _normalised(g, x, scaled(g, s, dy), normalised_axes(s), s.attr("epsilon", 1e-5))
    return (dx if x is s[0] else g.reshape_like(dx, s[0]),)


def normalised_axes(s: Site) -> list[int]:
    """The axes of `as_normalised` over which the operator takes mean and deviation."""
    if s.op == "LayerNormalization":
        return list(range(s.attr("axis", -1) % s[0].rank, s[0].rank))
    return [2] if s.op == "GroupNormalization" else list(s[0].spatial)


def as_normalised(g: Builder, s: Site, v: Value) -> Value:
    """A tensor like the operand in the shape in which it is normalised: groups of channels side by side, (N, G, -1)."""
    return g.reshape(v, [0, s.attr("num_groups"), -1]) if s.op == "GroupNormalization" else v


def scaled(g: Builder, s: Site, v: Value) -> Value:
    """v times the scale, as it is normalised; until opset 20 a group's scale is one number."""
    if s.op == "LayerNormalization":
        return v * s[1]
    if s.op == "GroupNormalization" and g.opset <= 20:
        return as_normalised(g, s, v) * g.reshape(s[1], [-1, 1])
    return as_normalised(g, s, v * per_channel(g, s[1], v))


@vjp("MeanVarianceNormalization")
def mean_variance_normalization(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """(x - mean) / (deviation + 1e-9): the small number is squared, since here it goes under the root."""
    return (_normalised(g, s[0], dy, s.attr("axes", [0, 2, 3]), 1e-18),)


@vjp("LpNormalization")
def lp_normalization(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """x / ||x||_p for p = 1, 2; zero at the origin."""
    x, axis, p = s[0], [s.attr("axis", -1)], s.attr("p", 2)
    norm = g.reduce(f"ReduceL{p}", x, axis)
    along = signed_power(g, x if p == 1 else s.y, p - 1)
    return (g.mask(norm > 0, dy) * (dy - along * g.sum(dy * s.y, axis)) / g.where(norm > 0, norm, 1),)


@vjp("LRN")
def lrn(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """y = x u^-beta, u = bias + alpha/size * (sum of x^2 over neighbouring channels).

    dx = dy u^-beta - 2 alpha beta / size * x * (sum over the channels that see x of dy x u^(-beta - 1)).
    """
    x, size = s[0], s.attr("size")
    alpha, beta, bias = s.attr("alpha", 1e-4), s.attr("beta", 0.75), s.attr("bias", 1.0)
    before, after = (size - 1) // 2, size // 2
    u = bias + (alpha / size) * channel_window(g, x * x, size, before, after)
    scale = u**-beta
    seen = channel_window(g, dy * x * scale / u, size, after, before)
    return (dy * scale - (2 * alpha * beta / size) * x * seen,)


def channel_window(g: Builder, x: Value, size: int, before: int, after: int) -> Value:
    """For each channel, the sum over the channels from `before` in front of it to `after` behind it."""
    planes = g.unsqueeze(g.reshape(x, [0, 0, -1]), [1])
    mean = g.op("AveragePool", planes, kernel_shape=[size, 1], pads=[before, 0, after, 0], count_include_pad=1)
    return g.reshape(mean * float(size), g.target_shape(x))
