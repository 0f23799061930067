"""What is said of outputs that are no scores, or none that were meant."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxplain.errors import UnsupportedModel
from onnxplain.ir.model import Model
from onnxplain.passes.canonical.probabilities import RESHAPING, axis_of, behind, maker

_PROBABILITIES = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "Hardmax"})
_MIXING = RESHAPING | {
    "Abs", "Add", "Ceil", "Clip", "Concat", "DequantizeLinear", "Div", "Exp", "Expand", "Floor", "Gather",
    "GlobalAveragePool", "Log", "Max", "Mean", "Min", "Mul", "Neg", "Pow", "QuantizeLinear", "Reciprocal", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceSum", "Round", "Slice", "Split", "Sqrt", "Sub", "Sum", "TopK", "Where",
}  # fmt: skip
"""What is no layer of its own: probabilities behind it are made into others."""


_DECIDING = ("ArgMax", "ArgMin", "Hardmax", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")


def refuse_decision(model: Model, output: gs.Tensor) -> None:
    """Raises: UnsupportedModel for an output that holds what was decided by the scores, which has no derivative."""
    tensor = output
    while (node := maker(tensor)) is not None:
        named = node.op == "Gather" and isinstance(node.inputs[0], gs.Constant)
        if node.op not in RESHAPING and not named:
            break
        tensor = node.inputs[1 if named else 0]
    index = node is not None and node.op == "TopK" and tensor is node.outputs[1]
    if node is None or (node.op not in _DECIDING and not index):
        return
    scores = next((t for t in node.inputs if not isinstance(t, gs.Constant)), node.inputs[0])
    raise UnsupportedModel(
        f"output {output.name!r} holds what {node.op} (node {node.name!r}) decides by the scores and not the scores, "
        "and a decision has no derivative.\n"
        f"  Cut the model before it, so that it returns {scores.name!r}: {cut(model, scores)}. Or name an output that "
        "holds scores with --output, if there is one."
    )


def remark_on(model: Model, output: gs.Tensor, scores: gs.Tensor) -> str:
    """What to say of the scores found behind an output, or nothing.

    Of the best ones alone it is not known which classes they are. Slopes of probabilities vanish where the model is
    sure.
    """
    best = _sorted_out(model, output)
    if best is not None:
        return (
            f"output {output.name!r} holds the best of the scores by {best.op} (node {best.name!r}), so that the class "
            "explained is the rank among them, 0 for the best, and not the class.\n"
            f"  For the class, cut the model before it: {cut(model, best.inputs[0])}."
        )
    node = _made_of(scores) if scores is output else None
    if node is None:
        return ""
    return (
        f"the scores {scores.name!r} are made of what a {node.op} returns (node {node.name!r}) by more than could be "
        "stepped over: probabilities are explained, whose slopes vanish where the model is sure.\n"
        f"  For the scores before it, cut the model there: {cut(model, node.inputs[0])}."
    )


def cut(model: Model, tensor: gs.Tensor) -> str:
    """The call of ONNX's own tool that makes a tensor the model's output."""
    inputs = [t.name for t in model.graph.inputs]
    return f"onnx.utils.extract_model({model.name!r}, 'scores.onnx', {inputs!r}, [{tensor.name!r}])"


def _sorted_out(model: Model, output: gs.Tensor) -> gs.Node | None:
    """The node that leaves the best scores and not which classes they are."""
    tensor = output
    while (step := behind(model, tensor)) is not None:
        tensor = step.tensor
    node = maker(tensor, "TopK", "ReduceMax")
    if node is None or node.inputs[0].shape is None:
        return None
    shape = node.inputs[0].shape
    axis = axis_of(node) if node.op == "ReduceMax" else int(node.attrs.get("axis", -1)) % len(shape)
    alone = axis is not None and all(size == 1 for i, size in enumerate(shape) if i not in (0, axis))
    return node if axis and alone and shape[axis] != 1 else None


def _made_of(scores: gs.Tensor) -> gs.Node | None:
    """The node of probabilities that scores are mixed from, with no layer between."""
    waiting, seen = [scores], set()
    while waiting:
        node = maker(waiting.pop(0))
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op in _PROBABILITIES:
            return node
        varying = [t for t in node.inputs if not isinstance(t, gs.Constant) and not t.is_empty()]
        gate = node.op == "Mul" and len(varying) > 1
        if node.op in _MIXING and not gate:
            waiting += varying
    return None
