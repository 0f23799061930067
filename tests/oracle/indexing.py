"""Gathering and scattering by index."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .registry import Op, operator

REDUCTIONS = {"mul": "prod", "max": "amax", "min": "amin"}


def from_start(index: Tensor, n: int) -> Tensor:
    """Indices that count from the end, made to count from the start."""
    index = index.to(torch.int64)
    return torch.where(index < 0, index + n, index)


@operator("Gather")
def gather(op: Op, x: Tensor, index: Tensor) -> Tensor:
    axis = op.integer("axis", 0) % x.dim()
    index = from_start(index, x.shape[axis])
    return x.index_select(axis, index.reshape(-1)).reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


@operator("GatherElements")
def gather_elements(op: Op, x: Tensor, index: Tensor) -> Tensor:
    axis = op.integer("axis", 0)
    return x.gather(axis, from_start(index, x.shape[axis]))


@operator("Scatter", "ScatterElements")
def scatter_elements(op: Op, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    axis, how = op.integer("axis", 0), op.text("reduction", "none")
    index = from_start(index, x.shape[axis])
    if how == "none":
        return x.scatter(axis, index, updates)
    if how == "add":
        return x.scatter_add(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, REDUCTIONS[how])


def row(index: Tensor, shape: torch.Size) -> Tensor:
    """The last axis of `index` addresses the leading axes of a tensor: the number of the row it means."""
    number = torch.zeros(index.shape[:-1], dtype=torch.int64)
    for k in range(index.shape[-1]):
        number = number * shape[k] + from_start(index[..., k], shape[k])
    return number


@operator("GatherND")
def gather_nd(op: Op, x: Tensor, index: Tensor) -> Tensor:
    batch = op.integer("batch_dims", 0)
    depth = batch + index.shape[-1]
    if batch:
        # address the batch axes too, so that one rule serves
        grid = torch.meshgrid(*(torch.arange(n) for n in x.shape[:batch]), indexing="ij")
        own = torch.stack(grid, -1).reshape(*x.shape[:batch], *[1] * (index.dim() - batch - 1), batch)
        index = torch.cat([own.expand(*index.shape[:-1], batch), index.to(torch.int64)], -1)
    number = row(index, x.shape)
    rows = x.reshape(math.prod(x.shape[:depth]), *x.shape[depth:])
    return rows.index_select(0, number.reshape(-1)).reshape([*number.shape, *x.shape[depth:]])


@operator("ScatterND")
def scatter_nd(op: Op, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    depth, how = index.shape[-1], op.text("reduction", "none")
    number = row(index, x.shape).reshape(-1)
    rows = x.reshape(math.prod(x.shape[:depth]), *x.shape[depth:])
    new = updates.reshape(number.numel(), *x.shape[depth:])
    if how == "none":
        y = rows.index_copy(0, number, new)
    elif how == "add":
        y = rows.index_add(0, number, new)
    else:
        columns = number.reshape(-1, *[1] * (new.dim() - 1)).expand(new.shape)
        y = rows.scatter_reduce(0, columns, new, REDUCTIONS[how])
    return y.reshape(x.shape)
