"""What a tensor that no input reaches holds, however large it is."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from onnxplain.ir.evaluate import evaluate
from onnxplain.ir.model import Model
from onnxplain.ir.weights import Array

_MOVING = frozenset({"Identity", "Expand", "Tile", "Slice", "Gather", "Reshape", "Squeeze", "Unsqueeze", "Transpose"})


def numbers_of(model: Model, tensor: gs.Tensor) -> Array | None:
    """The numbers of a tensor that is computed from constants alone, None where it is not.

    Exporters cut weights to pieces and join them in another order, and folding leaves large ones as they are.
    """
    if isinstance(tensor, gs.Constant):
        return model.weights.array(tensor)
    node = tensor.inputs[0] if tensor.inputs else None
    if node is None or node.domain or not node.inputs or list(node.subgraphs()):
        return None
    arrays = {}
    for operand in node.inputs:
        array = None if operand.is_empty() else numbers_of(model, operand)
        if array is None:
            return None
        arrays[operand.name] = array
    results = evaluate(OnnxExporter.export_node(node), arrays, int(model.graph.opset), whole=True)
    return None if results is None else results[[t.name for t in node.outputs].index(tensor.name)]


def is_zero(model: Model, tensor: gs.Tensor) -> bool:
    """Whether all its elements are known to be zero, of however many the running graph makes them."""
    if isinstance(tensor, gs.Constant):
        return not np.any(model.weights.array(tensor))
    node = tensor.inputs[0] if tensor.inputs else None
    if node is None or node.domain:
        return False
    if node.op == "ConstantOfShape":
        return "value" not in node.attrs or not np.any(node.attrs["value"].values)
    return node.op in _MOVING and is_zero(model, node.inputs[0])
