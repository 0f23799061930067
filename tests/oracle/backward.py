"""Gradients of a class score, with the true derivative of ReLU or a changed one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from .interpreter import Oracle, Relu

NORMALISERS = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})
SHAPERS = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout"})


class _GuidedRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        passed: Tensor = gradients[0].clamp(min=0) * (x > 0)
        return passed


class _DeconvRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].clamp(min=0)


def guided_relu(x: Tensor) -> Tensor:
    """ReLU that passes back the gradient's positive part, and only where its input was positive."""
    apply: Callable[[Tensor], Tensor] = _GuidedRelu.apply
    return apply(x)


def deconv_relu(x: Tensor) -> Tensor:
    """ReLU that passes back the gradient's positive part, whatever its input was."""
    apply: Callable[[Tensor], Tensor] = _DeconvRelu.apply
    return apply(x)


def logits_name(model: onnx.ModelProto, output: str | None = None) -> str:
    """The tensor before the softmax (or its like) that ends the model; the output itself where none does.

    Between them there may be operators that only change the shape or type.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    name = last = output or model.graph.output[0].name
    while (node := producers.get(name)) is not None:
        if node.op_type in NORMALISERS:
            return str(node.input[0])
        if node.op_type not in SHAPERS:
            break
        name = node.input[0]
    return last


def gradient(
    model: onnx.ModelProto,
    x: Tensor | np.ndarray[Any, Any],
    class_index: Sequence[int] | Tensor | np.ndarray[Any, Any],
    *,
    input_name: str | None = None,
    score: str | None = None,
    relu: Relu | None = None,
    dtype: torch.dtype = torch.float64,
    pinned: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """The gradient of each sample's score for its class, with respect to the input.

    score: the tensor (N, classes, ...) that holds the scores; by default the one before the trailing softmax.
    """
    oracle = Oracle(model, dtype)
    if input_name is None:
        (input_name,) = oracle.inputs
    score = score or logits_name(model)
    x = torch.as_tensor(x).detach().to(dtype).requires_grad_()
    scores = oracle.run({input_name: x}, outputs=[score], relu=relu, pinned=pinned)[score].flatten(1)
    classes = torch.as_tensor(class_index).to(torch.int64).reshape(-1, 1)
    (result,) = torch.autograd.grad(scores.gather(1, classes).sum(), x)
    return result
