"""Activation functions, and the softmax family."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .registry import Op, operator


@operator("Relu")
def relu(op: Op, x: Tensor) -> Tensor:
    return torch.relu(x)


@operator("Sigmoid")
def sigmoid(op: Op, x: Tensor) -> Tensor:
    return torch.sigmoid(x)


@operator("Tanh")
def tanh(op: Op, x: Tensor) -> Tensor:
    return torch.tanh(x)


@operator("LeakyRelu")
def leaky_relu(op: Op, x: Tensor) -> Tensor:
    return F.leaky_relu(x, op.real("alpha", 0.01))


@operator("PRelu")
def prelu(op: Op, x: Tensor, slope: Tensor) -> Tensor:
    if op.opset < 7 and slope.dim() == 1 and x.dim() > 1:
        slope = slope.reshape(-1, *[1] * (x.dim() - 2))  # one slope a channel
    return torch.where(x > 0, x, slope * x)


@operator("Elu")
def elu(op: Op, x: Tensor) -> Tensor:
    return F.elu(x, op.real("alpha", 1.0))


@operator("Selu")
def selu(op: Op, x: Tensor) -> Tensor:
    alpha, gamma = op.real("alpha", 1.67326319217681884765625), op.real("gamma", 1.05070102214813232421875)
    return gamma * F.elu(x, alpha)


@operator("Celu")
def celu(op: Op, x: Tensor) -> Tensor:
    return F.celu(x, op.real("alpha", 1.0))


@operator("ThresholdedRelu")
def thresholded_relu(op: Op, x: Tensor) -> Tensor:
    return torch.where(x > op.real("alpha", 1.0), x, torch.zeros_like(x))


@operator("Shrink")
def shrink(op: Op, x: Tensor) -> Tensor:
    bias, lambd = op.real("bias", 0.0), op.real("lambd", 0.5)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x)))


def logistic_log(x: Tensor) -> Tensor:
    """log(1 + exp(x)); F.softplus turns into the identity above 20, which float64 can tell."""
    return torch.logaddexp(x, torch.zeros_like(x))


@operator("Softplus")
def softplus(op: Op, x: Tensor) -> Tensor:
    return logistic_log(x)


@operator("Softsign")
def softsign(op: Op, x: Tensor) -> Tensor:
    return F.softsign(x)


@operator("Mish")
def mish(op: Op, x: Tensor) -> Tensor:
    return x * torch.tanh(logistic_log(x))


@operator("Swish")
def swish(op: Op, x: Tensor) -> Tensor:
    return x * torch.sigmoid(op.real("alpha", 1.0) * x)


@operator("Gelu")
def gelu(op: Op, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=op.text("approximate", "none"))


@operator("HardSigmoid")
def hard_sigmoid(op: Op, x: Tensor) -> Tensor:
    return torch.clamp(op.real("alpha", 0.2) * x + op.real("beta", 0.5), 0, 1)


@operator("HardSwish")
def hard_swish(op: Op, x: Tensor) -> Tensor:
    return x * torch.clamp(x / 6 + 0.5, 0, 1)


def over_classes(op: Op, x: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Before opset 13 everything from the axis on is one row; since then the axis is the row."""
    if op.opset >= 13:
        return function(x, op.integer("axis", -1))
    axis = op.integer("axis", 1) % x.dim() if x.dim() else 0
    rows = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    return function(rows, 1).reshape(x.shape)


@operator("Softmax")
def softmax(op: Op, x: Tensor) -> Tensor:
    return over_classes(op, x, torch.softmax)


@operator("LogSoftmax")
def log_softmax(op: Op, x: Tensor) -> Tensor:
    return over_classes(op, x, torch.log_softmax)


@operator("Hardmax")
def hardmax(op: Op, x: Tensor) -> Tensor:
    def first_largest(rows: Tensor, axis: int) -> Tensor:
        return torch.zeros_like(rows).scatter(axis, rows.argmax(axis, keepdim=True), 1)

    return over_classes(op, x, first_largest)


@operator("Dropout")
def dropout(op: Op, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> tuple[Tensor, Tensor]:
    if training is not None and bool(training):
        raise op.refuse("training_mode true")
    return x, torch.ones_like(x, dtype=torch.bool if op.opset >= 10 else x.dtype)
