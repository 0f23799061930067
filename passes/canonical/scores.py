"""The scores behind the model's output: what is explained is what goes into the softmax."""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs

from onnxplain.errors import UnsupportedModel, UnsupportedOp, UsageError, enumerated, nearest
from onnxplain.ir.model import Model

_TO_PROBABILITY = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})
_RESHAPING = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"})


def select_output(model: Model, name: str | None) -> gs.Tensor:
    """The output that holds the classes.

    Raises: UsageError if the model has several and none was named, or the name is not one of them.
    """
    outputs = {t.name: t for t in model.graph.outputs}
    if name is None and len(outputs) == 1:
        return model.graph.outputs[0]
    listed = enumerated([f"{t.name} {_shape(t)}" for t in outputs.values()])
    if name is None:
        raise UsageError(f"{model.name} has {len(outputs)} outputs: {listed}.\n  Say which to explain: --output NAME.")
    if name not in outputs:
        raise UsageError(f"{model.name} has no output {name!r}. {nearest(name, outputs, kind='outputs')}")
    return outputs[name]


def scores_of(output: gs.Tensor) -> gs.Tensor:
    """The tensor before a trailing Softmax, LogSoftmax or Sigmoid; the output itself where there is none.

    Raises: UnsupportedModel if what is found is not (N, classes), give or take axes of size one at the end.
    """
    found = tensor = output
    while tensor.inputs and tensor.inputs[0].op in _TO_PROBABILITY | _RESHAPING:
        node = tensor.inputs[0]
        tensor = node.inputs[0]
        if node.op in _TO_PROBABILITY:
            found = tensor
    shape = found.shape
    if shape is None:
        _refuse_unknown(found, output)
    if shape is None or len(shape) < 2 or any(size != 1 for size in shape[2:]):
        raise UnsupportedModel(
            f"output {output.name!r} is not a classifier's: its scores {found.name!r} have shape {_shape(found)}, "
            "and (N, classes) is needed.\n  Choose another output with --output, or export the classification head."
        )
    return found


def _refuse_unknown(scores: gs.Tensor, output: gs.Tensor) -> None:
    """Raises: UnsupportedOp naming the operator behind which nothing is known any more, if there is one."""
    waiting, seen = [scores], {scores.name}
    while waiting:
        tensor = waiting.pop()
        for node in tensor.inputs:
            unknown = [t for t in node.inputs if t.shape is None and not t.is_empty()]
            if not unknown and not onnx.defs.has(node.op, node.domain or ""):
                domain = f" of domain {node.domain!r}" if node.domain else ""
                raise UnsupportedOp(
                    f"there is no rule for {node.op!r}{domain} (node {node.name!r}).\n"
                    f"  It lies before output {output.name!r}; neither its derivative nor what it returns is known.\n"
                    "  Export the model with standard ONNX operators."
                )
            waiting += [t for t in unknown if t.name not in seen]
            seen.update(t.name for t in unknown)


def _shape(tensor: gs.Tensor) -> str:
    if tensor.shape is None:
        return "(unknown)"
    return "(" + ", ".join("?" if d is None else str(d) for d in tensor.shape) + ")"
