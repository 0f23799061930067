"""Small models for tests of what surrounds the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
"""Real models and photographs, where they lie beside the checkout."""

HEADER = '<ir_version: 10, opset_import: ["" : 20, "lab" : 1]>\n'


def text(graph: str) -> ModelProto:
    """A model from ONNX's text form."""
    return parser.parse_model(HEADER + graph)


def classifier(
    batch: int | str = "N", *, channels: int = 3, side: int | str = 8, classes: int = 4, last: bool = False
) -> ModelProto:
    """Conv, Relu, global average, linear: `pixels` in, `logits` out; channels last behind a Transpose."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.standard_normal((6, channels, 3, 3)) * 0.4,
        "bias": rng.standard_normal(6) * 0.1,
        "head": rng.standard_normal((6, classes)),
        "offset": rng.standard_normal(classes) * 0.1,
    }
    start = [helper.make_node("Transpose", ["pixels"], ["planes"], "to_planes", perm=[0, 3, 1, 2])] if last else []
    nodes = [
        *start,
        helper.make_node("Conv", ["planes" if last else "pixels", "kernel", "bias"], ["z"], "conv", pads=[1] * 4),
        helper.make_node("Relu", ["z"], ["a"], "relu"),
        helper.make_node("GlobalAveragePool", ["a"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "head", "offset"], ["logits"], "linear"),
    ]
    shape = [batch, side, side, channels] if last else [batch, channels, side, side]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])


def of_bytes(kind: TensorProto.DataType = TensorProto.UINT8) -> ModelProto:
    """The classifier on the whole numbers of a byte: pixels from 0 to 255, as uint8, or others."""
    model = classifier()
    model.graph.input[0].type.tensor_type.elem_type = kind
    model.graph.node.insert(0, helper.make_node("Cast", ["pixels"], ["real"], "cast", to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = "real"
    return model


def pictures(count: int = 2, channels: int = 3, side: int = 8, seed: int = 1) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal((count, channels, side, side)).astype(np.float32)


def saved(model: ModelProto, path: Path, **external: Any) -> Path:
    """Write a model. external: arguments of onnx.save for weights beside it."""
    onnx.save(model, path, **external)
    return path


def with_external_data(folder: Path, location: str) -> Path:
    """The classifier with all its weights in a file, the location then replaced by another text."""
    path = saved(
        classifier(), folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return path
