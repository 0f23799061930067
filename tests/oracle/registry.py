"""Which function computes which operator, and how such a function reads its node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

Handler = Callable[..., Tensor | Sequence[Tensor]]

HANDLERS: dict[str, Handler] = {}

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})


class UnknownOperator(NotImplementedError):
    """The oracle has no function for this operator, or not for this use of it."""


@dataclass(frozen=True)
class Op:
    """One node as its function sees it: attributes, opset of the default domain, floating type to compute in."""

    node: onnx.NodeProto
    opset: int
    dtype: torch.dtype
    attributes: dict[str, Any]

    @classmethod
    def of(cls, node: onnx.NodeProto, opset: int, dtype: torch.dtype) -> Op:
        return cls(node, opset, dtype, {a.name: helper.get_attribute_value(a) for a in node.attribute})

    def has(self, name: str) -> bool:
        return name in self.attributes

    def integer(self, name: str, default: int) -> int:
        return int(self.attributes.get(name, default))

    def real(self, name: str, default: float) -> float:
        return float(self.attributes.get(name, default))

    def text(self, name: str, default: str) -> str:
        return bytes(self.attributes[name]).decode() if name in self.attributes else default

    def integers(self, name: str, default: Sequence[int] = ()) -> list[int]:
        return [int(v) for v in self.attributes.get(name, default)]

    def listed(self, name: str, given: Tensor | None) -> list[int] | None:
        """A list that older opsets hold in an attribute and newer ones in an input; None where neither is there."""
        if given is not None:
            return as_list(given)
        return self.integers(name) if self.has(name) else None

    def refuse(self, what: str) -> UnknownOperator:
        return UnknownOperator(f"the oracle does not compute {self.node.op_type} with {what}")


def operator(*names: str) -> Callable[[Handler], Handler]:
    """Register a function for the operators named."""

    def register(handler: Handler) -> Handler:
        for name in names:
            if name in HANDLERS:
                raise ValueError(f"{name} is registered twice")
            HANDLERS[name] = handler
        return handler

    return register


def as_list(values: Tensor) -> list[int]:
    return [int(v) for v in values.reshape(-1).tolist()]


def to_tensor(value: TensorProto | np.ndarray[Any, Any], dtype: torch.dtype) -> Tensor:
    """A stored tensor: floats in `dtype`, integers and booleans in a type that torch computes with."""
    if isinstance(value, TensorProto) and value.data_type == TensorProto.BFLOAT16:
        value = numpy_helper.to_array(value).astype(np.float32)
    array = numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)
    if array.dtype in (np.uint16, np.uint32, np.uint64):
        array = array.astype(np.int64)
    if array.dtype.kind == "f":
        # torch.tensor copies: protobuf's bytes are read-only, and torch would warn about sharing them.
        return torch.tensor(array).to(dtype)
    return torch.tensor(array)
