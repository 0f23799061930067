"""Models without biases, for what conservation of relevance promises."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "LayerNormalization", "InstanceNormalization"})
SHAPERS = frozenset({"Unsqueeze", "Reshape", "Identity", "Expand"})


def without_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every constant zero that is added to a signal, or put beside it.

    Those are biases of layers, shift and mean of batch norms, position embeddings, class tokens. Single numbers stay:
    they belong to activations (1 + erf) and to norms (variance + epsilon).
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    constants = {i.name: i for i in graph.initializer}
    constants |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant"}
    shaped = {n.output[0]: n.input[0] for n in graph.node if n.op_type in SHAPERS}
    for node in graph.node:
        if node.op_type in LAYERS:
            added = list(node.input[2:3])
        elif node.op_type == "BatchNormalization":
            added = list(node.input[2:4])
        else:
            added = list(node.input) if node.op_type in ("Add", "Sub", "Sum", "Concat") else []
        for name in added:
            while name in shaped and name not in constants:
                name = shaped[name]
            if name in constants:
                clear(constants[name])
    return changed


def clear(tensor: onnx.TensorProto) -> None:
    """Set a vector or more of real numbers to zero."""
    values = numpy_helper.to_array(tensor)
    if values.dtype.kind == "f" and values.size > 1:
        tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(values), tensor.name))
