"""What shifts or scales a layer's output turned round does so before it is turned."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.model import Model
from onnxplain.passes.base import Pass, Refusal, Report

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SHIFTS, _SCALES = ("Add", "Sub"), ("Mul", "Div")


class AffineBeforeTranspose(Pass[Model]):
    """Add(Transpose(y), b) becomes Transpose(Add(y, b turned back)), b a constant, wherever nothing else reads y.

    Exporters of frameworks with channels last write a convolution's bias so; next to the layer, its rule sees it.
    Sub likewise, and behind a layer Mul and Div: a batch norm's scale, which can then be folded.
    Exact, since the same numbers are added.
    """

    def run(self, model: Model) -> Report:
        changed, refusals = 0, []
        kept = {t.name for t in model.graph.outputs}
        for add in [n for n in model.graph.nodes if n.op in (*_SHIFTS, *_SCALES) and not n.domain]:
            turn = _turn_before(add)
            if turn is None or (add.op in _SCALES and not _behind_layer(turn)):
                continue
            if len(turn.outputs[0].outputs) > 1 or len(turn.inputs[0].outputs) > 1 or turn.outputs[0].name in kept:
                refusals.append(Refusal(add.name, f"the output of {turn.name!r} is read elsewhere too"))
            elif turn.outputs[0].shape != add.outputs[0].shape or None in add.outputs[0].shape:
                refusals.append(Refusal(add.name, "the result may have another shape"))
            else:
                _swap(model, turn, add)
                changed += 1
        return Report(changed, tuple(refusals))


def _turn_before(add: gs.Node) -> gs.Node | None:
    """The Transpose whose output, first operand of a difference or quotient, a node shifts or scales."""
    operands = [t for t in add.inputs if not isinstance(t, gs.Constant)]
    before = operands[0].inputs[0] if len(operands) == 1 and operands[0].inputs else None
    if before is None or before.op != "Transpose" or before.domain or operands[0].shape is None:
        return None
    return None if add.op in ("Sub", "Div") and add.inputs[0] is not operands[0] else before


def _behind_layer(node: gs.Node) -> bool:
    """Whether a node's operand is a layer's output, shifted and scaled by constants."""
    while True:
        operands = [t for t in node.inputs if not isinstance(t, gs.Constant)]
        before = operands[0].inputs[0] if len(operands) == 1 and operands[0].inputs else None
        if before is None or before.op not in (*_LAYERS, *_SHIFTS, *_SCALES, "BatchNormalization"):
            return False
        if before.op in _LAYERS:
            return True
        node = before


def _swap(model: Model, turn: gs.Node, add: gs.Node) -> None:
    given = next(t for t in add.inputs if isinstance(t, gs.Constant))
    x, y = turn.inputs[0], add.outputs[0]
    b = model.weights.array(given)
    rank = len(y.shape)
    perm = turn.attrs.get("perm", list(range(rank))[::-1])
    turned = b.reshape([1] * (rank - b.ndim) + list(b.shape)).transpose(np.argsort(perm))
    constant = gs.Constant(model.fresh(f"{add.name}/turned back"), np.ascontiguousarray(turned))
    total = gs.Variable(model.fresh(f"{add.name}/sum"), y.dtype, x.shape)
    add.inputs = [constant if t is given else x for t in add.inputs]
    add.outputs = [total]
    turn.inputs, turn.outputs = [total], [y]
    del model.graph.nodes[model.place_of(turn)]
    model.graph.nodes.insert(model.place_of(add) + 1, turn)
