"""A walk along many inputs with every ReLU and pool decided as the compiled graph decided it, point by point."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from onnx import ModelProto, NodeProto
from torch import Tensor

from tests.catalogue import Array, Floats
from tests.oracle import gradient
from tests.running import exposing, kinks, run


def gradients_as_decided(
    unrolled: ModelProto, model: ModelProto, feeds: dict[str, Array], points: Sequence[Floats], classes: Array
) -> list[Tensor]:
    """Autograd at every point in float64, in which kinks are passed on the side on which the compiled graph was.

    unrolled: compiled with one chunk after another, each of one point.
    model:    what it was compiled from.
    """
    at = [_twins(unrolled, model, k) for k in range(len(points))]
    returned = run(exposing(unrolled, (name for twins in at for name in twins.values())), feeds)
    return [
        gradient(model, point, classes, pinned={own: torch.from_numpy(returned[twin]) for own, twin in twins.items()})
        for point, twins in zip(points, at, strict=True)
    ]


def _twins(unrolled: ModelProto, model: ModelProto, k: int) -> dict[str, str]:
    """For each tensor of the model that decides about a kink, the one in the k-th forward pass on the path."""
    nodes = {node.name: node for node in unrolled.graph.node}
    found = {}
    for tensor in kinks(model):
        forward = _decider(unrolled, tensor)
        name = f"onnxplain/path/{forward.name}/{forward.op_type}"
        twin = nodes[name if k == 0 else f"{name}_{k}"]
        found[tensor] = twin.output[0] if forward.op_type == "Relu" else twin.input[0]
    return found


def _decider(compiled: ModelProto, tensor: str) -> NodeProto:
    """The ReLU that makes a tensor, or the pool that reads it, on the forward path."""
    return next(
        node
        for node in compiled.graph.node
        if (node.op_type == "Relu" and node.output[0] == tensor)
        or (node.op_type == "MaxPool" and node.input[0] == tensor and len(node.output) == 1)
    )
