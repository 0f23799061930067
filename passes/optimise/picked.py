"""The start of every walk: a row with one number that is not zero, times the last layer's weights."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.passes.optimise.rewriting import NodeRewrite, is_emitted


class PickedRow(NodeRewrite):
    """(one at the class, zero elsewhere) W is W's row of that class; times a number where the row had been multiplied.

    The class that a walk starts from exists: passes/explain/target.py puts another in the place of one that does not.
    A product with the last layer's weights reads all of them, for a network of small layers more than a convolution of
    its last block does.
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        if node.op != "Gemm" or node.attrs.get("transA", 0):
            return None
        row, weights = (g.wrap(t) for t in node.inputs[:2])
        classes = _class_of(g, row.tensor)
        if classes is None:
            return None
        if len(node.inputs) > 2:
            return "it has a bias"
        picked = g.gather(weights, classes, axis=1 if node.attrs.get("transB", 0) else 0)
        if node.attrs.get("transB", 0):
            picked = g.transpose(picked, [1, 0])
        if row.tensor.inputs[0].op != "Cast":
            picked = picked * g.sum(row, [1])
        alpha = float(node.attrs.get("alpha", 1.0))
        return g.named(picked if alpha == 1 else picked * alpha, node.outputs[0].shape or ())


def _class_of(g: Builder, row: gs.Tensor) -> Value | None:
    """The classes (N,) outside of which a tensor (N, C) is zero, because it is such a mask or was multiplied by one."""
    node = row.inputs[0] if row.inputs else None
    if node is None:
        return None
    if node.op in ("Mul", "Div"):
        may = node.inputs if node.op == "Mul" else node.inputs[:1]
        return next((found for t in may if len(t.shape or ()) == 2 and (found := _class_of(g, t)) is not None), None)
    if node.op != "Cast" or not is_emitted(node) or not node.inputs[0].inputs or node.inputs[0].inputs[0].op != "Equal":
        return None
    column, every = node.inputs[0].inputs[0].inputs
    maker = column.inputs[0] if column.inputs else None
    if maker is None or maker.op != "Unsqueeze" or len(column.shape or ()) != 2 or not _counts(g, every):
        return None
    axes = g.wrap(maker.inputs[1])
    return g.wrap(maker.inputs[0]) if axes.is_constant and list(g.values(axes)) == [1] else None


def _counts(g: Builder, every: gs.Tensor) -> bool:
    """Whether a vector is 0, 1, 2, ..."""
    value = g.wrap(every)
    if value.is_constant:
        numbers = g.values(value)
        return numbers.ndim == 1 and np.array_equal(numbers, np.arange(len(numbers)))
    maker = every.inputs[0] if every.inputs else None
    if maker is None or maker.op != "Range":
        return False
    start, _, step = (g.wrap(t) for t in maker.inputs)
    return start.is_constant and step.is_constant and (int(g.values(start)), int(g.values(step))) == (0, 1)
