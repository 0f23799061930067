"""Values that do not depend on what the input holds: constants, shapes, ranges, masks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .registry import Op, as_list, operator, to_tensor


@operator("Constant")
def constant(op: Op) -> Tensor:
    if op.has("value"):
        return to_tensor(op.attributes["value"], op.dtype)
    if op.has("value_float") or op.has("value_floats"):
        return torch.tensor(op.attributes.get("value_float", op.attributes.get("value_floats")), dtype=op.dtype)
    if op.has("value_int") or op.has("value_ints"):
        return torch.tensor(op.attributes.get("value_int", op.attributes.get("value_ints")), dtype=torch.int64)
    raise op.refuse(f"attributes {sorted(op.attributes)}")


@operator("ConstantOfShape")
def constant_of_shape(op: Op, shape: Tensor) -> Tensor:
    if not op.has("value"):
        return torch.zeros(as_list(shape), dtype=op.dtype)
    return to_tensor(op.attributes["value"], op.dtype).reshape(()).expand(as_list(shape)).clone()


@operator("Shape")
def shape(op: Op, x: Tensor) -> Tensor:
    end = op.integer("end", x.dim())
    return torch.tensor(list(x.shape)[op.integer("start", 0) : end], dtype=torch.int64)


@operator("Size")
def size(op: Op, x: Tensor) -> Tensor:
    return torch.tensor(math.prod(x.shape), dtype=torch.int64)


@operator("Range")
def value_range(op: Op, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    count = max(math.ceil((limit - start).item() / delta.item()), 0)
    return start.reshape(()) + torch.arange(count) * delta.reshape(())


@operator("EyeLike")
def eye_like(op: Op, x: Tensor) -> Tensor:
    k = op.integer("k", 0)
    ones = torch.ones(x.shape, dtype=x.dtype)
    return ones.tril(k).triu(k)


@operator("NonZero")
def non_zero(op: Op, x: Tensor) -> Tensor:
    return x.nonzero().mT


@operator("OneHot")
def one_hot(op: Op, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """An index outside of [-depth, depth) gives a row of the off value."""
    (count,) = as_list(depth)
    off, on = values
    axis = op.integer("axis", -1)
    axis = axis + indices.dim() + 1 if axis < 0 else axis
    index = indices.to(torch.int64)
    index = torch.where(index < 0, index + count, index)
    line = torch.arange(count).reshape(-1, *[1] * (indices.dim() - axis))
    return torch.where(index.unsqueeze(axis) == line, on, off)


@operator("Trilu")
def trilu(op: Op, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = 0 if k is None else as_list(k)[0]
    return x.triu(diagonal) if op.integer("upper", 1) else x.tril(diagonal)
