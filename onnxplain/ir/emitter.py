"""Emitting nodes: names, constants, types, sharing and folding, so that rules state only mathematics.

Every emitted node gets its dtype and shape from ONNX's own inference. Equal expressions are emitted once: a mask used
by two consumers, or by two methods compiled into one graph, is one node. What depends on small constants alone is
computed here and now.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import NodeProto
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from onnxplain.ir.evaluate import FOLD_UP_TO, evaluate
from onnxplain.ir.infer import infer
from onnxplain.ir.model import Model
from onnxplain.ir.value import Value
from onnxplain.ir.weights import Array
from onnxplain.ir.wellformed import REFUSALS, FaultyEmission

PREFIX = "onnxplain"
STORE_UP_TO = 1 << 12
"""Elements. A constant computed while emitting is stored up to this size."""


class Emitter:
    """Appends nodes to a model's graph.

    Forward nodes are known from the start, so that emitting one of them again returns what is there.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.graph = model.graph
        self.opset = int(model.graph.opset)
        self._scope = PREFIX
        self._nodes: list[gs.Node] = self.graph.nodes
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._emitted: MutableMapping[object, tuple[gs.Tensor, ...]] = {}
        for node in self.graph.nodes:
            self.remember(node)

    def remember(self, node: gs.Node) -> None:
        """Return this node's outputs where an equal one is emitted, and all of them are there."""
        if any(t.is_empty() for t in node.outputs):
            return
        key = _key(node.op, node.domain, node.inputs, node.attrs, len(node.outputs))
        self._emitted.setdefault(key, tuple(node.outputs))

    def forget(self) -> None:
        """Know of no node: those that are there may come after what is emitted next."""
        self._emitted.clear()

    def wrap(self, tensor: gs.Tensor) -> Value:
        """The tensor as a value of this builder."""
        return Value(tensor, self)  # type: ignore[arg-type]

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Nodes emitted inside are named `onnxplain/<name>/<op>`."""
        before, self._scope = self._scope, f"{PREFIX}/{name}"
        try:
            yield
        finally:
            self._scope = before

    @contextmanager
    def body(self) -> Iterator[list[gs.Node]]:
        """Nodes emitted inside go to a list of their own, the body of a loop; outside, they do not exist.

        What is there already may be used inside.
        """
        nodes, emitted = self._nodes, self._emitted
        self._nodes, self._emitted = [], ChainMap({}, emitted)
        try:
            yield self._nodes
        finally:
            self._nodes, self._emitted = nodes, emitted

    def constant(self, value: Array | np.generic | Sequence[int] | float, dtype: Any = None) -> Value:
        """A constant; equal ones are one tensor."""
        array = np.asarray(value, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.wrap(
                gs.Constant(self.model.fresh(f"{PREFIX}/constant"), np.ascontiguousarray(array).reshape(array.shape))
            )
        return self._constants[key]

    def ints(self, values: Sequence[int]) -> Value:
        """A constant int64 vector."""
        return self.constant(np.asarray(values, dtype=np.int64))

    def op(self, op_type: str, *inputs: Value | None, **attrs: Any) -> Value:
        """Emit a node with one output. Attributes that are None are left out."""
        return self.ops(op_type, *inputs, outputs=1, **attrs)[0]

    def ops(
        self, op_type: str, *inputs: Value | None, outputs: int, domain: str | None = None, **attrs: Any
    ) -> tuple[Value, ...]:
        """Emit a node with several outputs."""
        operands = [gs.Variable.empty() if value is None else value.tensor for value in inputs]
        while operands and operands[-1].is_empty():
            operands.pop()
        given = {name: _plain(value) for name, value in attrs.items() if value is not None}
        key = _key(op_type, domain, operands, given, outputs)
        if key not in self._emitted:
            self._emitted[key] = self._emit(op_type, domain, operands, given, outputs)
        return tuple(self.wrap(tensor) for tensor in self._emitted[key])

    def input(self, name: str, dtype: np.dtype[np.generic], shape: Sequence[int | str | None]) -> Value:
        """A new input of the graph."""
        tensor = gs.Variable(name, dtype, list(shape))
        self.graph.inputs.append(tensor)
        self.model.taken.add(name)
        return self.wrap(tensor)

    def publish(self, value: Value, name: str) -> Value:
        """The value under a name of its own, fit to be an output: always the output of an Identity node.

        Renaming the tensor itself would take the name from another output that shares it.
        """
        node = gs.Node(
            "Identity",
            self.model.fresh(f"{PREFIX}/{name}"),
            {},
            [value.tensor],
            [gs.Variable(name, value.tensor.dtype, value.tensor.shape)],
        )
        self.model.taken.add(name)
        self._nodes.append(node)
        return self.wrap(node.outputs[0])

    def copied(self, value: Value) -> Value:
        """A copy of a constant that the runtime makes when it loads the graph, and that is not stored.

        A sum of one: runtimes fold it, and unlike an Identity they do not take it out before.
        """
        name = self.model.fresh(f"{self._scope}/Sum")
        node = gs.Node("Sum", name, {}, [value.tensor], [gs.Variable(name, value.tensor.dtype, value.tensor.shape)])
        self._nodes.append(node)
        return self.wrap(node.outputs[0])

    def _emit(
        self, op_type: str, domain: str | None, operands: list[gs.Tensor], attrs: dict[str, Any], outputs: int
    ) -> tuple[gs.Tensor, ...]:
        name = self.model.fresh(f"{self._scope}/{op_type}")
        names = [name] if outputs == 1 else [f"{name}:{i}" for i in range(outputs)]
        node = gs.Node(op_type, name, attrs, operands, [gs.Variable(n) for n in names], domain=domain)
        proto = OnnxExporter.export_node(node)
        folded = self._fold(proto, operands)
        if folded is not None:
            _forget_last_reader(node, operands)
            return tuple(self.constant(array).tensor for array in folded)
        try:
            types = infer(node, self.opset, self.model.weights.array, proto)
        except REFUSALS as error:
            raise FaultyEmission(f"{name}: {error}") from error
        for output in node.outputs:
            output.dtype, output.shape = types.get(output.name, (None, None))
        self._nodes.append(node)
        return tuple(node.outputs)

    def _fold(self, proto: NodeProto, operands: Sequence[gs.Tensor]) -> list[Array] | None:
        if not operands or not all(isinstance(t, gs.Constant) and np.prod(t.shape) <= FOLD_UP_TO for t in operands):
            return None
        results = evaluate(proto, {t.name: self.model.weights.array(t) for t in operands}, self.opset)
        # What is emitted comes on top of what the file holds: a large result is left for the runtime to fold.
        return results if results and sum(r.size for r in results) <= STORE_UP_TO else None


def _forget_last_reader(node: gs.Node, operands: Sequence[gs.Tensor]) -> None:
    """Undo that a node was made: it is the last of each operand's readers.

    graphsurgeon would compare it with all of them, and a constant may have thousands.
    """
    list.clear(node.inputs)
    for tensor in operands:
        list.pop(tensor.outputs)


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list, range)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return gs.Constant("", value) if isinstance(value, np.ndarray) else value


def _key(
    op_type: str, domain: str | None, operands: Sequence[gs.Tensor], attrs: dict[str, Any], outputs: int
) -> object:
    return (
        op_type,
        domain or "",
        tuple(t.name for t in operands),
        tuple(sorted((k, _frozen(v)) for k, v in attrs.items())),
        outputs,
    )


def _frozen(value: Any) -> object:
    if isinstance(value, list):
        return tuple(_frozen(v) for v in value)
    if isinstance(value, gs.Constant):
        values = value._values
        return (
            (value.name, id(values))
            if not isinstance(values, np.ndarray)
            else (values.dtype.str, values.shape, values.tobytes())
        )
    if isinstance(value, (int, float, str, type(None))):
        return (type(value).__name__, value)
    return id(value)
