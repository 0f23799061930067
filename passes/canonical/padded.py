"""Zeros around a picture that a node of their own puts there, as part of the convolution that reads them."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.model import Model
from onnxplain.ir.weights import Array
from onnxplain.passes.base import Pass, Refusal, Report


class PadsIntoConv(Pass[Model]):
    """Conv(Pad(x)) with zeros along the axes of space becomes Conv with these pads more.

    Rules that share by what an output sees would otherwise take the zeros for pixels, and what they get is lost.

    Precondition:  auto_pad is worked out, and a Pad names every axis.
    Exact, since a convolution pads with zeros.
    """

    def run(self, model: Model) -> Report:
        changed, refusals = 0, []
        for node in [n for n in model.graph.nodes if n.op == "Pad" and not n.domain]:
            readers = [each for each in node.outputs[0].outputs if _takes_pads(each, node.outputs[0])]
            if not readers:
                continue
            amounts = _zeros(model, node)
            if isinstance(amounts, str):
                refusals.append(Refusal(node.name, amounts))
                continue
            for conv in readers:
                have = np.reshape(conv.attrs.get("pads", np.zeros(amounts.size)), (2, -1))
                conv.attrs["pads"] = [int(n) for n in (have + amounts).ravel()]
                conv.inputs[0] = node.inputs[0]
                changed += 1
        model.graph.nodes[:] = [n for n in model.graph.nodes if n.op != "Pad" or _is_read(model, n)]
        return Report(changed, tuple(refusals))


def _takes_pads(node: gs.Node, picture: gs.Tensor) -> bool:
    of_picture = node.op == "Conv" and not node.domain and node.inputs[0] is picture
    return of_picture and node.attrs.get("auto_pad", "NOTSET") == "NOTSET"


def _zeros(model: Model, node: gs.Node) -> Array | str:
    """How many zeros a Pad puts in front and behind along each axis of space (2, axes); or why it is none of those."""
    if node.attrs.get("mode", "constant") != "constant":
        return f"it pads by {node.attrs['mode']!r}"
    pads, value = (node.inputs[i] if i < len(node.inputs) else gs.Variable.empty() for i in (1, 2))
    if not isinstance(pads, gs.Constant) or not (value.is_empty() or isinstance(value, gs.Constant)):
        return "what it pads is known only at run time"
    if not value.is_empty() and model.weights.array(value).any():
        return "it does not pad with zeros"
    amounts = model.weights.array(pads).reshape(2, -1)
    if amounts[:, :2].any():
        return "it pads the batch or the channels"
    return "it cuts off" if (amounts < 0).any() else amounts[:, 2:]


def _is_read(model: Model, node: gs.Node) -> bool:
    return bool(node.outputs[0].outputs) or any(t.name == node.outputs[0].name for t in model.graph.outputs)
