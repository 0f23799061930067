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


@vjp("LayerNormalization")
def layer_normalization(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    x = s[0]
    if any(value is not None for value in s.arrived[1:]):
        raise s.refused("whose mean or deviation is used by itself")
    axes = list(range(s.attr("axis", -1) % x.rank, x.rank))
    return (_normalised(g, x, dy * s[1], axes, s.attr("epsilon", 1e-5)),)


@vjp("InstanceNormalization")
def instance_normalization(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    x = s[0]
    return (_normalised(g, x, dy * per_channel(g, s[1], x), list(x.spatial), s.attr("epsilon", 1e-5)),)


@vjp("GroupNormalization")
def group_normalization(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """Groups of channels normalised as one."""
    x = in_groups(g, s, s[0])
    return (g.reshape_like(_normalised(g, x, scaled_in_groups(g, s, dy), [2], s.attr("epsilon", 1e-5)), s[0]),)


def in_groups(g: Builder, s: Site, v: Value) -> Value:
    """(N, C, *S) with the channels of a GroupNormalization's groups side by side, (N, groups, -1)."""
    return g.reshape(v, [0, s.attr("num_groups"), -1])


def scaled_in_groups(g: Builder, s: Site, v: Value) -> Value:
    """v times the scale, in groups; until opset 20 the scale is one number for each group."""
    if g.opset > 20:
        return in_groups(g, s, v * per_channel(g, s[1], v))
    return in_groups(g, s, v) * g.reshape(s[1], [-1, 1])


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
