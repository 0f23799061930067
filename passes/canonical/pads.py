"""Explicit pads: auto_pad is worked out, so that no rule has to."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxplain.ir.model import Model
from onnxplain.passes.base import Pass, Refusal, Report

_WINDOWED = ("Conv", "MaxPool", "AveragePool", "LpPool")


class ExplicitPads(Pass[Model]):
    """auto_pad becomes pads, and kernel_shape of a Conv is always stated.

    SAME_UPPER and SAME_LOWER need the input's sizes; where those are only known at run time the pass declines, and the
    derivative of such a node is refused later.
    """

    def run(self, model: Model) -> Report:
        changed, refusals = 0, []
        for node in model.graph.nodes:
            if node.op not in (*_WINDOWED, "ConvTranspose") or node.domain:
                continue
            auto = node.attrs.pop("auto_pad", "NOTSET")
            if auto == "NOTSET":
                continue
            pads = _pads(node, auto) if node.op in _WINDOWED or auto == "VALID" else None
            if pads is None:
                node.attrs["auto_pad"] = auto
                refusals.append(Refusal(node.name, f"{auto} on {node.op} depends on sizes known only at run time"))
                continue
            node.attrs["pads"] = pads
            changed += 1
        return Report(changed, tuple(refusals))


def _pads(node: gs.Node, auto: str) -> list[int] | None:
    kernel = node.attrs.get("kernel_shape") or list(node.inputs[1].shape)[2:]
    n = len(kernel)
    if auto == "VALID":
        return [0] * 2 * n
    shape = node.inputs[0].shape
    sizes = list(shape)[2:] if shape is not None else []
    if len(sizes) != n or not all(isinstance(size, int) for size in sizes):
        return None
    strides, dilations = node.attrs.get("strides", [1] * n), node.attrs.get("dilations", [1] * n)
    totals = [
        max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        for size, stride, k, dilation in zip(sizes, strides, kernel, dilations, strict=True)
    ]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return [*small, *large] if auto == "SAME_UPPER" else [*large, *small]
