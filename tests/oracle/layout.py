"""Operators that move, repeat or cut elements and change none of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .geometry import pad as pad_trailing
from .registry import Op, as_list, operator


@operator("Reshape")
def reshape(op: Op, x: Tensor, shape: Tensor | None = None) -> Tensor:
    wanted = op.listed("shape", shape) or []
    if not op.integer("allowzero", 0):
        wanted = [x.shape[k] if n == 0 else n for k, n in enumerate(wanted)]
    return x.reshape(wanted)


@operator("Flatten")
def flatten(op: Op, x: Tensor) -> Tensor:
    axis = op.integer("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Transpose")
def transpose(op: Op, x: Tensor) -> Tensor:
    return x.permute(op.integers("perm", list(reversed(range(x.dim())))))


@operator("Squeeze")
def squeeze(op: Op, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = op.listed("axes", given)
    return x.squeeze() if axes is None else x.squeeze(axes)


@operator("Unsqueeze")
def unsqueeze(op: Op, x: Tensor, given: Tensor | None = None) -> Tensor:
    axes = op.listed("axes", given) or []
    rank = x.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


@operator("Concat")
def concat(op: Op, *xs: Tensor) -> Tensor:
    return torch.cat(xs, op.integer("axis", 1))


@operator("Split")
def split(op: Op, x: Tensor, given: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = op.integer("axis", 0)
    sizes = op.listed("split", given)
    if sizes is None:
        # num_outputs (opset 18) lets the last part be smaller; before it the parts are equal
        sizes_each = -(-x.shape[axis] // op.integer("num_outputs", len(op.node.output)))
        return torch.split(x, sizes_each, axis)
    return torch.split(x, sizes, axis)


@operator("Slice")
def slice_(
    op: Op,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    begin, end = op.listed("starts", starts) or [], op.listed("ends", ends) or []
    where = op.listed("axes", axes) or list(range(len(begin)))
    step = op.listed("steps", steps) or [1] * len(begin)
    for axis, b, e, s in zip(where, begin, end, step, strict=True):
        n = x.shape[axis]
        b, e = b + n if b < 0 else b, e + n if e < 0 else e
        # bounds far outside are legal; a backward walk ends before the first element, at -1
        low, high = (0, n) if s > 0 else (-1, n - 1)
        b, e = min(max(b, low), high), min(max(e, low), high)
        x = x.index_select(axis, torch.tensor(range(b, e, s), dtype=torch.int64))
    return x


def broadcast_shape(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """Both ways: the shape asked for may have an axis of one where the tensor has more."""
    rank = max(len(a), len(b))
    a, b = [1] * (rank - len(a)) + list(a), [1] * (rank - len(b)) + list(b)
    return [n if m == 1 else m for n, m in zip(a, b, strict=True)]


@operator("Expand")
def expand(op: Op, x: Tensor, shape: Tensor) -> Tensor:
    return torch.broadcast_to(x, broadcast_shape(x.shape, as_list(shape)))


@operator("Tile")
def tile(op: Op, x: Tensor, repeats: Tensor, axis: Tensor | None = None) -> Tensor:
    if axis is None:
        return torch.tile(x, as_list(repeats))
    counts = [1] * x.dim()  # before opset 6: one count, for one axis
    counts[as_list(axis)[0]] = as_list(repeats)[0]
    return torch.tile(x, counts)


@operator("Pad")
def pad(
    op: Op, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    amounts = op.listed("paddings" if op.opset < 2 else "pads", pads) or []
    where = list(range(x.dim())) if axes is None else [a % x.dim() for a in as_list(axes)]
    begin, end = [0] * x.dim(), [0] * x.dim()
    for k, axis in enumerate(where):
        begin[axis], end[axis] = amounts[k], amounts[k + len(where)]
    mode = op.text("mode", "constant")
    if mode == "constant":
        return pad_trailing(x, begin, end, op.real("value", 0.0) if value is None else value.item())
    for axis, (b, e) in enumerate(zip(begin, end, strict=True)):
        if b or e:
            x = x.index_select(axis, outside(op, torch.arange(-b, x.shape[axis] + e), x.shape[axis], mode))
    return x


def outside(op: Op, index: Tensor, n: int, mode: str) -> Tensor:
    """Which of n elements stands at positions that may lie before the first or after the last."""
    if mode == "edge":
        return index.clamp(0, n - 1)
    if mode == "wrap":
        return index % n
    if mode != "reflect":
        raise op.refuse(f"mode {mode}")
    period = max(2 * (n - 1), 1)
    folded = index % period
    return torch.minimum(folded, period - folded)


@operator("DepthToSpace")
def depth_to_space(op: Op, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = op.integer("blocksize", 1)
    if op.text("mode", "DCR") == "DCR":
        y = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, c // b**2, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // b**2, h * b, w * b)


@operator("SpaceToDepth")
def space_to_depth(op: Op, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = op.integer("blocksize", 1)
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)
