"""What a case of one operator is: the nodes as text, an opset, and the operands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser

Array = NDArray[Any]
Value = tuple[int, ...] | list[Any] | Array | np.generic


@dataclass(frozen=True)
class Case:
    text: str
    opset: int
    values: dict[str, Value]

    def __str__(self) -> str:
        return f"{self.opset}: {self.text}"

    def __iter__(self) -> Iterator[tuple[str, Array]]:
        """Operands by name: a tuple is a shape to fill with normal noise, everything else a value."""
        rng = np.random.default_rng(len(self.text))
        for name, value in self.values.items():
            if isinstance(value, tuple):
                yield name, rng.standard_normal(value, np.float32)
            else:
                array = np.asarray(value)
                yield name, array.astype(np.float32) if array.dtype == np.float64 else array

    def model(self) -> onnx.ModelProto:
        """Shapes become inputs; values become weights, which some kernels insist on for axes, sizes and the like."""
        nodes = [parser.parse_node(line) for line in self.text.split(";")]
        inputs, weights = [], []
        for name, array in self:
            if isinstance(self.values[name], tuple):
                inputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape))
            else:
                weights.append(numpy_helper.from_array(array, name))
        outputs = [onnx.ValueInfoProto(name=name) for name in nodes[-1].output]
        graph = helper.make_graph(nodes, "case", inputs, outputs, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)

    def inputs(self) -> dict[str, Array]:
        return {name: array for name, array in self if isinstance(self.values[name], tuple)}


def cases(text: str, *opsets: int, **values: Value) -> list[Case]:
    return [Case(text, opset, values) for opset in opsets]


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def positive(*shape: int) -> Array:
    return np.abs(np.random.default_rng(1).standard_normal(shape, np.float32)) + np.float32(0.1)


def within(*shape: int) -> Array:
    """Strictly between -1 and 1."""
    return np.random.default_rng(2).uniform(-0.9, 0.9, shape).astype(np.float32)


X = (2, 3, 5, 4)
"""The usual shape: batch, channels, and two spatial axes that differ."""

TIED = np.array([[[[1.0, 3, 3, 0], [3, 3, 1, 2], [0, 0, 0, 0], [5, 5, 5, 5]]]], np.float32)
