"""Convolutions and matrix products."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import halves, pad, windows
from .registry import Op, operator


@operator("Conv")
def conv(op: Op, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = x.dim() - 2
    w = windows(op, x.shape[2:], weight.shape[2:])
    if w.begin == w.end:
        padding = w.begin
    else:
        x, padding = pad(x, w.begin, w.end), [0] * rank
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    return convolve(x, weight, bias, w.strides, padding, w.dilations, op.integer("group", 1))


@operator("ConvTranspose")
def conv_transpose(op: Op, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The full transposed convolution, then cut by pads and grown by output_padding: both are offsets of its ends."""
    rank = x.dim() - 2
    strides, dilations = op.integers("strides", [1] * rank), op.integers("dilations", [1] * rank)
    extra = op.integers("output_padding", [0] * rank)
    transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    full = transpose(x, weight, None, strides, 0, 0, op.integer("group", 1), dilations)
    pads, how = op.integers("pads", [0] * 2 * rank), op.text("auto_pad", "NOTSET")
    begin, end = pads[:rank], pads[rank:]
    if op.has("output_shape") or how.startswith("SAME"):
        wanted = op.integers("output_shape", [n * s for n, s in zip(x.shape[2:], strides, strict=True)])[-rank:]
        total = [n + e - t for n, e, t in zip(full.shape[2:], extra, wanted, strict=True)]
        begin, end = halves([max(t, 0) for t in total], larger_end=how == "SAME_UPPER")
        extra = [e + max(-t, 0) for e, t in zip(extra, total, strict=True)]
    elif how == "VALID":
        begin, end = [0] * rank, [0] * rank
    y = pad(full, [-b for b in begin], [e - p for e, p in zip(extra, end, strict=True)])
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


@operator("Gemm")
def gemm(op: Op, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.mT if op.integer("transA", 0) else a
    b = b.mT if op.integer("transB", 0) else b
    y = op.real("alpha", 1.0) * (a @ b)
    return y if c is None else y + op.real("beta", 1.0) * c


@operator("MatMul")
def matmul(op: Op, a: Tensor, b: Tensor) -> Tensor:
    return a @ b


@operator("Einsum")
def einsum(op: Op, *xs: Tensor) -> Tensor:
    result: Tensor = torch.einsum(op.text("equation", ""), *xs)
    return result
