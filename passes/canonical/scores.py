"""The scores behind the model's output: what is explained is what goes into the softmax."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx_graphsurgeon as gs

from onnxplain.errors import UnsupportedModel, UnsupportedOp, UsageError, enumerated, nearest
from onnxplain.ir.model import Model
from onnxplain.ir.value import shown
from onnxplain.passes.canonical.probabilities import behind


@dataclass(frozen=True)
class Scores:
    """The tensor that holds the scores (N, ...).

    class_axis: along which the softmax behind them went, None where there is none.
    """

    tensor: gs.Tensor
    class_axis: int | None = None


def select_output(model: Model, name: str | None, index: int | None = None) -> gs.Tensor:
    """The output that holds the classes, by its name or its number from 0.

    Raises: UsageError if the model has several and none was named, or there is no such output.
    """
    outputs = {t.name: t for t in model.graph.outputs}
    listed = enumerated([f"{t.name} {shown(t.shape)}" for t in outputs.values()])
    if index is not None:
        if name is not None:
            raise UsageError(f"--output {name} and --output-index {index} both name the output: give one of them.")
        if not 0 <= index < len(outputs):
            raise UsageError(
                f"{model.name} has no output number {index}: it has {len(outputs)}, counted from 0: {listed}."
            )
        return model.graph.outputs[index]
    if name is None and len(outputs) == 1:
        return model.graph.outputs[0]
    if name is None:
        raise UsageError(f"{model.name} has {len(outputs)} outputs: {listed}.\n  Say which to explain: --output NAME.")
    if name not in outputs:
        raise UsageError(f"{model.name} has no output {name!r}. {nearest(name, outputs, kind='outputs')}")
    return outputs[name]


def scores_of(model: Model, output: gs.Tensor) -> Scores:
    """The tensor before a trailing softmax, log-softmax or sigmoid; the output itself where there is none.

    What only rescales probabilities, all classes alike, is stepped over too.

    Raises: UnsupportedModel if nothing is known of its shape, it has no axis for a batch, or it is empty.
    """
    found, tensor = Scores(output), output
    while (step := behind(model, tensor)) is not None and not (step.rescaled and found.tensor is not output):
        tensor = step.tensor
        if step.probability:
            found = Scores(tensor, step.axis)
    shape = found.tensor.shape
    if shape is None:
        _refuse_unknown(found.tensor, output)
    if not shape or 0 in shape:
        raise UnsupportedModel(
            f"output {output.name!r} is not a classifier's: its scores {found.tensor.name!r} have shape "
            f"{shown(found.tensor.shape)}, and (N, classes) is needed.\n"
            "  Choose another output with --output, or export the classification head."
        )
    return found


def _refuse_unknown(scores: gs.Tensor, output: gs.Tensor) -> None:
    """Raises: UnsupportedOp naming every operator behind which nothing is known any more, if there is one."""
    waiting, seen = [scores], {scores.name}
    found: list[gs.Node] = []
    while waiting:
        for node in waiting.pop().inputs:
            if node.domain or not onnx.defs.has(node.op):
                found.insert(0, node)
            unknown = [t for t in node.inputs if t.shape is None and not t.is_empty() and t.name not in seen]
            waiting += unknown
            seen.update(t.name for t in unknown)
    if not found:
        return
    first, *others = list({node.name: node for node in found}.values())
    also = f"\n  The same holds for {enumerated([f'{n.op} ({n.name})' for n in others])}." if others else ""
    domain = f" of domain {first.domain!r}" if first.domain else ""
    raise UnsupportedOp(
        f"there is no rule for {first.op!r}{domain} (node {first.name!r}).\n"
        f"  It lies before output {output.name!r}; neither its derivative nor what it returns is known.{also}\n"
        "  Export the model with standard ONNX operators."
    )
