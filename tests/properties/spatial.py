"""Steps with windows, and normalisation: for tensors (N, C, *S)."""

from __future__ import annotations

import math

import numpy as np

from tests.properties.graphs import Sketch, Tensor, step

SPATIAL = (3, 4, 5)


def _out(size: int, kernel: int, stride: int, pad: int, dilation: int = 1, *, ceil: bool = False) -> int:
    room = size + 2 * pad - dilation * (kernel - 1) - 1
    if room < 0:
        return 0
    count = (-(-room // stride) if ceil else room // stride) + 1
    # A window that would start in the padding behind is left out
    return count - 1 if ceil and (count - 1) * stride >= size + pad else count


@step
def convolution(s: Sketch, x: Tensor) -> Tensor | None:
    if x.rank not in SPATIAL:
        return None
    channels, space = x.shape[1], x.shape[2:]
    group = s.pick([1, 1, channels] + ([2] if channels % 2 == 0 else []))
    outputs = group * s.integer(1, 3)
    kernel, stride, dilation = s.integer(1, 3), s.integer(1, 2), s.pick([1, 1, 2])
    pad = s.integer(0, 1)
    sizes = [_out(size, kernel, stride, pad, dilation) for size in space]
    if min(sizes) < 1 or outputs > 12:
        return None
    many = len(space)
    fan = channels // group * kernel**many
    operands = [x.name, s.normal(outputs, channels // group, *[kernel] * many, scale=fan**-0.5)]
    operands += [s.normal(outputs)] if s.maybe() else []
    same = stride == 1 and dilation == 1 and s.maybe()
    padding = {"auto_pad": s.pick(["SAME_UPPER", "SAME_LOWER"])} if same else {"pads": [pad] * 2 * many}
    name = s.op("Conv", *operands, strides=[stride] * many, dilations=[dilation] * many, group=group, **padding)
    return s.result(name, (x.shape[0], outputs, *(space if same else sizes)))


@step
def transposed_convolution(s: Sketch, x: Tensor) -> Tensor | None:
    if x.rank not in SPATIAL:
        return None
    channels, space = x.shape[1], x.shape[2:]
    group = s.pick([1, channels])
    each, kernel, stride = s.integer(1, 2), s.integer(1, 3), s.integer(1, 2)
    extra, pad = s.integer(0, stride - 1), s.integer(0, (kernel - 1) // 2)
    many = len(space)
    sizes = [(size - 1) * stride + kernel - 2 * pad + extra for size in space]
    if min(sizes) < 1 or group * each > 12:
        return None
    weights = s.normal(channels, each, *[kernel] * many, scale=(channels // group * kernel**many) ** -0.5)
    name = s.op(
        "ConvTranspose", x.name, weights, strides=[stride] * many, pads=[pad] * 2 * many,
        output_padding=[extra] * many, group=group,
    )  # fmt: skip
    return s.result(name, (x.shape[0], group * each, *sizes))


@step
def pooled(s: Sketch, x: Tensor) -> Tensor | None:
    if x.rank not in SPATIAL:
        return None
    space, many = x.shape[2:], x.rank - 2
    kind = s.pick(["AveragePool"] if s.repeating else ["AveragePool", "MaxPool"])
    kernel, stride, pad, ceil = s.integer(1, 3), s.integer(1, 2), s.integer(0, 1), s.maybe()
    pad = min(pad, kernel // 2)
    sizes = [_out(size, kernel, stride, pad, ceil=ceil) for size in space]
    if min(sizes) < 1:
        return None
    attributes = {"kernel_shape": [kernel] * many, "strides": [stride] * many, "pads": [pad] * 2 * many}
    if kind == "AveragePool":
        attributes["count_include_pad"] = s.integer(0, 1)
        ceil = False
        sizes = [_out(size, kernel, stride, pad) for size in space]
        if min(sizes) < 1:
            return None
    else:
        s.repeating = True
    return s.result(s.op(kind, x.name, ceil_mode=int(ceil), **attributes), (*x.shape[:2], *sizes))


@step
def pooled_globally(s: Sketch, x: Tensor) -> Tensor | None:
    if x.rank not in SPATIAL:
        return None
    kind = s.pick(["GlobalAveragePool"] if s.repeating else ["GlobalAveragePool", "GlobalMaxPool"])
    return s.result(s.op(kind, x.name), (*x.shape[:2], *[1] * (x.rank - 2)))


@step
def resized(s: Sketch, x: Tensor) -> Tensor | None:
    if x.rank != 4:
        return None
    s.repeating = True
    mode = s.pick(["nearest", "linear"])
    attributes = {"mode": mode, "coordinate_transformation_mode": s.pick(["half_pixel", "asymmetric", "align_corners"])}
    if mode == "nearest":
        attributes |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    n, c, h, w = x.shape
    name = s.op("Resize", x.name, "", s.weight([1, 1, 2, 2]), **attributes)
    return s.result(name, (n, c, 2 * h, 2 * w))


@step
def batch_norm(s: Sketch, x: Tensor) -> Tensor | None:
    c = x.shape[1]
    variance = s.weight(np.abs(s.rng.standard_normal(c)) + 0.3)
    name = s.op("BatchNormalization", x.name, s.normal(c), s.normal(c), s.normal(c), variance, epsilon=1e-3)
    return s.result(name, x.shape)


@step
def normalised(s: Sketch, x: Tensor) -> Tensor | None:
    """Each over enough elements of what has some spread, that the deviation is not next to nothing."""
    kind = s.pick(["LayerNormalization", "InstanceNormalization", "LRN", "LpNormalization"])
    if kind == "LayerNormalization":
        axis = s.integer(1, x.rank - 1)
        over = x.shape[axis:]
        if math.prod(over) < 3:
            return None
        name = s.op(kind, x.name, s.normal(*over), s.normal(*over), axis=axis, epsilon=0.1)
    elif kind == "InstanceNormalization":
        if x.rank < 3 or math.prod(x.shape[2:]) < 3:
            return None
        name = s.op(kind, x.name, s.normal(x.shape[1]), s.normal(x.shape[1]), epsilon=0.1)
    elif kind == "LRN":
        if x.rank != 4:
            return None
        name = s.op(kind, x.name, size=3, alpha=0.1)
    else:
        name = s.op(kind, s.op("Add", x.name, s.normal(*x.shape[1:])), axis=s.axis(x), p=2)
    return s.result(name, x.shape)
