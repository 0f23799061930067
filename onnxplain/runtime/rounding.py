"""How coarsely a model computes, which its ends do not tell: many take and return float32, and round to half inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import NodeProto, TensorProto, inliner

from onnxplain.ir.order import order, read_by
from onnxplain.ir.subgraphs import every_node

EPS: dict[int, float] = {TensorProto.BFLOAT16: 2.0**-7, TensorProto.FLOAT16: 2.0**-10, TensorProto.FLOAT: 2.0**-23}
"""From 1 to the next number, by type; those that nobody computes in, such as float8, are only ways to store numbers."""


def roundings(path: Path) -> dict[str, float]:
    """By output of a model, EPS of the coarsest type that something on the way from the inputs is computed in.

    Weights count as what they are turned into before they meet the input. Outputs of integers alone have 0.
    """
    model = onnx.load(path, load_external_data=False)
    if model.functions:
        model = inliner.inline_local_functions(model)
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # C++ behind; a node whose type is then not known is as coarse as what it reads
        graph = model.graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    order(graph)
    weights = {tensor.name for tensor in graph.initializer}
    coarse = {v.name: EPS.get(types[v.name], 0.0) for v in graph.input if v.name not in weights}
    for node in graph.node:
        read = [coarse[name] for name in read_by(node) if name in coarse]
        if not read:
            continue
        inside = [EPS.get(to, 0.0) for to in _casts(node)]
        for name in node.output:
            coarse[name] = max(*read, *inside, EPS.get(types.get(name, 0), 0.0))
    return {output.name: coarse.get(output.name, 0.0) for output in graph.output}


def _casts(node: NodeProto) -> Iterator[int]:
    """The types that a node casts to, or its branches and bodies."""
    for each in every_node([node]):
        yield from (attribute.i for attribute in each.attribute if each.op_type == "Cast" and attribute.name == "to")
