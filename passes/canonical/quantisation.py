"""Quantised operators as the float operator between a dequantiser and a quantiser, of which rules know all three."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from onnxplain.errors import UnsupportedModel
from onnxplain.ir.load import Source
from onnxplain.ir.names import names_in, unique
from onnxplain.ir.weights import Array
from onnxplain.passes.base import Pass, Report
from onnxplain.passes.canonical.opset import opset_of

MICROSOFT = "com.microsoft"

_ONE = {"QLinearSigmoid": "Sigmoid", "QLinearLeakyRelu": "LeakyRelu", "QLinearSoftmax": "Softmax"}
_TWO = {"QLinearAdd": "Add", "QLinearMul": "Mul"}
_POOLS = {"QLinearGlobalAveragePool": "GlobalAveragePool", "QLinearAveragePool": "AveragePool"}
_OWN = {"QLinearConcat", "QGemm"}
_STANDARD = {"QLinearConv", "QLinearMatMul"}
_INTEGER = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}
_MOVING = frozenset(
    {"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Identity", "Expand"}
)
"""Operators that also work on a quantiser's integers, and do the same to what these stand for."""

_NOT_PASSED = ("channels_last", "opset")


class SpellOutQuantised(Pass[Source]):
    """QLinear operators become DequantizeLinear, the operator itself and QuantizeLinear; so does what moves integers.

    That is what they stand for; ONNX Runtime joins the three again when it loads the graph. Weights stay integers.
    Products of integers (MatMulInteger, ConvInteger) become products of the same whole numbers in single precision,
    which holds them exactly up to 2^24: what comes out is then bit for bit the same.
    Postcondition: no operator of that kind is left, but such as are refused later by name.
    """

    def run(self, source: Source) -> Report:
        graph = source.proto.graph
        if opset_of(source.proto) < 10 or not any(
            _is_quantised(n) or n.op_type == "QuantizeLinear" for n in graph.node
        ):
            return Report()
        stored = {t.name: t for t in graph.initializer}
        taken = names_in(graph)
        summed = _summed_exactly(graph)
        quantisers: dict[str, tuple[str, str]] = {}
        nodes: list[NodeProto] = []
        changed = 0
        for node in graph.node:
            if _is_quantised(node) and not (node.op_type in _INTEGER and node.output[0] in summed):
                spelled = _Speller(source, stored, taken, node).spelled()
            elif node.op_type in _MOVING and not node.domain and node.input[0] in quantisers:
                speller = _Speller(source, stored, taken, node)
                scale = quantisers[node.input[0]]
                spelled = speller.ending(
                    node.op_type, [speller.real(node.input[0], scale[0], scale[1]), *node.input[1:]], scale
                )
            else:
                spelled = [node]
            for each in spelled:
                if each.op_type == "QuantizeLinear" and len(each.input) == 3 and not _is_by_axis(each, stored):
                    quantisers[each.output[0]] = (each.input[1], each.input[2])
            changed += spelled != [node]
            nodes += spelled
        del graph.node[:]
        graph.node.extend(nodes)
        return Report(changed)


def _is_quantised(node: NodeProto) -> bool:
    if node.domain == MICROSOFT:
        return node.op_type in {*_ONE, *_TWO, *_POOLS, *_OWN}
    return not node.domain and node.op_type in {*_STANDARD, *_INTEGER}


def _summed_exactly(graph: onnx.GraphProto) -> set[str]:
    """Tensors that something else than a Cast to single precision reads, and which thus have to stay integers."""
    kept = {output.name for output in graph.output}
    for node in graph.node:
        to = next((a.i for a in node.attribute if a.name == "to"), None)
        if node.op_type != "Cast" or to != onnx.TensorProto.FLOAT:
            kept.update(node.input)
    return kept


def _is_by_axis(node: NodeProto, stored: dict[str, onnx.TensorProto]) -> bool:
    return node.input[1] not in stored or int(np.prod(stored[node.input[1]].dims)) != 1


class _Speller:
    """One node spelled out. `made` are the nodes so far, `taken` the names that are not given again."""

    def __init__(self, source: Source, stored: dict[str, onnx.TensorProto], taken: set[str], node: NodeProto) -> None:
        self.source, self.stored, self.taken, self.node = source, stored, taken, node
        self.made: list[NodeProto] = []
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name not in _NOT_PASSED}

    def spelled(self) -> list[NodeProto]:
        node, x = self.node, list(self.node.input)
        if any(a.name == "channels_last" and a.i for a in node.attribute):
            return [node]
        if node.op_type == "QLinearConv":
            operands = [self.real(x[0], x[1], x[2]), self.real(x[3], x[4], x[5], axis=0)]
            if len(x) > 8 and x[8]:
                operands.append(self.real(x[8], self.product(x[1], x[4]), "", axis=0))
            return self.ending("Conv", operands, x[6:8])
        if node.op_type == "QLinearMatMul":
            return self.ending("MatMul", [self.real(x[0], x[1], x[2]), self.real(x[3], x[4], x[5], axis=-1)], x[6:8])
        if node.op_type in _INTEGER:
            return self.integer(x)
        if node.op_type in _ONE or node.op_type in _POOLS:
            plain = {**_ONE, **_POOLS}[node.op_type]
            return self.ending(plain, [self.real(x[0], x[1], x[2])], x[3:5])
        if node.op_type in _TWO:
            return self.ending(_TWO[node.op_type], [self.real(x[0], x[1], x[2]), self.real(x[3], x[4], x[5])], x[6:8])
        if node.op_type == "QLinearConcat":
            parts = [self.real(x[i], x[i + 1], x[i + 2]) for i in range(2, len(x), 3)]
            return self.ending("Concat", parts, x[0:2])
        return self.gemm(x)

    def gemm(self, x: list[str]) -> list[NodeProto]:
        axis = 0 if self.attributes.get("transB", 0) else 1
        operands = [self.real(x[0], x[1], x[2]), self.real(x[3], x[4], x[5], axis=axis)]
        if len(x) > 6 and x[6]:
            scale = self.product(x[1], x[4], float(self.attributes.get("alpha", 1.0)))
            operands.append(self.real(x[6], scale, "", axis=0))
        return self.ending("Gemm", operands, x[7:9])

    def integer(self, x: list[str]) -> list[NodeProto]:
        """A product of integers as one of whole numbers. A zero point is one number, or one for each row or filter."""
        a, b, *zeros = x
        rows = 0 if self.node.op_type == "ConvInteger" else -1
        given = [*zeros, "", ""]
        operands = [self.whole(a, given[0], axis=-2), self.whole(b, given[1], axis=rows)]
        return self.ending(_INTEGER[self.node.op_type], operands, [])

    def whole(self, q: str, zero: str, axis: int) -> str:
        """Integers minus their zero point. Returns: the name of what is real."""
        count = self.count(zero) if zero in self.stored else 1
        scale = np.ones(() if count == 1 else count, np.float32)
        return self.real(q, self.store("one", scale), zero, axis)

    def real(self, q: str, scale: str, zero: str, axis: int | None = None) -> str:
        """The tensor dequantised. Returns: its name."""
        name = self.fresh(str(len(self.made)))
        given = [q, scale, *([zero] if zero else [])]
        node = helper.make_node("DequantizeLinear", given, [name], unique(f"{name}/DequantizeLinear", self.taken))
        if axis is not None and self.count(scale) > 1:
            node.attribute.append(helper.make_attribute("axis", axis))
        self.made.append(node)
        return name

    def ending(self, op: str, operands: Iterable[str], quantiser: Sequence[str]) -> list[NodeProto]:
        """The nodes so far, then the operator and, where the result is of integers, the quantiser."""
        output = self.node.output[0]
        integers = len(quantiser) == 2 and bool(quantiser[0])
        result = self.fresh("real") if integers else output
        results = [result, *self.node.output[1:]]
        self.made.append(helper.make_node(op, list(operands), results, self.node.name, **self.attributes))
        if integers:
            name = self.fresh("QuantizeLinear")
            self.made.append(helper.make_node("QuantizeLinear", [result, *quantiser], [output], name))
        return self.made

    def fresh(self, role: str) -> str:
        """A name for a part of the node."""
        return unique(f"{self.node.name}/{role}", self.taken)

    def count(self, name: str) -> int:
        return int(self.numbers(name).size)

    def product(self, a: str, b: str, factor: float = 1.0) -> str:
        """The product of two scales, stored. Returns: its name."""
        values = np.asarray(self.numbers(a) * self.numbers(b) * factor, np.float32)
        return self.store("bias scale", values.reshape(()) if values.size == 1 else values.reshape(-1))

    def store(self, role: str, values: Array) -> str:
        """The numbers as a weight. Returns: its name."""
        name = self.fresh(f"{role}/{len(self.made)}")
        tensor = numpy_helper.from_array(values, name)
        self.source.proto.graph.initializer.append(tensor)
        self.stored[name] = tensor
        return name

    def numbers(self, name: str) -> Array:
        if name not in self.stored:
            raise UnsupportedModel(
                f"the scale {name!r} of {self.node.op_type} (node {self.node.name!r}) is computed at run time, and "
                "only a stored one can be spelled out.\n  Quantise the model statically."
            )
        return numpy_helper.to_array(self.source.weights.resolve(self.stored[name]))
