"""What enlarging meant before opset 11: ONNX's converter forgets to say where elements lie."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxplain.errors import UnsupportedModel
from onnxplain.ir.subgraphs import every_graph

OLDER_THAN = 11


def refuse_unclear(model: onnx.ModelProto) -> None:
    """Raise UnsupportedModel for what takes the nearest element and shrinks: runtimes then go by rules of their own."""
    for graph in every_graph(model.graph):
        known = {t.name: t for t in graph.initializer}
        known |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant" and n.attribute}
        for node in graph.node:
            enlarges = node.op_type in ("Upsample", "Resize") and not node.domain
            if enlarges and _mode(node) == "nearest" and any(scale < 1 for scale in _scales(node, known)):
                raise UnsupportedModel(
                    f"node {node.name!r} is a {node.op_type!r} that shrinks to the nearest element, of an opset before "
                    f"{OLDER_THAN}, in which ONNX does not say which one that is.\n"
                    f"  Export the model with opset {OLDER_THAN} or newer."
                )


def settle(model: onnx.ModelProto) -> None:
    """Say of each Resize that the converter made where its elements lie: as they did."""
    for graph in every_graph(model.graph):
        for node in graph.node:
            if node.op_type == "Resize" and not node.domain:
                said = {"coordinate_transformation_mode": "asymmetric"}
                if _mode(node) == "nearest":
                    said["nearest_mode"] = "floor"
                kept = [a for a in node.attribute if a.name not in said]
                del node.attribute[:]
                node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in said.items())])


def _mode(node: onnx.NodeProto) -> str:
    return next((a.s.decode() for a in node.attribute if a.name == "mode"), "nearest")


def _scales(node: onnx.NodeProto, known: dict[str, onnx.TensorProto]) -> list[float]:
    """By what it enlarges; nothing where only a run can tell."""
    for attribute in node.attribute:
        if attribute.name == "scales":
            return list(attribute.floats)
    tensor = known.get(node.input[1]) if len(node.input) > 1 else None
    if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return []
    return np.ravel(numpy_helper.to_array(tensor)).tolist()
