"""A max-pool's winners where windows lie side by side, without indices.

ONNX Runtime's CPU kernel of MaxPool takes fifty times as long where indices are asked for.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.ir.window import pool_attributes
from onnxplain.passes.optimise.blocked import in_blocks, through_convolution
from onnxplain.passes.optimise.rewriting import NodeRewrite
from onnxplain.passes.optimise.steep import STEEPEST
from onnxplain.passes.optimise.strides import repeated
from onnxplain.passes.optimise.winners import is_flat


class RepeatedWinners(NodeRewrite):
    """What is scattered to a pool's winners is repeated over each window and kept at the winner alone.

    An element has won if it is its window's maximum and no earlier one is: the places of a window are numbered
    backwards, and of those that hold the maximum the highest number wins, as torch and ONNX Runtime choose.
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        """The flat result of a ScatterElements to the indices of a MaxPool."""
        if node.op != "ScatterElements" or (pool := _pool_of(node)) is None:
            return None
        x, kernel = g.wrap(pool.inputs[0]), list(pool.attrs["kernel_shape"])
        if not in_blocks(x.tensor) or not all(isinstance(size, int) for size in x.shape[2:]):
            return "the pool is not over two axes of known size, with channels in whole blocks"
        sizes = [int(size or 0) for size in x.shape[2:]]
        if list(pool.attrs.get("strides", [1, 1])) != kernel or any(pool.attrs.get("pads", [])):
            return "its windows do not lie side by side"
        if set(pool.attrs.get("dilations", [1])) != {1} or any(n % k for n, k in zip(sizes, kernel, strict=True)):
            return "its windows do not cover everything"
        how = {"kernel_shape": kernel, "strides": kernel}
        y = g.op("MaxPool", x, **pool_attributes(pool))
        largest = _where_zero(g, repeated(g, y, kernel) + through_convolution(g, x, -1))
        numbered = largest * _numbers(g, sizes, kernel, x)
        won = _where_zero(g, repeated(g, g.op("MaxPool", numbered, **how), kernel) - numbered)
        sent = g.reshape(g.wrap(node.inputs[2]), g.target_shape(y))
        return g.reshape(repeated(g, sent, kernel) * won, [-1])


def _pool_of(scatter: gs.Node) -> gs.Node | None:
    """The MaxPool to whose flat indices zeros are overwritten."""
    zeros, indices = (_before_reshape(t) for t in scatter.inputs[:2])
    if (
        not is_flat(scatter)
        or zeros is None
        or zeros.op != "ConstantOfShape"
        or scatter.attrs.get("reduction", "none") != "none"
    ):
        return None
    value = zeros.attrs.get("value")
    if indices is None or indices.op != "MaxPool" or (value is not None and np.any(value.values)):
        return None
    return indices


def _before_reshape(tensor: gs.Tensor) -> gs.Node | None:
    maker = tensor.inputs[0] if tensor.inputs else None
    if maker is not None and maker.op == "Reshape":
        return maker.inputs[0].inputs[0] if maker.inputs[0].inputs else None
    return maker


def _where_zero(g: Builder, distance: Value) -> Value:
    """1 where a distance is zero, 0 where it is more."""
    return g.op("HardSigmoid", distance, alpha=-STEEPEST, beta=1.0)


def _numbers(g: Builder, sizes: list[int], kernel: list[int], like: Value) -> Value:
    """(1, 1, *S): the places of each window numbered from the last, which is 1; the file holds one window."""
    window = np.arange(prod(kernel), 0, -1, dtype=like.dtype).reshape(1, 1, *kernel)
    times = [n // k for n, k in zip(sizes, kernel, strict=True)]
    return g.op("Tile", g.constant(window), g.ints([1, 1, *times]))
