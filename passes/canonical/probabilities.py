"""What turns scores into probabilities, as one operator or spelled out, and what leaves their order as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.model import Model

RESHAPING = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "Transpose"})
_INCREASING = frozenset({"Log", "Exp"})
_OF_ROWS = RESHAPING | {"Expand", "Add", "Where", "Clip", "Max", "Min"}
"""Between a sum or a maximum over the classes and where it is taken from them or divides them."""
_SUMS = ("ReduceSum", "ReduceL1")


@dataclass(frozen=True)
class Behind:
    """What lies one step behind a tensor, whose classes are in the same order.

    rescaled:    whether the step changes numbers by a function that increases, the same one for all classes.
    probability: whether it is a softmax or a sigmoid: what lies behind are scores.
    axis:        along which a softmax goes.
    """

    tensor: gs.Tensor
    rescaled: bool = False
    probability: bool = False
    axis: int | None = None


def behind(model: Model, tensor: gs.Tensor) -> Behind | None:
    """One step back from a tensor; None where the order of the classes may be another there."""
    node = maker(tensor)
    if node is None:
        return None
    if node.op in RESHAPING:
        return Behind(node.inputs[0])
    found = next(_probabilities(model, node), None)
    if found is not None:
        scores, axis = found
        return Behind(scores, probability=True, axis=axis)
    scaled = next(_scaled(model, node), None)
    if scaled is None or scaled.shape is None or tensor.shape is None or len(scaled.shape) != len(tensor.shape):
        return None
    return Behind(scaled, rescaled=True)


def _probabilities(model: Model, node: gs.Node) -> Iterator[tuple[gs.Tensor, int | None]]:
    """The scores that a node makes probabilities or their logarithms of, and the axis, None for a sigmoid."""
    match node.op, node.inputs:
        case "Softmax" | "LogSoftmax", [x]:
            yield x, None if x.shape is None else int(node.attrs.get("axis", -1)) % len(x.shape)
        case "Sigmoid", [x]:
            yield x, None
        case "Reciprocal", [below]:
            yield from ((x, None) for x in _sigmoids(model, below))
        case "Div", [above, below]:
            yield from ((x, None) for x in _sigmoids(model, below, above))
            yield from _softmaxes(above, below)
        case "Mul", [one, other]:
            for above, turned in ((one, other), (other, one)):
                reciprocal = maker(turned, "Reciprocal")
                if reciprocal is not None:
                    yield from _softmaxes(above, reciprocal.inputs[0])
        case "Sub", [scores, taken]:
            yield from _log_softmaxes(scores, taken)


def _sigmoids(model: Model, below: gs.Tensor, above: gs.Tensor | None = None) -> Iterator[gs.Tensor]:
    """y of 1 / (1 + exp(-y)), or of exp(y) / (1 + exp(y)).

    above: what is divided, 1 by default.
    """
    added = maker(below, "Add")
    for one, other in _either(added):
        exp = maker(other, "Exp")
        if exp is None or not _is_positive(model, one):
            continue
        negative = maker(exp.inputs[0], "Neg")
        if negative is not None and (above is None or _is_positive(model, above)):
            yield negative.inputs[0]
        elif above is not None and _source(above) is _source(other):
            yield exp.inputs[0]


def _softmaxes(above: gs.Tensor, below: gs.Tensor) -> Iterator[tuple[gs.Tensor, int]]:
    """y of exp(y) over its sum, or of exp(y - max y) over its own."""
    exp = maker(above, "Exp")
    total = None if exp is None else _over_a_row(below, _SUMS)
    if exp is None or total is None:
        return
    reduce, axis = total
    if _source(reduce.inputs[0]) is _source(above):
        yield _unshifted(exp.inputs[0], axis), axis


def _log_softmaxes(scores: gs.Tensor, taken: gs.Tensor) -> Iterator[tuple[gs.Tensor, int]]:
    """y of y minus the logarithm of the sum of exp(y), from any or all of which the largest y was taken before."""
    for summed, axis in _logarithms(taken):
        y = _unshifted(scores, axis)
        if _unshifted(summed, axis) is y:
            yield y, axis


def _logarithms(taken: gs.Tensor) -> Iterator[tuple[gs.Tensor, int]]:
    """What is summed up as exponentials in what is taken from a row, and along which axis."""
    whole = _over_a_row(taken, ("ReduceLogSumExp",))
    if whole is not None:
        yield _source(whole[0].inputs[0]), whole[1]
    part = _over_a_row(taken, ("ReduceLogSum", *_SUMS), through=_OF_ROWS | {"Log"})
    exp = None if part is None else maker(part[0].inputs[0], "Exp")
    if part is not None and exp is not None:
        yield _source(exp.inputs[0]), part[1]


def _unshifted(tensor: gs.Tensor, axis: int) -> gs.Tensor:
    """y of y - max y; else the tensor itself."""
    node = maker(tensor, "Sub")
    if node is None:
        return _source(tensor)
    y, taken = node.inputs
    largest = _over_a_row(taken, ("ReduceMax",))
    same = largest is not None and largest[1] == axis and _source(largest[0].inputs[0]) is _source(y)
    return _source(y if same else tensor)


def _over_a_row(
    tensor: gs.Tensor, ops: Iterable[str], through: frozenset[str] = _OF_ROWS
) -> tuple[gs.Node, int] | None:
    """The node that makes one number of each row, which `tensor` holds in some form, and along which axis it went.

    A tensor that is not one number for a whole row leads to none: it may be another one for each class.
    """
    wide = tensor
    while (expand := maker(wide, "Expand")) is not None:
        wide = expand.inputs[0]
    waiting, seen = [wide], set()
    while waiting:
        node = maker(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op in ops:
            axis = axis_of(node)
            one = axis is not None and wide.shape is not None and axis < len(wide.shape) and wide.shape[axis] == 1
            return (node, axis) if axis is not None and one else None
        if node.op in through:
            waiting += [t for t in node.inputs if not isinstance(t, gs.Constant)]
    return None


def axis_of(node: gs.Node) -> int | None:
    """The one axis that a reduction goes along; None where there are several, it is the batch's or not known."""
    axes = node.attrs.get("axes")
    if len(node.inputs) > 1:
        given = node.inputs[1]
        axes = given.values.ravel().tolist() if isinstance(given, gs.Constant) else None
    shape = node.inputs[0].shape
    return int(axes[0]) % len(shape) or None if axes is not None and len(axes) == 1 and shape else None


def _scaled(model: Model, node: gs.Node) -> Iterator[gs.Tensor]:
    """x of an increasing function of x, the same one for all elements."""
    match node.op, node.inputs:
        case op, [x] if op in _INCREASING:
            yield x
        case "Clip", [x, *bounds] if all(b.is_empty() or isinstance(b, gs.Constant) for b in bounds):
            yield x
        case "Add" | "Max" | "Min", [one, other]:
            yield from (x for c, x in ((one, other), (other, one)) if _number(model, c) is not None)
        case "Sub", [x, c] if _number(model, c) is not None:
            yield x
        case "Mul", [one, other]:
            yield from (x for c, x in ((one, other), (other, one)) if _is_positive(model, c))
        case "Div", [x, c] if _is_positive(model, c):
            yield x
        case "QuantizeLinear" | "DequantizeLinear", [x, scale, *_] if _is_positive(model, scale):
            yield x


def _either(node: gs.Node | None) -> list[tuple[gs.Tensor, gs.Tensor]]:
    if node is None:
        return []
    one, other = node.inputs
    return [(one, other), (other, one)]


def _source(tensor: gs.Tensor) -> gs.Tensor:
    """The tensor that this is the same as."""
    while (node := maker(tensor, "Identity")) is not None:
        tensor = node.inputs[0]
    return tensor


def maker(tensor: gs.Tensor, *ops: str) -> gs.Node | None:
    """The node that makes a tensor, if it is one of ONNX's own, or of `ops`, for which copies are looked through."""
    while tensor.inputs:
        node = tensor.inputs[0]
        if node.domain:
            return None
        if not ops or node.op in ops:
            return node
        if node.op != "Identity":
            return None
        tensor = node.inputs[0]
    return None


def _number(model: Model, tensor: gs.Tensor) -> float | None:
    """The one number that a constant holds."""
    if not isinstance(tensor, gs.Constant) or int(np.prod(tensor.shape)) != 1:
        return None
    return float(model.weights.array(tensor).ravel()[0])


def _is_positive(model: Model, tensor: gs.Tensor) -> bool:
    number = _number(model, tensor)
    return number is not None and number > 0
