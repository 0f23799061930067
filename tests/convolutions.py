"""What a compiled graph costs, in forward passes of its own convolutions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import onnx
import onnx_graphsurgeon as gs

from onnxplain.compiler import explained
from onnxplain.ir.model import Model
from onnxplain.opening import Request

CONVOLUTIONS = ("Conv", "ConvTranspose")


def compiled(model: onnx.ModelProto, method: str, preprocess: Mapping[str, Any] | None = None, **how: Any) -> Model:
    """The compiled graph itself, in which every tensor has a shape.

    It is for CUDA, for which lowering adds no convolutions of its own.
    """
    request = Request(method=method, runtime="cuda", preprocess=preprocess, parameters=how)
    return explained(model, request)


def convolution_passes(model: Model) -> tuple[float, float]:
    """Multiply-adds of all convolutions over those of the forward ones: (hidden layers alone, with the first layers).

    A convolution of constants counts nothing, since runtimes compute it once, when they load the model. A first layer
    is one with no convolution between it and an input; what the way back does there goes into the second number only.
    """
    inputs = {t.name for t in model.graph.inputs}
    varying, deep = set(inputs), set[str]()
    firsts = set[str]()
    forward, everything, first_forward, at_first = 0.0, 0.0, 0.0, 0.0
    for node in model.graph.nodes:
        if not any(t.name in varying for t in node.inputs):
            continue
        behind = any(t.name in deep for t in node.inputs)
        if node.op in CONVOLUTIONS and node.inputs[0].name in varying:
            cost = multiply_adds(node)
            own = not node.name.startswith("onnxplain/")
            if own and not behind:
                firsts.add(node.name)
            everything += cost
            forward += cost * own
            if node.name in firsts or any(node.name.startswith(f"onnxplain/{first}/") for first in firsts):
                at_first += cost
                first_forward += cost * own
            behind = True
        for t in node.outputs:
            varying.add(t.name)
            if behind:
                deep.add(t.name)
    return (everything - at_first) / (forward - first_forward), everything / forward


def multiply_adds(node: gs.Node) -> float:
    """Of one convolution."""
    x, w, y = (list(t.shape) for t in (node.inputs[0], node.inputs[1], node.outputs[0]))
    places = x if node.op == "ConvTranspose" else y
    return float(math.prod(places[2:]) * places[1] * math.prod(w[1:]))
