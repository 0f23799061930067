"""Reductions over axes, the largest entries, and running sums."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .registry import Op, as_list, operator

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def reduction(name: str, function: Reduction) -> None:
    @operator(name)
    def handler(op: Op, x: Tensor, given: Tensor | None = None) -> Tensor:
        axes = op.listed("axes", given) or []
        if not axes and op.integer("noop_with_empty_axes", 0):
            # only the reduction is left out: what happens to each element before and after it stays
            return function(x.unsqueeze(0), [0], False)
        axes = axes or list(range(x.dim()))
        return function(x, axes, op.integer("keepdims", 1) == 1) if axes else function(x.unsqueeze(0), [0], False)


for name, function in {
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceProd": product,
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keepdim=keep),
    "ReduceSumSquare": lambda x, axes, keep: (x**2).sum(axes, keepdim=keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
}.items():
    reduction(name, function)


def extreme(name: str, function: Callable[..., Tensor]) -> None:
    @operator(name)
    def handler(op: Op, x: Tensor) -> Tensor:
        axis, keep = op.integer("axis", 0) % x.dim(), op.integer("keepdims", 1) == 1
        if not op.integer("select_last_index", 0):
            return function(x, axis, keepdim=keep)
        return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)


extreme("ArgMax", torch.argmax)
extreme("ArgMin", torch.argmin)


@operator("TopK")
def top_k(op: Op, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A stable sort, because ONNX gives ties to the lower index and torch.topk to any."""
    axis = op.integer("axis", -1)
    values, order = torch.sort(x, dim=axis, descending=bool(op.integer("largest", 1)), stable=True)
    count = op.integer("k", 0) if k is None else as_list(k)[0]
    return values.narrow(axis, 0, count), order.narrow(axis, 0, count)


@operator("CumSum")
def cum_sum(op: Op, x: Tensor, axis: Tensor) -> Tensor:
    (a,) = as_list(axis)
    x = x.flip(a) if op.integer("reverse", 0) else x
    y = x.cumsum(a) - x if op.integer("exclusive", 0) else x.cumsum(a)
    return y.flip(a) if op.integer("reverse", 0) else y
