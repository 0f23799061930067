"""Type and shape of one node's outputs, by ONNX's own inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import NodeProto, TypeProto, helper, numpy_helper
from onnx.shape_inference import infer_node_outputs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from onnxplain.ir.value import Dim
from onnxplain.ir.weights import Array

DATA_UP_TO = 64
"""Elements. Operands up to this size may be shapes, axes or bounds, which inference reads."""

LIKE_FIRST = frozenset({"GroupNormalization", "MeanVarianceNormalization"})
"""Operators whose output is like their first operand, and of which ONNX's inference says nothing or something wrong."""

SEQUENCES = frozenset(
    {
        "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
        "SequenceMap", "SplitToSequence", "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement",
    }
)  # fmt: skip
"""Operators that take or make sequences, of which onnx-graphsurgeon keeps no type."""

POOLS = frozenset({"MaxPool", "AveragePool", "LpPool"})
"""Operators whose ceil_mode inference gets right from opset 22 on: no window starts in the padding behind."""

RIGHT_FROM = 22

Inferred = dict[str, tuple[Any, "list[Dim] | None"]]
"""{tensor name: (dtype, shape or None)}"""


def infer(node: gs.Node, opset: int, read: Callable[[gs.Constant], Array], proto: NodeProto | None = None) -> Inferred:
    """What ONNX says of the node's outputs; nothing for an operator that it does not know.

    read: gives the numbers of a constant.
    """
    if node.op in LIKE_FIRST and not node.domain:
        like = node.inputs[0]
        return {node.outputs[0].name: (like.dtype, None if like.shape is None else list(like.shape))}
    if node.op in SEQUENCES and not node.domain:
        return {}
    if node.op in POOLS and not node.domain:
        opset = max(opset, RIGHT_FROM)
    try:
        schema = onnx.defs.get_schema(node.op, opset, node.domain or "")
    except onnx.defs.SchemaError:
        return {}
    operands = [t for t in node.inputs if not t.is_empty()]
    if any(t.dtype is None for t in operands):
        return {}  # it comes from an operator that ONNX does not know
    types = {t.name: _type_proto(t) for t in operands}
    data = {
        t.name: numpy_helper.from_array(np.asarray(read(t)), t.name)
        for t in operands
        if isinstance(t, gs.Constant) and np.prod(t.shape) <= DATA_UP_TO
    }
    found = infer_node_outputs(
        schema,
        OnnxExporter.export_node(node) if proto is None else proto,
        types,
        data,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=10,
    )
    return {name: (_dtype(inferred), _dims(inferred)) for name, inferred in found.items()}


def _type_proto(tensor: gs.Tensor) -> TypeProto:
    elem = tensor.dtype if isinstance(tensor.dtype, int) else helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return helper.make_tensor_type_proto(elem, tensor.shape)


def _dtype(inferred: TypeProto) -> np.dtype[Any]:
    return helper.tensor_dtype_to_np_dtype(inferred.tensor_type.elem_type)


def _dims(inferred: TypeProto) -> list[Dim] | None:
    if not inferred.tensor_type.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in inferred.tensor_type.shape.dim]
