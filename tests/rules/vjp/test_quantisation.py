"""Quantisers: rounding is passed straight through, clipping is not."""

import numpy as np
import torch

from tests.rules.harness import against_torch, between, case, constant

SCALES, ZEROS = (0.125, 0.0625, 0.25), (3, -128, 0)


def faked(x: torch.Tensor, scale: torch.Tensor | float, zero: torch.Tensor | int, low: int, high: int) -> torch.Tensor:
    """What a pair of quantisers makes of x; to autograd rounding is nothing, and what is clipped stands still."""
    steps = x / scale + zero
    rounded = steps + (steps.round() - steps).detach()
    kept = (rounded >= low) & (rounded <= high)
    return (torch.where(kept, rounded, rounded.clamp(low, high).detach()) - zero) * scale


def one(x: torch.Tensor) -> torch.Tensor:
    return faked(x, 0.125, 3, -128, 127)


def positive(x: torch.Tensor) -> torch.Tensor:
    return faked(x, 0.125, 0, 0, 255)


def by_channel(x: torch.Tensor) -> torch.Tensor:
    scale, zero = torch.tensor(SCALES, dtype=x.dtype), torch.tensor(ZEROS, dtype=x.dtype)
    return faked(x, scale[:, None], zero[:, None], -128, 127)


def by_its_range(x: torch.Tensor) -> torch.Tensor:
    """What is quantised over its own range and dequantised again: x, and to autograd nothing else."""
    low, high = x.detach().min().clamp(max=0), x.detach().max().clamp(min=0)
    scale = (high - low) / 255
    zero = (-low / scale).round()
    return x + (((x.detach() / scale).round() + zero).clamp(0, 255) - zero) * scale - x.detach()


DYNAMIC = "q, s, z = DynamicQuantizeLinear(x); y = DequantizeLinear(q, s, z)"
PAIR = "q = QuantizeLinear(x, s, z); y = DequantizeLinear(q, s, z)"
BY_CHANNEL = "q = QuantizeLinear <axis = 1> (x, s, z); y = DequantizeLinear <axis = 1> (q, s, z)"
MOVED = "q = QuantizeLinear(x, s, z); t = Transpose <perm = [0, 1, 2]> (q); y = DequantizeLinear(t, s, z)"
STEP, SHIFT = constant(0.125), constant(3, np.int8)

CASES = [
    case("DynamicQuantizeLinear", DYNAMIC, by_its_range, x=between(-3, 5, 2, 3, 4), double=None),
    case("DynamicQuantizeLinear", DYNAMIC, by_its_range, x=between(1, 5, 7), double=None),
    case("QuantizeLinear", PAIR, one, x=between(-30, 30, 2, 3, 4), s=STEP, z=SHIFT, double=None),
    case("DequantizeLinear", PAIR, one, x=between(-30, 30, 5), s=STEP, z=SHIFT, double=None),
    case("QuantizeLinear", PAIR, positive, x=between(-9, 60, 2, 5), s=STEP, z=constant(0, np.uint8), double=None),
    case(
        "QuantizeLinear",
        BY_CHANNEL,
        by_channel,
        x=between(-30, 30, 2, 3, 4),
        s=constant(list(SCALES)),
        z=constant(list(ZEROS), np.int8),
        double=None,
    ),
    case("QuantizeLinear", MOVED, one, x=between(-30, 30, 2, 3, 4), s=STEP, z=SHIFT, double=None),
]

test_against_torch = against_torch(CASES)
