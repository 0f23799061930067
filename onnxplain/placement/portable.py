"""Which operators a graph compiled for any runtime may add, and which of its nodes are others.

What ONNX Runtime's web and mobile builds, TensorRT and OpenVINO all run: no indices of a max-pool, no scatter that
adds, no random numbers, no Resize but linear and nearest.
"""

from __future__ import annotations

import onnx
from onnx import NodeProto, helper

from onnxplain.ir.emitter import PREFIX
from onnxplain.ir.subgraphs import every_node

PORTABLE = frozenset(
    {
        "Abs", "Add", "And", "ArgMax", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant",
        "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "DepthToSpace", "Div", "Equal", "Erf", "Exp", "Expand",
        "Floor", "Gather",
        "GatherElements", "GatherND", "Gemm", "GlobalAveragePool", "Greater", "GreaterOrEqual", "Identity", "Less",
        "LessOrEqual", "Log", "LogSoftmax", "Loop", "MatMul", "Max", "MaxPool", "Min", "Mod", "Mul", "Neg", "NonZero",
        "Not", "Or", "Pad", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
        "ReduceSum", "Relu", "Reshape", "Resize", "Round", "ScatterElements", "ScatterND", "Shape", "Sigmoid", "Sign",
        "Sin", "Slice", "Softmax", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "TopK",
        "Transpose", "Trilu", "Unsqueeze", "Where",
    }
)  # fmt: skip
"""Operators that the explanation may add, whatever the model is."""


def foreign(model: onnx.ModelProto) -> list[str]:
    """Nodes that the compiler added and that some runtime lacks; what the model itself uses is not counted."""
    nodes = list(every_node(model.graph.node))
    own = {node.op_type for node in nodes if not node.name.startswith(PREFIX)}
    return [f"{node.op_type} {node.name!r}{why}" for node in nodes if (why := _why(node, own)) is not None]


def _why(node: NodeProto, own: set[str]) -> str | None:
    """What is wrong with a node, an empty text where it is the operator itself, None where nothing is."""
    if not node.name.startswith(PREFIX):
        return None
    attributes = {a.name: a for a in node.attribute}
    if node.op_type == "MaxPool" and len(node.output) > 1:
        return " with indices"
    if node.op_type.startswith("Scatter") and "reduction" in attributes:
        reduction = helper.get_attribute_value(attributes["reduction"]).decode()
        return None if reduction == "none" else f" with reduction={reduction}"
    if node.op_type == "Resize" and "antialias" in attributes and attributes["antialias"].i:
        return " with antialias"
    return None if node.op_type in PORTABLE or node.op_type in own else ""
