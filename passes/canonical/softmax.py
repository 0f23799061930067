"""Softmax as it was before opset 13, over all axes from one on, as ONNX's converter writes it."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxplain.ir.model import Model
from onnxplain.passes.base import Pass, Refusal, Report


class SoftmaxInPlace(Pass[Model]):
    """Flatten, Softmax of the rows and Reshape back become one Softmax, where the rows lie along one axis of the input.

    In older exports every attention is such a chain, for which the batch is a factor of the number of rows.

    Precondition: sizes are known as far as they can be. Exact, since the rows are the same.
    """

    def run(self, model: Model) -> Report:
        changed, refusals = 0, []
        ends = {t.name for t in model.graph.outputs}
        for node in model.graph.nodes:
            if node.op not in ("Softmax", "LogSoftmax") or node.domain or node.attrs.get("axis", -1) not in (1, -1):
                continue
            flatten = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
            readers = node.outputs[0].outputs
            if flatten is None or flatten.op != "Flatten" or not any(r.op == "Reshape" for r in readers):
                continue
            axis = _axis(flatten)
            if len(readers) > 1 or node.outputs[0].name in ends:
                refusals.append(Refusal(node.name, f"{node.outputs[0].name!r} is read elsewhere too"))
            elif axis is None or not _alike(flatten.inputs[0], readers[0].outputs[0]):
                refusals.append(Refusal(node.name, "its rows are several axes, or become something else"))
            else:
                _join(node, flatten.inputs[0], readers[0], axis)
                changed += 1
        return Report(changed, tuple(refusals))


def _axis(flatten: gs.Node) -> int | None:
    """The one axis that has all of a row's elements; None where there are several, or a size is not known."""
    shape = flatten.inputs[0].shape
    if shape is None:
        return None
    first = flatten.attrs.get("axis", 1)
    rows = range(first if first >= 0 else first + len(shape), len(shape))
    if not all(isinstance(shape[axis], int) for axis in rows):
        return None
    within = [axis for axis in rows if shape[axis] != 1]
    return within[0] if len(within) == 1 else None


def _alike(before: gs.Tensor, after: gs.Tensor) -> bool:
    """Whether two tensors are known to have the same sizes."""
    return before.shape is not None and after.shape == before.shape and None not in before.shape


def _join(node: gs.Node, source: gs.Tensor, reshape: gs.Node, axis: int) -> None:
    result = reshape.outputs[0]
    reshape.inputs.clear()
    reshape.outputs.clear()
    node.inputs[0], node.outputs[0] = source, result
    node.attrs["axis"] = axis
