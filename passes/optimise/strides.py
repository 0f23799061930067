"""Strided transposed convolutions, channel by channel, as what ONNX Runtime's CPU kernels do best.

A ConvTranspose puts zeros between the elements of its operand and convolves. The runtime's own kernel goes group by
group, through a matrix product and a scatter for each channel.
"""

from __future__ import annotations

from functools import reduce
from operator import mul

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.passes.optimise.convolution import exchanged
from onnxplain.passes.optimise.rewriting import NodeRewrite


class DepthwiseStrides(NodeRewrite):
    """The zeros written out: each element repeated, all copies but one times zero; then a convolution of stride 1.

    Filters of ones as wide as the stride, the derivative of a mean over windows side by side, repeat and nothing else.
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        if node.op != "ConvTranspose" or len(node.inputs) != 2:
            return None
        dy, w = (g.wrap(t) for t in node.inputs)
        n = w.rank - 2
        strides, dilations = (list(node.attrs.get(name, [1] * n)) for name in ("strides", "dilations"))
        pads, more = list(node.attrs.get("pads", [0] * 2 * n)), list(node.attrs.get("output_padding", [0] * n))
        group = int(node.attrs.get("group", 1))
        if all(s == 1 for s in strides):
            return None
        if w.shape[:2] != (group, 1) or n != 2 or dy.dtype != np.float32:
            return "it is no convolution of each channel by itself, over two axes, in single precision"
        if not all(isinstance(size, int) for size in (*w.shape, *dy.shape[2:])):
            return "its sizes are not known"
        reach = [d * (int(k or 0) - 1) for k, d in zip(w.shape[2:], dilations, strict=True)]
        before = [r - p for r, p in zip(reach, pads[:n], strict=True)]
        after = [r - p + o - (s - 1) for r, p, o, s in zip(reach, pads[n:], more, strides, strict=True)]
        side_by_side = list(w.shape[2:]) == strides and set(dilations) == {1} and not any((*pads, *more))
        if side_by_side and w.is_constant and np.all(g.values(w) == 1):
            return repeated(g, dy, strides)
        if min(*before, *after) < 0:
            return "it crops more than its filters reach"
        spaced = repeated(g, dy, strides) * _grid(g, [int(size or 0) for size in dy.shape[2:]], strides, dy)
        return g.op("Conv", spaced, exchanged(g, w, group), pads=[*before, *after], dilations=dilations, group=group)


class PointStrides(NodeRewrite):
    """Filters of one element: the convolution first, while the tensor is small, and then the zeros between.

    What a shortcut with a stride sends back. The runtime's own kernel multiplies matrices and scatters.
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        if node.op != "ConvTranspose" or len(node.inputs) != 2:
            return None
        dy, w = (g.wrap(t) for t in node.inputs)
        strides, more = (list(node.attrs.get(name, [n, n])) for name, n in (("strides", 1), ("output_padding", 0)))
        if all(s == 1 for s in strides) or set(w.shape[2:]) != {1}:
            return None
        sizes = (*w.shape, *dy.shape[2:])
        if w.rank != 4 or dy.dtype != np.float32 or not all(isinstance(size, int) for size in sizes):
            return "it is not over two axes of known size, in single precision"
        if any(node.attrs.get("pads", [])) or more != [s - 1 for s in strides]:
            return "what it returns does not end with the zeros behind the last element"
        group = int(node.attrs.get("group", 1))
        dense = g.op("Conv", dy, exchanged(g, w, group), group=group)
        return repeated(g, dense, strides) * _grid(g, [int(size or 0) for size in dy.shape[2:]], strides, dy)


def repeated(g: Builder, x: Value, times: list[int]) -> Value:
    """(N, C, *S) -> (N, C, *(S times)): each element so often in a row along each axis."""
    scales = g.constant(np.asarray([1, 1, *times], np.float32))
    how = {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": "floor"}
    return g.op("Resize", x, None, scales, **how)


def _grid(g: Builder, sizes: list[int], strides: list[int], like: Value) -> Value:
    """(1, 1, *S strides): one at every first of so many, zero elsewhere; a product of lines, which the file holds."""
    lines = []
    for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True), start=2):
        line = np.zeros(size * stride, like.dtype)
        line[::stride] = 1
        lines.append(g.constant(line.reshape([-1 if a == axis else 1 for a in range(len(sizes) + 2)])))
    return reduce(mul, lines)
