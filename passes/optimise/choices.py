"""Choices between two numbers, as bounds of a steep line, and between two lines, as an activation.

ONNX Runtime's CPU kernels of Where and Sign go element by element, those of Mul, Add and Clip take sixteen at a time.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.passes.optimise.rewriting import NodeRewrite
from onnxplain.passes.optimise.steep import STEEPEST

_WIDEST = 2
"""A steep line leaves the bounds at once, and exactly at c, where they are no further apart."""

_NEAREST = 2.0**-90
"""A c other than zero has at least this size, so that what differs from it differs by a normal number."""


class SteepClips(NodeRewrite):
    """Where(x > c, a, b), with x < c as well, is Clip(+-2^127 (x - c) + b, a, b); Sign(x) is Clip(2^127 x, -1, 1).

    Exact for all normal float32; NaN stays NaN. The stabiliser of LRP and the slopes of LeakyRelu are such choices.
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        if node.op == "Sign" and node.inputs[0].dtype == np.float32:
            return g.clip(g.wrap(node.inputs[0]) * STEEPEST, -1, 1)
        comparison = node.inputs[0].inputs[0] if node.op == "Where" and node.inputs[0].inputs else None
        if comparison is None or comparison.op not in ("Greater", "Less"):
            return None
        x = g.wrap(comparison.inputs[0])
        c, a, b = (_number(g, t, x.rank) for t in (comparison.inputs[1], *node.inputs[1:]))
        if c is None or a is None or b is None:
            return "it does not choose between two numbers by a third"
        if node.outputs[0].dtype != np.float32 or x.dtype != np.float32:
            return f"it is of {x.dtype}"
        if abs(a - b) > _WIDEST or 0 < abs(c) < _NEAREST:
            return "its numbers are too far apart, or too near zero"
        upward = (a > b) == (comparison.op == "Greater")
        return g.clip((x - c) * (STEEPEST if upward else -STEEPEST) + b, min(a, b), max(a, b))


class BentLines(NodeRewrite):
    """max(x, c x) for a c below 1, as gamma's denominators have it, is LeakyRelu(x): one operator instead of two."""

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        if node.op != "Max" or len(node.inputs) != 2:
            return None
        for x, scaled in (node.inputs, node.inputs[::-1]):
            maker = scaled.inputs[0] if scaled.inputs else None
            if maker is None or maker.op != "Mul" or x.name not in (t.name for t in maker.inputs):
                continue
            other = next((t for t in maker.inputs if t.name != x.name), None)
            slope = None if other is None else _number(g, other, g.wrap(x).rank)
            if slope is None or slope >= 1 or x.dtype != np.float32:
                return "the slope is no number below 1, or not in single precision"
            return g.op("LeakyRelu", g.wrap(x), alpha=slope)
        return None


def _number(g: Builder, tensor: gs.Tensor, rank: int) -> float | None:
    """A constant's one number, where it does not add axes to a tensor of that rank."""
    value = g.wrap(tensor)
    if not value.is_constant or set(value.shape) - {1} or value.rank > rank:
        return None
    return float(g.values(value).reshape(()))
