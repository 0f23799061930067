"""Normalisations, in their inference form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .geometry import pad
from .registry import Op, operator


def per_channel(v: Tensor, x: Tensor) -> Tensor:
    return v.reshape(-1, *[1] * (x.dim() - 2))


@operator("BatchNormalization")
def batch_normalization(op: Op, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    if op.integer("training_mode", 0):
        raise op.refuse("training_mode 1")
    # By hand: the backward of torch 2.13's own is wrong where what comes back was permuted and the last axis has one
    # element.
    whole = op.opset < 9 and not op.integer("spatial", 1)  # statistics for every activation, not only every channel
    mean, var, scale, bias = (v if whole else per_channel(v, x) for v in (mean, var, scale, bias))
    return (x - mean) / torch.sqrt(var + op.real("epsilon", 1e-5)) * scale + bias


def standardised(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    mean = x.mean(axes, keepdim=True)
    return (x - mean) / torch.sqrt(((x - mean) ** 2).mean(axes, keepdim=True) + epsilon)


@operator("InstanceNormalization")
def instance_normalization(op: Op, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    y = standardised(x, list(range(2, x.dim())), op.real("epsilon", 1e-5))
    return y * per_channel(scale, x) + per_channel(bias, x)


@operator("GroupNormalization")
def group_normalization(op: Op, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = op.integer("num_groups", 1)
    y = standardised(x.reshape(x.shape[0], groups, -1), [2], op.real("epsilon", 1e-5)).reshape(x.shape)
    if op.opset < 21:  # one scale a group; since then one a channel
        scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
    return y * per_channel(scale, x) + per_channel(bias, x)


@operator("LayerNormalization")
def layer_normalization(op: Op, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    axes = list(range(op.integer("axis", -1) % x.dim(), x.dim()))
    mean = x.mean(axes, keepdim=True)
    inverse = torch.rsqrt(((x - mean) ** 2).mean(axes, keepdim=True) + op.real("epsilon", 1e-5))
    y = (x - mean) * inverse * scale
    return y if bias is None else y + bias, mean, inverse


@operator("RMSNormalization")
def rms_normalization(op: Op, x: Tensor, scale: Tensor) -> Tensor:
    axes = list(range(op.integer("axis", -1) % x.dim(), x.dim()))
    return x * torch.rsqrt((x**2).mean(axes, keepdim=True) + op.real("epsilon", 1e-5)) * scale


@operator("LpNormalization")
def lp_normalization(op: Op, x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, op.integer("p", 2), op.integer("axis", -1), keepdim=True)
    return x / norm


@operator("MeanVarianceNormalization")
def mean_variance_normalization(op: Op, x: Tensor) -> Tensor:
    axes = op.integers("axes", [0, 2, 3])
    centred = x - x.mean(axes, keepdim=True)
    return centred / (torch.sqrt((centred**2).mean(axes, keepdim=True)) + 1e-9)


@operator("LRN")
def lrn(op: Op, x: Tensor) -> Tensor:
    """Over `size` neighbouring channels; F.local_response_norm centres an even size one channel off."""
    size = op.integer("size", 1)
    before, after = (size - 1) // 2, math.ceil((size - 1) / 2)
    square = pad((x**2).movedim(1, -1), [before], [after])
    total = square.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    alpha, beta, bias = op.real("alpha", 1e-4), op.real("beta", 0.75), op.real("bias", 1.0)
    return x / (bias + alpha / size * total) ** beta
