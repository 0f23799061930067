"""A matrix product to which another signal is added, as the two operations that it is."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.model import Model
from onnxplain.passes.base import Pass, Report


class SplitGemm(Pass[Model]):
    """Gemm whose C is no constant becomes a Gemm without it and an Add, as torch's addmm with a shortcut needs.

    The rules of layers with weights share among the terms of the product, and those of sums between the two.
    """

    def run(self, model: Model) -> Report:
        changed = 0
        for node in [n for n in model.graph.nodes if n.op == "Gemm" and not n.domain and len(n.inputs) > 2]:
            if not node.inputs[2].is_empty() and not isinstance(node.inputs[2], gs.Constant):
                _split(model, node)
                changed += 1
        return Report(changed)


def _split(model: Model, node: gs.Node) -> None:
    y, c, beta = node.outputs[0], node.inputs.pop(2), node.attrs.pop("beta", 1.0)
    product = gs.Variable(model.fresh(f"{node.name}/product"), y.dtype, y.shape)
    node.outputs[0] = product
    added = []
    if beta != 1.0:
        scaled = gs.Variable(model.fresh(f"{node.name}/scaled"), y.dtype, c.shape)
        factor = gs.Constant(model.fresh(f"{node.name}/beta"), np.asarray(beta, y.dtype))
        added.append(gs.Node("Mul", model.fresh(f"{node.name}/scale"), {}, [c, factor], [scaled]))
        c = scaled
    added.append(gs.Node("Add", model.fresh(f"{node.name}/add"), {}, [product, c], [y]))
    behind = model.place_of(node) + 1
    model.graph.nodes[behind:behind] = added
