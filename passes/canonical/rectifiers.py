"""ReLU by other names: methods that change what comes back through a ReLU have to know every one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.model import Model
from onnxplain.passes.base import Pass, Report

_SCALARS = 1 << 16
"""Elements of a constant up to which it is looked at."""


class NameRectifiers(Pass[Model]):
    """Max(x, 0), LeakyRelu and PRelu of slope 0, ThresholdedRelu from 0, Where(x > 0, x, 0) and x (x > 0) become Relu.

    Precondition: types are known. Exact, but that where the operand is NaN the others differ among themselves.
    """

    def run(self, model: Model) -> Report:
        changed = 0
        for node in model.graph.nodes:
            x = None if node.domain else next(_rectified(model, node), None)
            if x is not None and _is_real(x) and x.shape is not None and x.shape == node.outputs[0].shape:
                node.op, node.attrs, node.inputs = "Relu", {}, [x]
                changed += 1
        return Report(changed)


def _rectified(model: Model, node: gs.Node) -> Iterator[gs.Tensor]:
    """What a node rectifies, if it does."""
    match node.op, node.inputs:
        case "LeakyRelu", [x] if node.attrs.get("alpha", 0.01) == 0:
            yield x
        case "ThresholdedRelu", [x] if node.attrs.get("alpha", 1.0) == 0:
            yield x
        case "PRelu", [x, slope] if _is_zero(model, slope):
            yield x
        case "Max", [one, other]:
            yield from (x for x, rest in ((one, other), (other, one)) if _is_zero(model, rest))
        case "Where", [condition, x, zero] if _is_zero(model, zero) and _is_positive(model, condition, x):
            yield x
        case "Mul", [one, other]:
            yield from (x for x, rest in ((one, other), (other, one)) if _is_mask(model, rest, x))


def _is_mask(model: Model, mask: gs.Tensor, x: gs.Tensor) -> bool:
    """Whether a tensor is 1 where x is positive, else 0."""
    cast = _maker(mask, "Cast")
    return cast is not None and _is_positive(model, cast.inputs[0], x)


def _is_positive(model: Model, condition: gs.Tensor, x: gs.Tensor) -> bool:
    """Whether a condition says where x is positive; at zero either will do."""
    for above, below in (("Greater", "Less"), ("GreaterOrEqual", "LessOrEqual")):
        for op, at in ((above, 0), (below, 1)):
            node = _maker(condition, op)
            if node is not None and node.inputs[at] is x and _is_zero(model, node.inputs[1 - at]):
                return True
    return False


def _maker(tensor: gs.Tensor, op: str) -> gs.Node | None:
    node = tensor.inputs[0] if tensor.inputs else None
    return node if node is not None and node.op == op and not node.domain else None


def _is_zero(model: Model, tensor: gs.Tensor) -> bool:
    if not isinstance(tensor, gs.Constant) or int(np.prod(tensor.shape)) > _SCALARS:
        return False
    return not np.any(model.weights.array(tensor))


def _is_real(tensor: gs.Tensor) -> bool:
    return isinstance(tensor.dtype, int) or (tensor.dtype is not None and np.issubdtype(tensor.dtype, np.floating))
