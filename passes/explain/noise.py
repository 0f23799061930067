"""Standard normal noise that is the same everywhere, on every run and provider.

ONNX's RandomNormal draws from the runtime's own generator, whose state lives as long as the session: two runs differ.
Here each value is a function of its position and the seed, by integer arithmetic that every provider does exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value

_PRIME = 2**31 - 1
_STEP, _SHIFT = 48271, 1013904223


def standard_normal(g: Builder, index: Value, sizes: Value, seed: int, like: Value) -> Value:
    """Noise for the draws `index` (K,), each of the given sizes: (K, *sizes) in the dtype of `like`.

    Two hashed uniforms for each position, then Box and Muller's transform.
    """
    count = g.op("ReduceProd", sizes, keepdims=0)
    positions = g.op("Range", g.constant(np.int64(0)), count, g.constant(np.int64(1)))
    counter = g.unsqueeze(index * count, [1]) + positions
    first = _hash(g, counter + _offset(seed))
    second = _hash(g, first + _SHIFT)
    u, v = (((h + 1) if i == 0 else h) for i, h in enumerate((first, second)))
    radius = g.sqrt(-2 * g.log(g.cast(u, np.float32) * (1 / (_PRIME + 1))))
    normal = radius * g.op("Cos", g.cast(v, np.float32) * (2 * math.pi / _PRIME))
    return g.cast(g.reshape(normal, g.concat([g.ints([-1]), sizes], axis=0)), like)


def _hash(g: Builder, x: Value, rounds: Sequence[int] = (_SHIFT, 12345, 777767777)) -> Value:
    """Numbers in [0, 2^31 - 1) that look unrelated to x: squarings modulo a prime, each below 2^62."""
    modulus = g.constant(np.int64(_PRIME))
    h = g.op("Mod", x * _STEP, modulus)
    for shift in rounds:
        h = g.op("Mod", h * h + g.op("Mod", h * _STEP, modulus) + shift, modulus)
    return h


def _offset(seed: int) -> int:
    return (seed * 2654435761 + 97) % _PRIME
