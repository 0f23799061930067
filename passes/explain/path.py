"""Paths: an attribution summed over many inputs, some at a time so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value

Chunk = Callable[[Value], Sequence[Value]]
"""From the indices of some inputs (K,), their attributions (K, N, ...): one for each sum that is asked for."""

CONSTRUCTIONS = ("auto", "loop", "unroll")


def weighted_sums(
    g: Builder, weights: NDArray[np.floating], size: int, maps: Chunk, like: Value, sums: int, construction: str
) -> list[Value]:
    """Sum weights[k] * map_k over all k, `size` of them at a time.

    size:         how many are computed together, stacked along the batch; all at once need no loop.
    maps:         emits the maps of one chunk.
    like:         a value of the shape and dtype of a sum.
    sums:         how many maps a chunk returns.
    construction: "loop" keeps the graph small and memory bounded; "unroll" has no control flow, as CUDA graphs need.
    Returns:      the sums, of the shape of `like`.
    """
    chunks = -(-len(weights) // size)
    size = -(-len(weights) // chunks)
    padded = np.concatenate([weights, np.zeros(chunks * size - len(weights))])
    table = g.constant(padded, like.dtype)

    def chunk(start: Value | int, sums_so_far: Sequence[Value]) -> list[Value]:
        first = start if isinstance(start, Value) else g.constant(np.int64(start))
        index = first * size + g.ints(range(size))
        share = g.gather(table, index, axis=0)
        parts = []
        for each in maps(index):
            weight = g.unsqueeze(share, list(range(1, each.rank)))
            parts.append(g.named(g.sum(weight * each, [0], keepdims=False), like.shape))
        return [a + b for a, b in zip(sums_so_far, parts, strict=True)] if sums_so_far else parts

    if chunks == 1:
        return chunk(0, [])
    if construction == "unroll":
        total: list[Value] = []
        for i in range(chunks):
            total = chunk(i, total)
        return total
    zero = g.named(g.full_like(like, 0), like.shape)
    return g.repeat(chunks, [zero] * sums, chunk)
