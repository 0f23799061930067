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
    """Max(x, 0), and LeakyRelu and PRelu of slope 0, become Relu.

    Precondition: types are known. Exact, but that those two make NaN of minus infinity. Where(x > 0, x, 0) and
    x (x > 0) stay what they are: of what is not a number they make something else.
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
        case "PRelu", [x, slope] if _is_zero(model, slope):
            yield x
        case "Max", [one, other]:
            yield from (x for x, rest in ((one, other), (other, one)) if _is_zero(model, rest))


def _is_zero(model: Model, tensor: gs.Tensor) -> bool:
    if not isinstance(tensor, gs.Constant) or int(np.prod(tensor.shape)) > _SCALARS:
        return False
    return not np.any(model.weights.array(tensor))


def _is_real(tensor: gs.Tensor) -> bool:
    return isinstance(tensor.dtype, int) or (tensor.dtype is not None and np.issubdtype(tensor.dtype, np.floating))
