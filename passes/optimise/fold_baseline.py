"""The baseline's activations, computed at compile time and stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx_graphsurgeon as gs
from onnx import ModelProto
from onnx.helper import tensor_dtype_to_np_dtype
from onnx.reference import ReferenceEvaluator

from onnxplain.errors import OnnxplainError, UsageError
from onnxplain.ir.emitter import PREFIX
from onnxplain.ir.model import Model
from onnxplain.ir.save import to_proto
from onnxplain.ir.value import is_sized
from onnxplain.ir.weights import Array
from onnxplain.passes.base import Pass, Refusal, Report
from onnxplain.passes.explain.twin import BASELINE

BUDGET = 0.1
"""With "auto": the share of the model's weights that the stored activations may add to the file."""


@dataclass(frozen=True)
class FoldBaseline(Pass[Model]):
    """What depends on a constant baseline alone becomes constants.

    Runs after dead code was dropped, so that only what the explanation reads is stored, and leaves dead code behind.
    ONNX Runtime does the same whenever it loads a graph; stored, loading is quicker, and runtimes that do not fold are
    as fast. What declines costs one forward pass of batch 1 per run there, whatever the batch.

    mode: "auto" within the budget, "yes" whatever it takes.
    """

    mode: Literal["auto", "yes"]

    def run(self, model: Model) -> Report:
        folded, read = _region(model.graph)
        if not read:
            if self.mode == "yes":
                raise UsageError(
                    "fold_baseline=yes needs one baseline that is known when compiling, and a model that does not mix "
                    "the batch with other axes.\n"
                    "  Choose zeros, black or a file with one baseline, or leave fold_baseline at auto."
                )
            return Report()
        own = [t for t in _weights(model.graph) if not t.name.startswith(PREFIX)]
        budget = BUDGET * sum(_bytes(t) for t in own) if self.mode == "auto" else np.inf
        declined = Report(
            0, (Refusal(BASELINE, f"its activations take more than {BUDGET:.0%} of what the weights do"),)
        )
        if sum(_bytes(t) for t in read if is_sized(t)) > budget:
            return declined
        try:
            proto = to_proto(replace(model, graph=_alone(model.graph, read), outputs=()))
            arrays = _computed(proto, slowly=self.mode == "yes")
        except OnnxplainError as error:
            if self.mode == "yes":
                raise
            return Report(0, (Refusal(BASELINE, str(error)),))
        if sum(a.nbytes for a in arrays) > budget:
            return declined
        for tensor, array in zip(read, arrays, strict=True):
            stored = gs.Constant(model.fresh(f"{tensor.name}/stored"), np.ascontiguousarray(array))
            for node in [n for n in tensor.outputs if n.name not in folded]:
                for i, operand in enumerate(node.inputs):
                    if operand is tensor:
                        node.inputs[i] = stored
        return Report(len(folded))


def _region(graph: gs.Graph) -> tuple[set[str], list[gs.Tensor]]:
    """The nodes that depend on the baseline and on nothing that is given at run time, and those of their outputs that
    other nodes read."""
    fixed = {t.name for t in _weights(graph)}
    folded: dict[str, gs.Node] = {}
    made: set[str] = set()
    for node in graph.nodes:
        if list(node.subgraphs()) or not all(t.is_empty() or t.name in fixed for t in node.inputs):
            continue
        fixed.update(t.name for t in node.outputs)
        if node.name.startswith(f"{PREFIX}/{BASELINE}/") or any(t.name in made for t in node.inputs):
            made.update(t.name for t in node.outputs)
            folded[node.name] = node
    inside = {name for node in graph.nodes for body in node.subgraphs() for name in body.tensors()}
    outputs = [t for node in folded.values() for t in node.outputs if any(n.name not in folded for n in t.outputs)]
    return (set(), []) if any(t.name in inside for t in outputs) else (set(folded), outputs)


def _weights(graph: gs.Graph) -> list[gs.Constant]:
    found = {t.name: t for node in graph.nodes for t in node.inputs if isinstance(t, gs.Constant)}
    return list(found.values())


def _bytes(tensor: gs.Tensor) -> int:
    dtype = tensor_dtype_to_np_dtype(tensor.dtype) if isinstance(tensor.dtype, int) else np.dtype(tensor.dtype)
    return int(np.prod(tensor.shape, dtype=np.int64)) * int(dtype.itemsize)


def _alone(graph: gs.Graph, outputs: list[gs.Tensor]) -> gs.Graph:
    """The part of a graph that computes these tensors."""
    needed = {t.name for t in outputs}
    nodes = []
    for node in reversed(graph.nodes):
        if any(t.name in needed for t in node.outputs):
            needed.update(t.name for t in node.inputs)
            nodes.append(node)
    return gs.Graph(nodes[::-1], [], outputs, name=BASELINE, opset=graph.opset, import_domains=graph.import_domains)


def _computed(proto: ModelProto, *, slowly: bool) -> list[Array]:
    """The graph's outputs, by ONNX Runtime where it is installed; otherwise, if that is wanted, by ONNX's reference.

    Raises: OnnxplainError.
    """
    from onnxplain.runtime.session import open_session

    try:
        session = open_session(proto, "cpu")
    except OnnxplainError:
        if not slowly:
            raise
        return [np.asarray(v) for v in ReferenceEvaluator(proto).run(None, {})]
    try:
        return [np.asarray(v) for v in session.run(None, {})]
    except Exception as error:  # ONNX Runtime's errors have no common base but this one
        raise OnnxplainError(
            f"ONNX Runtime cannot compute the baseline's activations: {str(error).splitlines()[0]}\n"
            "  Choose another baseline, or fold_baseline=no."
        ) from None
