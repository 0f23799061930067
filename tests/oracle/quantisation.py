"""Quantisers. The integers stay in floating tensors, so that torch.autograd goes through them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .registry import Op, operator


class _Quantise(torch.autograd.Function):
    """Rounding is passed straight through; what falls outside the range is not, as in torch.fake_quantize."""

    @staticmethod
    def forward(ctx: Any, steps: Tensor, low: int, high: int) -> Tensor:
        rounded = steps.round()
        ctx.save_for_backward((rounded >= low) & (rounded <= high))
        return rounded.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return gradients[0] * kept, None, None


def _spread(op: Op, v: Tensor, x: Tensor) -> Tensor:
    if v.numel() == 1:
        return v.reshape(())
    axis = op.integer("axis", 1) % x.dim()
    return v.reshape([-1 if i == axis else 1 for i in range(x.dim())])


@operator("QuantizeLinear")
def quantize_linear(op: Op, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    info = torch.iinfo(torch.uint8 if zero is None else zero.dtype)
    offset = 0 if zero is None else _spread(op, zero, x).to(op.dtype)
    apply: Callable[..., Tensor] = _Quantise.apply
    return apply(x / _spread(op, scale, x) + offset, info.min, info.max)


@operator("DequantizeLinear")
def dequantize_linear(op: Op, q: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    offset = 0 if zero is None else _spread(op, zero, q).to(op.dtype)
    return (q.to(op.dtype) - offset) * _spread(op, scale, q)


@operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(op: Op, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """To eight bits over the range of x, zero included; scale and zero point are given as far as autograd knows."""
    given = x.detach()
    low, high = given.min().clamp(max=0), given.max().clamp(min=0)
    scale = (high - low) / 255
    zero = (-low / scale).round().clamp(0, 255)
    apply: Callable[..., Tensor] = _Quantise.apply
    return apply(x / scale + zero, 0, 255), scale, zero
