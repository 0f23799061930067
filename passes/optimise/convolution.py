"""Convolution lowering: transposed convolutions as what ONNX Runtime's kernels do best."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.passes.optimise.rewriting import NodeRewrite


class FlipUnitStride(NodeRewrite):
    """A ConvTranspose of stride 1 is a Conv with its filters flipped and their channels exchanged.

    ONNX Runtime keeps a Conv in its blocked layout on CPU, and a ConvTranspose never. The exchange is written as nodes
    on the weights, which the runtime computes once when it loads the model: the file holds the weights once.
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        if node.op != "ConvTranspose" or len(node.inputs) != 2:
            return None
        strides = node.attrs.get("strides", [1])
        if any(s != 1 for s in strides):
            return f"its strides are {strides}"
        dy, w = (g.wrap(t) for t in node.inputs)
        kernel = w.shape[2:]
        if not all(isinstance(k, int) for k in w.shape):
            return "the sizes of its filters are not known"
        if any(node.attrs.get("output_padding", [])) or "output_shape" in node.attrs or "auto_pad" in node.attrs:
            return "its pads are not all that says how large its output is"
        n = len(kernel)
        dilations, pads = node.attrs.get("dilations", [1] * n), node.attrs.get("pads", [0] * 2 * n)
        reach = [d * (int(k or 0) - 1) for k, d in zip(kernel, dilations, strict=True)] * 2
        inner = [r - p for r, p in zip(reach, pads, strict=True)]
        if min(inner) < 0:
            return "it crops more than its filters reach"
        group = int(node.attrs.get("group", 1))
        return g.op("Conv", dy, exchanged(g, w, group), pads=inner, dilations=dilations, group=group)


class FlipDepthwise(FlipUnitStride):
    """The same for convolutions of each channel by itself: a card has better kernels for these than for their backward.

    For others it has equally good ones, so that a second copy of the weights in its memory would bring nothing.
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        if node.op != "ConvTranspose" or g.wrap(node.inputs[1]).shape[:2] != (int(node.attrs.get("group", 1)), 1):
            return None
        return super().rewrite(g, node)


def exchanged(g: Builder, w: Value, group: int) -> Value:
    """(M, C/group, *K) -> (C, M/group, *K): input and output channels exchanged in each group, filters flipped."""
    m, c, *kernel = (int(d or 0) for d in w.shape)
    n = len(kernel)
    if group == 1:
        w = g.transpose(w, [1, 0, *range(2, n + 2)])
    elif c > 1 or m > group:
        grouped = g.reshape(w, [group, m // group, c, *kernel])
        w = g.reshape(g.transpose(grouped, [0, 2, 1, *range(3, n + 3)]), [group * c, m // group, *kernel])
    axes = [a for a, k in enumerate(kernel, start=2) if k > 1]
    if not axes:
        return w
    end = [int(np.iinfo(np.int64).min)] * len(axes)
    return g.slice(w, [-1] * len(axes), end, axes, [-1] * len(axes))
