"""Masks as ONNX Runtime's CPU kernels do them best: steps that stay in the blocked layout."""

from __future__ import annotations

from functools import reduce

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.passes.optimise.blocked import in_blocks, through_convolution
from onnxplain.passes.optimise.rewriting import NodeRewrite
from onnxplain.passes.optimise.steep import STEEPEST

_STEEP = 2.0**120
"""Leaves room for the bounds: the largest of them times this is still a float32."""

_SMALLEST_BOUND, _LARGEST_BOUND = 2.0**-90, 64


class BlockedMasks(NodeRewrite):
    """Where a tensor is compared with a constant, a HardSigmoid so steep that it is a step, instead of 0 or 1.

    Greater, Less and Cast leave the blocked layout, and take twice as long wherever they run. The slope is a power of
    two, so y - c is exact: the step is right for y = c and, for c = 0, for every normal float32 (2^127 times the
    smallest is 2). A mask of 0 < y < c, as behind a ReLU6, is exact for all y from 2^-121. Halves and doubles are left
    alone.
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        """The step, or the product of two, for a Cast of comparisons."""
        if node.op != "Cast" or not node.inputs[0].inputs:
            return None
        condition = node.inputs[0].inputs[0]
        parts = [t.inputs[0] for t in condition.inputs if t.inputs] if condition.op == "And" else [condition]
        if not parts or any(part.op not in ("Greater", "Less") for part in parts):
            return None
        if node.outputs[0].dtype != np.float32 or any(part.inputs[0].dtype != np.float32 for part in parts):
            return f"it is of {parts[0].inputs[0].dtype}"
        window = _window(g, parts)
        if window is not None:
            return window
        steps = [_step(g, part) for part in parts]
        if any(step is None for step in steps):
            return "what it compares with is no constant near zero"
        return reduce(lambda a, b: a * b, [step for step in steps if step is not None])


def _window(g: Builder, comparisons: list[gs.Node]) -> Value | None:
    """0 < y < c as numbers, for a y between 0 and c: the step of a function that is zero at both ends alone.

    HardSwish(x) = x min(max(x / 6 + 1/2, 0), 1) at x = -3 y / c is such a function, and the runtime computes it within
    the convolution that scales y. Two operators instead of two steps and their product.
    """
    if len(comparisons) != 2 or {part.op for part in comparisons} != {"Greater", "Less"}:
        return None
    (y, low), (same, high) = (part.inputs for part in sorted(comparisons, key=lambda part: str(part.op)))
    if y is not same or not y.inputs or y.inputs[0].op != "Clip" or not in_blocks(y):
        return None
    if not all(isinstance(t, gs.Constant) and t.values.size == 1 for t in (low, high)):
        return None
    top = np.float32(high.values.reshape(()))
    if float(low.values.reshape(())) != 0 or not _ends_at(top):
        return None
    inside = g.op("HardSwish", through_convolution(g, g.wrap(y), -3 / float(top)))
    return g.op("HardSigmoid", inside, alpha=-STEEPEST, beta=0.0)


def _ends_at(top: np.float32) -> bool:
    """Whether HardSwish(-3 y / top) is zero at y = top, and not at the number before it, however it is rounded."""
    if not 0 < top <= _LARGEST_BOUND:
        return False
    scale, slope = np.float32(-3 / float(top)), np.float32(1 / 6)
    at, before = (float(scale * y) for y in (top, np.nextafter(top, np.float32(0))))
    rounded = [np.float32(slope * np.float32(x)) + np.float32(0.5) for x in (at, before)]
    fused = [float(slope) * x + 0.5 for x in (at, before)]
    return all(end <= 0 < last for end, last in (rounded, fused))


def _step(g: Builder, comparison: gs.Node) -> Value | None:
    """y > c or y < c as numbers: min(max(slope (y - c), 0), 1), the slope turned round for y < c."""
    y, bound = comparison.inputs
    if not isinstance(bound, gs.Constant) or bound.values.size != 1 or bound.values.ndim > len(y.shape or ()):
        return None
    c = float(bound.values.reshape(()))
    if c and not _SMALLEST_BOUND <= abs(c) <= _LARGEST_BOUND:
        return None
    slope = (STEEPEST if c == 0 else _STEEP) * (1 if comparison.op == "Greater" else -1)
    return g.op("HardSigmoid", g.wrap(y), alpha=slope, beta=-c * slope if c else 0.0)
