"""Resize and its older form Upsample: nearest and linear, one axis after the other. Reading at places."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .registry import Op, as_list, operator


@operator("GridSample")
def grid_sample(op: Op, x: Tensor, grid: Tensor) -> Tensor:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(op.text("mode", "linear"), op.text("mode", "linear"))
    corners = bool(op.integer("align_corners", 0))
    return torch.nn.functional.grid_sample(x, grid, mode, op.text("padding_mode", "zeros"), corners)


@operator("Upsample")
def upsample(op: Op, x: Tensor, scales: Tensor | None = None) -> Tensor:
    factors = op.attributes["scales"] if scales is None else scales.tolist()
    return resampled(op, x, dict(enumerate(factors)), {}, "asymmetric", "floor")


@operator("Resize")
def resize(
    op: Op, x: Tensor, second: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
) -> Tensor:
    """Opset 10 takes the scales second and has no modes; since 11 the second input is the region of interest."""
    if op.opset < 11:
        assert second is not None, "Resize-10 without scales"
        return resampled(op, x, dict(enumerate(second.tolist())), {}, "asymmetric", "ceil_if_smaller")
    mode = op.text("coordinate_transformation_mode", "half_pixel")
    for name, plain in (("antialias", 0), ("exclude_outside", 0)):
        if op.integer(name, plain) != plain:
            raise op.refuse(name)
    if op.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise op.refuse("keep_aspect_ratio_policy")
    axes = [a % x.dim() for a in op.integers("axes", list(range(x.dim())))]
    if sizes is not None and sizes.numel():
        wanted = dict(zip(axes, as_list(sizes), strict=True))
        factors = {a: n / x.shape[a] for a, n in wanted.items()}
    elif scales is not None:
        wanted, factors = {}, dict(zip(axes, scales.tolist(), strict=True))
    else:
        raise op.refuse("neither scales nor sizes")
    return resampled(op, x, factors, wanted, mode, op.text("nearest_mode", "round_prefer_floor"))


def resampled(
    op: Op, x: Tensor, factors: dict[int, float], wanted: dict[int, int], coordinates: str, nearest: str
) -> Tensor:
    mode = op.text("mode", "nearest")
    for axis, factor in factors.items():
        n = x.shape[axis]
        m = wanted.get(axis, math.floor(n * factor))
        if m == n and factor == 1.0:
            continue
        at = source(op, n, m, factor, coordinates)
        if mode == "nearest":
            how = ("ceil" if factor < 1 else "floor") if nearest == "ceil_if_smaller" else nearest
            x = x.index_select(axis, rounded(at, how).clamp(0, n - 1))
        elif mode in ("linear", "bilinear"):
            at = at.clamp(0, n - 1)
            low = at.floor().to(torch.int64)
            part = (at - low).to(x.dtype).reshape(-1, *[1] * (x.dim() - axis - 1))
            x = x.index_select(axis, low) * (1 - part) + x.index_select(axis, (low + 1).clamp(max=n - 1)) * part
        else:
            raise op.refuse(f"mode {mode}")
    return x


def source(op: Op, n: int, m: int, factor: float, coordinates: str) -> Tensor:
    """For each of m places in the output, the place between n elements of the input that it comes from."""
    at = torch.arange(m, dtype=torch.float64)
    if coordinates == "asymmetric":
        return at / factor
    if coordinates == "half_pixel":
        return (at + 0.5) / factor - 0.5
    if coordinates == "pytorch_half_pixel":
        return (at + 0.5) / factor - 0.5 if m > 1 else torch.zeros_like(at)
    if coordinates == "align_corners":
        return at * (n - 1) / (m - 1) if m > 1 else torch.zeros_like(at)
    if coordinates == "half_pixel_symmetric":
        return n / 2 * (1 - m / (n * factor)) + (at + 0.5) / factor - 0.5
    raise op.refuse(f"coordinate_transformation_mode {coordinates}")


def rounded(at: Tensor, how: str) -> Tensor:
    whole = {
        "floor": torch.floor(at),
        "ceil": torch.ceil(at),
        "round_prefer_floor": torch.ceil(at - 0.5),
        "round_prefer_ceil": torch.floor(at + 0.5),
    }
    return whole[how].to(torch.int64)
