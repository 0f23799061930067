"""Constants as initialisers, and shape arithmetic done ahead where sizes are known."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from onnx import numpy_helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from onnxplain.ir.evaluate import FOLD_UP_TO, evaluate
from onnxplain.ir.model import Model
from onnxplain.ir.value import is_sized
from onnxplain.ir.weights import Array
from onnxplain.passes.base import Pass, Report

_ATTRIBUTES = {"value_float": np.float32, "value_int": np.int64, "value_floats": np.float32, "value_ints": np.int64}
_TEXTS = ("value_string", "value_strings")
"""What a Constant may hold beside a tensor; a sparse one was made dense when the model was read."""


class LiftConstants(Pass[Model]):
    """Constant nodes become initialisers."""

    def run(self, model: Model) -> Report:
        kept, changed = [], 0
        for node in model.graph.nodes:
            values = _constant_of(node)
            if values is None:
                kept.append(node)
                continue
            output = node.outputs[0]
            node.outputs.clear()
            output.to_constant(values)
            changed += 1
        model.graph.nodes[:] = kept
        return Report(changed)

    def ensures(self, model: Model) -> None:
        outputs = {t.name for t in model.graph.outputs}
        assert all(n.op != "Constant" or n.outputs[0].name in outputs for n in model.graph.nodes)


class FoldConstants(Pass[Model]):
    """Nodes whose operands are all small constants, and shapes of known sizes, are computed now.

    Outputs of the model stay computed, since an output must come from a node.
    """

    def run(self, model: Model) -> Report:
        outputs = {t.name for t in model.graph.outputs}
        kept, changed = [], 0
        for node in model.graph.nodes:
            results = None if outputs & {t.name for t in node.outputs} else self._fold(model, node)
            if results is None:
                kept.append(node)
                continue
            tensors = list(node.outputs)
            node.outputs.clear()
            node.inputs.clear()
            for tensor, array in zip(tensors, results, strict=True):
                tensor.to_constant(np.ascontiguousarray(array).reshape(array.shape))
            changed += 1
        model.graph.nodes[:] = kept
        return Report(changed)

    def _fold(self, model: Model, node: gs.Node) -> list[Array] | None:
        if node.op == "Shape" and not node.domain:
            return _static_shape(node)
        if node.op == "Size" and not node.domain and is_sized(node.inputs[0]):
            return [np.asarray(np.prod(node.inputs[0].shape, dtype=np.int64))]
        if not node.inputs or list(node.subgraphs()) or node.op == "DequantizeLinear":
            return None  # a weight that stays an integer lets the runtime compute with integers
        if not all(isinstance(t, gs.Constant) and np.prod(t.shape) <= FOLD_UP_TO for t in node.inputs):
            return None
        if any(np.prod(t.shape or [0]) > FOLD_UP_TO for t in node.outputs if is_sized(t)):
            return None
        fed = {t.name: model.weights.array(t) for t in node.inputs}
        results = evaluate(OnnxExporter.export_node(node), fed, int(model.graph.opset))
        return None if any(array.dtype == object for array in results or ()) else results


def _constant_of(node: gs.Node) -> Array | gs.ir.tensor.LazyValues | None:
    if node.op != "Constant" or node.domain:
        return None
    for name, value in node.attrs.items():
        if name == "value":
            return value._values
        if name in _ATTRIBUTES:
            return np.asarray(value, _ATTRIBUTES[name])
        if name in _TEXTS:  # as a tensor, since onnx-graphsurgeon cannot write an array of texts
            return gs.ir.tensor.LazyValues(numpy_helper.from_array(np.asarray(value, object)))
    return None


def _static_shape(node: gs.Node) -> list[Array] | None:
    shape = node.inputs[0].shape
    if shape is None:
        return None
    part = list(shape)[node.attrs.get("start", 0) : node.attrs.get("end")]
    return [np.asarray(part, np.int64)] if all(isinstance(d, int) for d in part) else None
