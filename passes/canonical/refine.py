"""Sizes that follow by arithmetic, and the shape computations that they make unnecessary."""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.infer import infer
from onnxplain.ir.model import Model
from onnxplain.ir.value import Dim
from onnxplain.passes.base import Pass, Report
from onnxplain.passes.canonical.vectors import expanded, reshaped, told

_SHAPED = ("Reshape", "Expand", "ConstantOfShape")
"""Operators that take the shape of their output."""


class RefineShapes(Pass[Model]):
    """Go through the graph once, sharpening shapes, and give every Reshape that can have one a constant target.

    Exporters compute a Reshape's target from Shape, Gather and Concat for the sake of a dynamic batch. Where all sizes
    but one are known the target is a constant with one -1, whatever the batch will be. The chains become dead code, and
    the sizes behind them known: a rule that needs a number has one.
    """

    def run(self, model: Model) -> Report:
        changed = 0
        for node in model.graph.nodes:
            if node.op in _SHAPED and not node.domain:
                _name_sizes(model, node)
            if node.op == "Reshape" and not node.domain:
                changed += _fix_target(model, node)
            elif node.op in ("Gather", "Slice", "Range") and (sizes := _known_sizes(model, node)):
                changed += _fold_sizes(node, sizes)
                continue
            elif node.op == "Resize" and not node.domain:
                _name_kept_axes(model, node)
            elif node.op == "AffineGrid" and not node.domain:
                _name_grid(model, node)
            if node.domain or not node.inputs:
                continue
            for name, (dtype, shape) in infer(node, int(model.graph.opset), model.weights.array).items():
                output = next(t for t in node.outputs if t.name == name)
                if output.shape is None:
                    output.dtype, output.shape = dtype if output.dtype is None else output.dtype, shape
                if shape is not None and output.shape is not None and len(shape) == len(output.shape):
                    output.shape = [_sharper(old, new) for old, new in zip(output.shape, shape, strict=True)]
        model.graph.nodes[:] = [node for node in model.graph.nodes if node.outputs]
        return Report(changed)


def _name_sizes(model: Model, node: gs.Node) -> None:
    """Sharpen the output's sizes by what is known of the shape that the node is given."""
    output, source = node.outputs[0], node.inputs[0].shape
    target = told(model, node.inputs[-1])
    if target is None or output.shape is None or source is None:
        return
    if node.op == "Reshape":
        target = reshaped(list(source), target, keeps=not node.attrs.get("allowzero", 0))
    elif node.op == "Expand":
        target = expanded(list(source), target)
    if len(target) == len(output.shape):
        output.shape = [_sharper(old, new) for old, new in zip(output.shape, target, strict=True)]


def _fix_target(model: Model, node: gs.Node) -> int:
    source, target, output = node.inputs[0], node.inputs[1], node.outputs[0]
    if source.shape is None or output.shape is None or 0 in source.shape:
        return 0
    output.shape = _completed(list(source.shape), list(output.shape))
    if isinstance(target, gs.Constant) or sum(not isinstance(d, int) for d in output.shape) > 1:
        return 0
    sizes = np.asarray([d if isinstance(d, int) else -1 for d in output.shape], np.int64)
    node.inputs[1] = gs.Constant(model.fresh(f"{node.name}/target"), sizes)
    node.attrs.pop("allowzero", None)
    return 1


def _name_kept_axes(model: Model, node: gs.Node) -> None:
    """Give the axes that a Resize leaves alone, such as the batch, the names that they have in its input."""
    source, output = node.inputs[0], node.outputs[0]
    if source.shape is None or output.shape is None:
        return
    axes = [a % len(source.shape) for a in node.attrs.get("axes", range(len(source.shape)))]
    scales, sizes = (node.inputs[i] if i < len(node.inputs) else gs.Variable.empty() for i in (2, 3))
    have, found = list(source.shape), list(output.shape)
    if isinstance(scales, gs.Constant) and np.prod(scales.shape):
        same = {axis for axis, by in zip(axes, model.weights.array(scales), strict=True) if by == 1}
    else:
        wanted = [] if sizes.is_empty() else told(model, sizes) or []
        same = {axis for axis, size in zip(axes, wanted, strict=False) if size == have[axis] is not None}
    output.shape = [
        _sharper(new, old) if axis in same or axis not in axes else new
        for axis, (old, new) in enumerate(zip(have, found, strict=True))
    ]


def _name_grid(model: Model, node: gs.Node) -> None:
    """The sizes of a grid for pictures (N, C, *S): (N, *S, axes), of which ONNX's inference knows all or not one."""
    theta, output = node.inputs[0], node.outputs[0]
    sizes = told(model, node.inputs[1])
    if sizes is None or len(sizes) not in (4, 5):
        return
    first = theta.shape[0] if theta.shape else None
    found = [_sharper(sizes[0], first), *sizes[2:], len(sizes) - 2]
    known = output.shape if output.shape is not None else [None] * len(found)
    output.dtype = theta.dtype if output.dtype is None else output.dtype
    output.shape = [_sharper(old, new) for old, new in zip(known, found, strict=True)]


def _completed(source: list[Dim], output: list[Dim]) -> list[Dim]:
    """The output's sizes, one unknown worked out where both sides hold as many elements.

    Equal symbols on both sides cancel. What is left must be numbers on both sides, one unknown on the output's, and at
    most one symbol on the source's, which the unknown then is a multiple of (a plain one gets the symbol's name).
    """
    left, right = list(source), list(output)
    for symbol in [d for d in output if isinstance(d, str)]:
        if symbol in left:
            left.remove(symbol)
            right.remove(symbol)
    unknown = [d for d in right if not isinstance(d, int)]
    symbols = [d for d in left if not isinstance(d, int)]
    if len(unknown) != 1 or len(symbols) > 1:
        return output
    size, rest = divmod(_product(left), _product(right))
    if rest or (symbols and size != 1):
        return output
    at = output.index(unknown[0])
    return [*output[:at], symbols[0] if symbols else size, *output[at + 1 :]]


def _product(dims: list[Dim]) -> int:
    return math.prod(d for d in dims if isinstance(d, int))


def _known_sizes(model: Model, node: gs.Node) -> list[Dim] | None:
    """What a Gather or Slice takes from a Shape, or a Range of axes holds, where all of it is known."""
    shape, whole = node.inputs[0], node.outputs[0].dtype == np.int64
    from_shape = bool(shape.inputs) and shape.inputs[0].op == "Shape"
    if node.domain or not (whole if node.op == "Range" else from_shape):
        return None
    sizes = told(model, node.outputs[0])
    return sizes if sizes and all(isinstance(d, int) for d in sizes) else None


def _fold_sizes(node: gs.Node, sizes: list[Dim]) -> int:
    shape = node.inputs[1].shape if node.op == "Gather" else [len(sizes)]
    output = node.outputs[0]
    node.outputs.clear()
    node.inputs.clear()
    output.to_constant(np.asarray(sizes, np.int64).reshape(shape))
    return 1


def _sharper(old: Dim, new: Dim) -> Dim:
    """A number before a symbol, a symbol before nothing."""
    if isinstance(old, int) or new is None:
        return old
    return new if isinstance(new, int) or old is None or old.startswith("unk__") else old
