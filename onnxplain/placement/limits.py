"""What the table of kernels does not say: attributes that a CUDA kernel refuses, and operands that it wants on the CPU.

Asked of ONNX Runtime 1.31.1's partitioner, node by node (benchmarks/cuda/partitioner.py).
"""

from __future__ import annotations

from onnx import NodeProto, helper

HOST_INPUTS: dict[str, frozenset[int]] = {
    "ConstantOfShape": frozenset({0}),
    "CumSum": frozenset({1}),
    "Dropout": frozenset({1, 2}),
    "Expand": frozenset({1}),
    "If": frozenset({0}),
    "Loop": frozenset({0, 1}),
    "OneHot": frozenset({1, 2}),
    "Pad": frozenset({1, 2, 3}),
    "Range": frozenset({0, 1, 2}),
    "ReduceL1": frozenset({1}),
    "ReduceL2": frozenset({1}),
    "ReduceLogSum": frozenset({1}),
    "ReduceLogSumExp": frozenset({1}),
    "ReduceMax": frozenset({1}),
    "ReduceMean": frozenset({1}),
    "ReduceMin": frozenset({1}),
    "ReduceProd": frozenset({1}),
    "ReduceSum": frozenset({1}),
    "ReduceSumSquare": frozenset({1}),
    "Reshape": frozenset({1}),
    "Resize": frozenset({1, 2, 3}),
    "SequenceAt": frozenset({1}),
    "SequenceErase": frozenset({1}),
    "SequenceInsert": frozenset({2}),
    "Slice": frozenset({1, 2, 3, 4}),
    "Split": frozenset({1}),
    "Squeeze": frozenset({1}),
    "Tile": frozenset({1}),
    "TopK": frozenset({1}),
    "Trilu": frozenset({1}),
    "Unsqueeze": frozenset({1}),
    "Upsample": frozenset({1}),
}
"""Operands that the CUDA kernel reads on the CPU: shapes, axes, bounds."""

HOST_OUTPUTS = frozenset({"Shape", "Size", "SequenceLength"})
"""Operators whose result the CUDA kernel leaves on the CPU."""


def refusal(node: NodeProto) -> str:
    """Why the CUDA provider leaves a node to the CPU although it has a kernel for it, or nothing."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "ConvTranspose":
        if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            return f"ConvTranspose with auto_pad={attributes['auto_pad'].decode()} is left to the CPU"
        pads = list(attributes.get("pads", []))
        half = len(pads) // 2
        if pads[:half] != pads[half:]:
            return f"ConvTranspose with pads {pads} that differ before and after is left to the CPU"
    if node.op_type in ("ArgMax", "ArgMin") and attributes.get("select_last_index"):
        return f"{node.op_type} with select_last_index=1 is left to the CPU"
    if node.op_type in ("LSTM", "GRU", "RNN") and attributes.get("clip"):
        return f"{node.op_type} with clip is left to the CPU"
    if node.op_type == "GRU" and not attributes.get("linear_before_reset"):
        return "GRU with linear_before_reset=0 is left to the CPU"
    return ""
