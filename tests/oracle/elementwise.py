"""Arithmetic, comparison and logic, element by element."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import torch
from onnx import TensorProto
from torch import Tensor

from .registry import FLOATS, Op, operator

INTEGERS: Mapping[int, torch.dtype] = {
    TensorProto.BOOL: torch.bool,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT16: torch.int64,
    TensorProto.UINT32: torch.int64,
    TensorProto.UINT64: torch.int64,
}


def unary(name: str, function: Callable[[Tensor], Tensor]) -> None:
    @operator(name)
    def handler(op: Op, x: Tensor) -> Tensor:
        return function(x)


def binary(name: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    @operator(name)
    def handler(op: Op, a: Tensor, b: Tensor) -> Tensor:
        return function(a, aligned(op, a, b))


def variadic(name: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    @operator(name)
    def handler(op: Op, *xs: Tensor) -> Tensor:
        return reduce(function, xs)


def aligned(op: Op, a: Tensor, b: Tensor) -> Tensor:
    """Before opset 7 the second operand broadcasts from a stated axis, not from the last one."""
    if op.opset >= 7 or not op.integer("broadcast", 0) or not op.has("axis"):
        return b
    axis = op.integer("axis", 0) % a.dim()
    return b.reshape(*b.shape, *[1] * (a.dim() - axis - b.dim()))


def divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def power(a: Tensor, b: Tensor) -> Tensor:
    return torch.pow(a, b).to(a.dtype)


UNARY: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Identity": lambda x: x,
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Sign": torch.sign,
    "Sqrt": torch.sqrt,
    "Exp": torch.exp,
    "Log": torch.log,
    "Reciprocal": torch.reciprocal,
    "Erf": torch.erf,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": torch.round,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Tan": torch.tan,
    "Asin": torch.asin,
    "Acos": torch.acos,
    "Atan": torch.atan,
    "Sinh": torch.sinh,
    "Cosh": torch.cosh,
    "Asinh": torch.asinh,
    "Acosh": torch.acosh,
    "Atanh": torch.atanh,
    "Not": torch.logical_not,
    "IsNaN": torch.isnan,
}
BINARY: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": divide,
    "Pow": power,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}
VARIADIC: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Sum": torch.add,
    "Max": torch.maximum,
    "Min": torch.minimum,
}
for name in UNARY:
    unary(name, UNARY[name])
for name in BINARY:
    binary(name, BINARY[name])
for name in VARIADIC:
    variadic(name, VARIADIC[name])


@operator("Mean")
def mean(op: Op, *xs: Tensor) -> Tensor:
    return reduce(torch.add, xs) / len(xs)


@operator("Mod")
def mod(op: Op, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if op.integer("fmod", 0) else torch.remainder(a, b)


@operator("IsInf")
def is_inf(op: Op, x: Tensor) -> Tensor:
    above = torch.isposinf(x) if op.integer("detect_positive", 1) else torch.zeros_like(x, dtype=torch.bool)
    return above | torch.isneginf(x) if op.integer("detect_negative", 1) else above


@operator("Where")
def where(op: Op, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition, a, b)


@operator("Clip")
def clip(op: Op, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if op.opset < 11:
        low = torch.tensor(op.real("min", 0), dtype=x.dtype) if op.has("min") else None
        high = torch.tensor(op.real("max", 0), dtype=x.dtype) if op.has("max") else None
    return x if low is None and high is None else torch.clamp(x, low, high)


@operator("Cast")
def cast(op: Op, x: Tensor) -> Tensor:
    """Every floating type is the oracle's own: it computes the model's mathematics, not its rounding."""
    to = op.attributes["to"]
    wanted = TensorProto.DataType.Value(to.decode()) if isinstance(to, bytes) else int(to)  # a name, before opset 6
    if wanted not in FLOATS and wanted not in INTEGERS:
        raise op.refuse(f"type {TensorProto.DataType.keys()[wanted]}")
    return x.to(op.dtype if wanted in FLOATS else INTEGERS[wanted])


@operator("CastLike")
def cast_like(op: Op, x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)
