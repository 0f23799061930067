"""Explicit pads: auto_pad and output_shape are worked out, so that no rule has to."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.model import Model
from onnxplain.ir.window import Window
from onnxplain.passes.base import Pass, Refusal, Report

_WINDOWED = ("Conv", "MaxPool", "AveragePool", "LpPool")
_POOLS = ("MaxPool", "AveragePool", "LpPool")


class ExplicitPads(Pass[Model]):
    """auto_pad, and a ConvTranspose's output_shape, become pads.

    Where they depend on sizes only known at run time the pass declines, and the derivative of such a node is refused
    later; so is that of a ConvTranspose whose output nobody agrees on, of which `model.left` says why. A Pad names
    every axis: ONNX Runtime 1.31 loses the operand `axes` when it moves a Transpose past it. A pool with ceil_mode
    whose last window would start in the padding behind, which every runtime leaves out, says so by its pads: before
    opset 22 ONNX's inference counts that window, and ONNX Runtime then refuses what follows.
    """

    def run(self, model: Model) -> Report:
        changed, refusals = 0, []
        for node in list(model.graph.nodes):
            if node.op == "Pad" and not node.domain:
                changed += _on_every_axis(model, node)
            if node.op in _POOLS and not node.domain and node.attrs.get("auto_pad", "NOTSET") == "NOTSET":
                changed += _without_dropped_windows(model, node)
            if node.op not in (*_WINDOWED, "ConvTranspose") or node.domain:
                continue
            auto = node.attrs.get("auto_pad", "NOTSET")
            if auto == "NOTSET" and "output_shape" not in node.attrs:
                node.attrs.pop("auto_pad", None)
                continue
            totals = _transposed(node, auto) if node.op == "ConvTranspose" else _windowed(node, auto)
            if totals is None:
                refusals.append(Refusal(node.name, f"{auto} on {node.op} depends on sizes known only at run time"))
                continue
            if min(totals) < 0:
                why = _extended(node, totals)
                if why:
                    model.left[node.name] = why
                    refusals.append(Refusal(node.name, why.splitlines()[0]))
                    continue
                totals = [max(total, 0) for total in totals]
            small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
            node.attrs["pads"] = [*small, *large] if auto == "SAME_UPPER" else [*large, *small]
            node.attrs.pop("auto_pad", None)
            node.attrs.pop("output_shape", None)
            changed += 1
        return Report(changed, tuple(refusals))


def _on_every_axis(model: Model, node: gs.Node) -> int:
    """Spell out the pads of a Pad on some axes, where they are constants. Returns: whether that was done."""
    pads, axes = (node.inputs[i] if i < len(node.inputs) else gs.Variable.empty() for i in (1, 3))
    shape = node.inputs[0].shape
    if not isinstance(pads, gs.Constant) or not isinstance(axes, gs.Constant) or shape is None:
        return 0
    amounts, at = model.weights.array(pads).reshape(2, -1), model.weights.array(axes).astype(np.int64)
    every = np.zeros((2, len(shape)), np.int64)
    every[:, at] = amounts
    node.inputs[1] = gs.Constant(model.fresh(f"{node.name}/every axis"), every.ravel())
    node.inputs.pop(3)
    if node.inputs[-1].is_empty():
        node.inputs.pop(2)
    return 1


def _without_dropped_windows(model: Model, node: gs.Node) -> int:
    """Pads by which a pool with ceil_mode ends where its last window does. Returns: whether that was needed.

    A mean that counts padding does not count what lies beyond it. Where a window reaches there along another axis,
    that axis stays as it is, and with it ceil_mode.
    """
    window, sizes = Window.of_node(node), _sizes(node)
    if not node.attrs.get("ceil_mode", 0) or sizes is None:
        return 0
    ends, dropped = [], []
    for size, stride, r, before, after in zip(
        sizes, window.strides, window.reach, window.before, window.after, strict=True
    ):
        last = -(-(size + before + after - r) // stride) * stride
        dropped.append(last >= size + before)
        ends.append((last - stride if dropped[-1] else last) + r - size - before)
    counted = node.op == "AveragePool" and node.attrs.get("count_include_pad", 0)
    kept = counted and any(end > after for end, after in zip(ends, window.after, strict=True))
    if kept:
        ends = [end if gone else after for end, gone, after in zip(ends, dropped, window.after, strict=True)]
    if not any(dropped):
        return 0
    if kept and min(ends) < 0:
        _cut(model, node, ends)
    node.attrs["pads"] = [*window.before, *(max(end, 0) for end in ends)]
    if not kept:
        node.attrs.pop("ceil_mode")
    return 1


def _cut(model: Model, node: gs.Node, ends: list[int]) -> None:
    """Cut off what no window reaches, as many elements as `ends` are below zero along each axis behind the second."""
    x = node.inputs[0]
    axes = [axis for axis, end in enumerate(ends, 2) if end < 0]
    bounds = {"starts": [0] * len(axes), "ends": [ends[axis - 2] for axis in axes], "axes": axes}
    cut = model.fresh(f"{node.name}/cut")
    constants = [gs.Constant(model.fresh(f"{cut}/{name}"), np.asarray(v, np.int64)) for name, v in bounds.items()]
    shape = [size + min(ends[axis - 2], 0) if axis > 1 else size for axis, size in enumerate(x.shape)]
    part = gs.Variable(cut, x.dtype, shape)
    model.graph.nodes.insert(model.place_of(node), gs.Node("Slice", cut, {}, [x, *constants], [part]))
    node.inputs[0] = part


def _windowed(node: gs.Node, auto: str) -> list[int] | None:
    """How much to pad along each axis, so that there are as many windows as strides fit into the input."""
    window, sizes = Window.of_node(node), _sizes(node)
    if auto == "VALID":
        return [0] * len(window.kernel)
    if all(stride == 1 for stride in window.strides):
        return [r - 1 for r in window.reach]
    if sizes is None:
        return None
    return [
        max((-(-size // stride) - 1) * stride + r - size, 0)
        for size, stride, r in zip(sizes, window.strides, window.reach, strict=True)
    ]


def _transposed(node: gs.Node, auto: str) -> list[int] | None:
    """How much to cut off along each axis, so that the output has the shape it is to have."""
    window = Window.of_node(node)
    strides, reach = window.strides, window.reach
    extra = node.attrs.get("output_padding", [0] * len(reach))
    wanted, sizes = node.attrs.get("output_shape"), _sizes(node)
    if wanted is None:
        # VALID cuts nothing, SAME makes the output `stride` times the input.
        return [0 if auto == "VALID" else e + r - s for e, r, s in zip(extra, reach, strides, strict=True)]
    if sizes is None:
        return None
    every = zip(sizes, strides, extra, reach, wanted[-len(reach) :], strict=True)
    return [stride * (size - 1) + e + r - want for size, stride, e, r, want in every]


def _extended(node: gs.Node, totals: list[int]) -> str:
    """Output padding where a ConvTranspose is to return more than its windows reach. Returns: why not, or nothing."""
    if "output_shape" not in node.attrs:
        return (
            f"auto_pad={node.attrs['auto_pad']} and strides beyond its window, of which ONNX and ONNX Runtime make "
            "outputs of different sizes.\n  Export it with pads instead of auto_pad."
        )
    extra = node.attrs.get("output_padding", [0] * len(totals))
    more = [e - min(total, 0) for e, total in zip(extra, totals, strict=True)]
    window = Window.of_node(node)
    if any(m >= max(s, d) for m, s, d in zip(more, window.strides, window.dilations, strict=True)):
        return (
            f"output_shape={list(node.attrs['output_shape'])}, which is more than its windows can reach and which "
            "ONNX Runtime does not run.\n  Export it with pads instead of output_shape."
        )
    node.attrs["output_padding"] = more
    return ""


def _sizes(node: gs.Node) -> list[int] | None:
    shape = node.inputs[0].shape
    if shape is None or not all(isinstance(size, int) for size in list(shape)[2:]):
        return None
    return [int(size) for size in list(shape)[2:]]
