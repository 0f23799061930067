"""Pools over windows, and over all positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import Windows, overhang, pad, window_sum, windows
from .registry import Op, operator


@operator("MaxPool")
def max_pool(op: Op, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """Ties go to the first largest in row-major order: torch's own choice."""
    w = windows(op, x.shape[2:], op.integers("kernel_shape"))
    past = overhang(op, x.shape[2:], w)
    padded = pad(x, w.begin, [e + p for e, p in zip(w.end, past, strict=True)], -math.inf)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(w.kernel) - 1]
    y, where = pool(padded, w.kernel, w.strides, 0, w.dilations, return_indices=True)
    if len(op.node.output) == 1:
        return y
    if op.integer("storage_order", 0):
        raise op.refuse("storage_order 1")
    return y, unpadded(where, x, padded, w)


def unpadded(where: Tensor, x: Tensor, padded: Tensor, w: Windows) -> Tensor:
    """Positions in a padded plane, as ONNX states them: positions in the whole flattened input."""
    n, c = x.shape[:2]
    flat = torch.arange(n * c).reshape(n, c, *[1] * len(w.kernel))
    strides = [math.prod(padded.shape[2 + k + 1 :]) for k in range(len(w.kernel))]
    for size, stride, length, begin in zip(x.shape[2:], strides, padded.shape[2:], w.begin, strict=True):
        flat = flat * size + where // stride % length - begin
    return flat


@operator("AveragePool")
def average_pool(op: Op, x: Tensor) -> Tensor:
    """The overhang of ceil_mode never counts; padding counts where count_include_pad says so."""
    w = windows(op, x.shape[2:], op.integers("kernel_shape"))
    past = overhang(op, x.shape[2:], w)
    nothing = [0] * len(past)
    total = window_sum(pad(pad(x, w.begin, w.end), nothing, past), w)
    counted = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype)
    counted = pad(counted, w.begin, w.end, 1.0 if op.integer("count_include_pad", 0) else 0.0)
    return total / window_sum(pad(counted, nothing, past), w)


@operator("LpPool")
def lp_pool(op: Op, x: Tensor) -> Tensor:
    w = windows(op, x.shape[2:], op.integers("kernel_shape"))
    past = overhang(op, x.shape[2:], w)
    p = op.real("p", 2.0)
    powers = pad(x.abs() ** p, w.begin, [e + more for e, more in zip(w.end, past, strict=True)])
    return window_sum(powers, w) ** (1 / p)


def positions(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


@operator("GlobalAveragePool")
def global_average_pool(op: Op, x: Tensor) -> Tensor:
    return x.mean(positions(x), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(op: Op, x: Tensor) -> Tensor:
    """max over one flattened axis, not amax: amax would share the gradient among ties."""
    return x.flatten(2).max(2).values.reshape(*x.shape[:2], *[1] * (x.dim() - 2))


@operator("GlobalLpPool")
def global_lp_pool(op: Op, x: Tensor) -> Tensor:
    y: Tensor = torch.linalg.vector_norm(x, op.real("p", 2.0), positions(x), keepdim=True)
    return y
