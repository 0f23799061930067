"""A matrix product of a stack and the bias that is added behind it, as one layer."""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.model import Model
from onnxplain.passes.base import Pass, Refusal, Report


class JoinBias(Pass[Model]):
    """MatMul(x, w) + b of a stack x (..., K) becomes a Gemm on all its rows, with the leading axes put back behind it.

    Exporters write a dense layer on a sequence as two operators. A rule that weighs contributions by their sign must
    see the bias among them. (Of matrices, FoldBatchNorm makes a Gemm.)
    """

    def run(self, model: Model) -> Report:
        changed, refusals = 0, []
        for add in [node for node in model.graph.nodes if node.op == "Add" and not node.domain]:
            bias = next((t for t in add.inputs if isinstance(t, gs.Constant)), None)
            product = next((t for t in add.inputs if not isinstance(t, gs.Constant)), None)
            if bias is None or product is None or not _is_layer(model, product, bias):
                continue
            sizes = list(add.outputs[0].shape or ())
            if len(product.outputs) > 1 or any(t.name == product.name for t in model.graph.outputs):
                refusals.append(Refusal(add.name, f"{product.name!r} is read elsewhere too"))
            elif sum(not isinstance(d, int) for d in sizes) > 1:
                refusals.append(Refusal(add.name, "more than one size of the stack is known only at run time"))
            else:
                _join(model, product.inputs[0], add, bias)
                changed += 1
        return Report(changed, tuple(refusals))


def _is_layer(model: Model, product: gs.Tensor, bias: gs.Constant) -> bool:
    """Whether a tensor is a stack times constant weights, and the constant one number for each of its columns."""
    node = product.inputs[0] if product.inputs else None
    if node is None or node.op != "MatMul" or node.domain or len(product.shape or ()) < 3:
        return False
    x, w = node.inputs
    if isinstance(x, gs.Constant) or not isinstance(w, gs.Constant) or len(w.shape) != 2:
        return False
    b = model.weights.array(bias)
    return b.ndim > 0 and b.size == b.shape[-1] == w.shape[1] and b.ndim <= len(product.shape)


def _join(model: Model, matmul: gs.Node, add: gs.Node, bias: gs.Constant) -> None:
    x, w = matmul.inputs
    y, name = add.outputs[0], matmul.name
    depth, width = (int(d) for d in w.shape)
    lead = list(y.shape)[:-1]
    count = math.prod(lead) if all(isinstance(d, int) for d in lead) else None
    rows = gs.Variable(f"{name}/rows", x.dtype, [count, depth])
    out = gs.Variable(f"{name}/out", y.dtype, [count, width])
    b = gs.Constant(f"{name}/bias", model.weights.array(bias).reshape(-1))
    at = next(i for i, node in enumerate(model.graph.nodes) if node is add)
    for node in (matmul, add):
        node.inputs.clear()
        node.outputs.clear()
    to_rows = gs.Constant(f"{name}/to rows", np.asarray([-1, depth], np.int64))
    to_stack = gs.Constant(
        f"{name}/to stack", np.asarray([d if isinstance(d, int) else -1 for d in [*lead, width]], np.int64)
    )
    model.graph.nodes[at : at + 1] = [
        gs.Node("Reshape", f"{name}/rows", {}, [x, to_rows], [rows]),
        gs.Node("Gemm", name, {}, [rows, w, b], [out]),
        gs.Node("Reshape", f"{name}/stack", {}, [out, to_stack], [y]),
    ]
    model.graph.nodes[:] = [node for node in model.graph.nodes if node is not matmul]
