"""Whether several batches can be computed at once, stacked along the batch's axis, and come out as each by itself.

A model that was exported for a batch of one may do along that axis what one sample does not show: take a maximum over
all of it, add it up, write to its first row alone. So the axis is followed from operator to operator. What is not
known to keep batches apart is not taken to: then they are computed one after the other, which is slower and no less
right.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value, is_sized
from onnxplain.passes.explain.trace import Trace
from onnxplain.rules.table import BROADCASTING

Along = int | None
"""Along which axis of a tensor the batches are stacked; None for one that is the same for all of them."""


@dataclass(frozen=True)
class Stacked:
    """A node as the rules below see it.

    along: for each operand; one of them at least is stacked.
    many:  the sizes of its first output where there are several batches.
    """

    g: Builder
    node: gs.Node
    along: tuple[Along, ...]
    many: Sequence[object]

    @property
    def axis(self) -> int:
        """Along which axis the first of those that are stacked is."""
        return next(a for a in self.along if a is not None)

    @property
    def alone(self) -> bool:
        """Whether the first operand is the only one that is stacked."""
        return self.along[0] is not None and all(a is None for a in self.along[1:])

    @property
    def together(self) -> bool:
        """Whether all operands are stacked, along the same axis."""
        return len(set(self.along)) == 1

    @property
    def sizes(self) -> list[int]:
        """Those of the first output for one batch."""
        return list(self.node.outputs[0].shape)

    def rank(self, index: int = 0) -> int:
        return len(self.node.inputs[index].shape)

    def attr(self, name: str, default: int) -> int:
        return int(self.node.attrs.get(name, default))

    def own_axis(self, default: int) -> int:
        """The axis along which the operator works."""
        return self.attr("axis", default) % self.rank()

    def numbers(self, index: int) -> list[int] | None:
        """What an operand holds, [] where it is left out; None where that is known only when the graph runs."""
        if index >= len(self.node.inputs) or self.node.inputs[index].is_empty():
            return []
        value = self.g.wrap(self.node.inputs[index])
        return [int(v) for v in np.ravel(self.g.values(value))] if value.is_constant else None


Follow = Callable[[Stacked], Along]


def mixing(g: Builder, original: Trace, twins: Mapping[str, Value], times: int) -> str | None:
    """Why batches that are stacked do not come out as each by itself; None where they do.

    original: of a fixed batch, all sizes known.
    twins:    the twin of each tensor on `times` batches, by the original's name.
    Returns:  the node at which they may be mixed, for a message.
    """
    along: dict[str, Along] = {original.source.name: 0}
    for node in original.nodes:
        found = tuple(along.get(t.name) for t in node.inputs)
        if all(a is None for a in found):
            continue
        many = [twins[t.name].tensor.shape if t.name in twins else None for t in node.outputs]
        axis = None
        if not node.domain and node.op in _RULES and all(t.is_empty() or is_sized(t) for t in node.inputs):
            axis = _RULES[node.op](Stacked(g, node, found, many[0] or ()))
        if axis is None or not all(_grown(t, size, axis, times) for t, size in zip(node.outputs, many, strict=True)):
            return f"{node.op} (node {node.name!r}) may mix them"
        along.update((t.name, axis) for t in node.outputs)
    return None if along.get(original.score.name) == 0 else "the scores do not have them along their first axis"


def across(g: Builder, original: Trace) -> str | None:
    """The first node with a derivative that is seen to work along the batch's axis, for a message; None if none is.

    Of a batch of any size, where sizes tell less: what is not seen to is not taken to.
    """
    along: dict[str, Along] = {original.source.name: 0}
    for node in (site.node for site in original.sites):
        found = tuple(along.get(t.name) for t in node.inputs)
        ranked = all(t.is_empty() or t.shape is not None for t in (*node.inputs, *node.outputs))
        if all(a is None for a in found) or node.domain or node.op not in _RULES or not ranked:
            continue
        stacked = Stacked(g, node, found, ())
        axis = _RULES[node.op](stacked)
        if axis is not None:
            along.update((t.name, axis) for t in node.outputs)
        elif node.op in _ACROSS and _ACROSS[node.op](stacked):
            return f"{node.op} (node {node.name!r})"
    return None


def _grown(one: gs.Tensor, many: Sequence[object] | None, axis: int, times: int) -> bool:
    """Whether a tensor of several batches is so many times as large along the axis, and as large along the others."""
    if not is_sized(one) or many is None:
        return False
    return list(many) == [size * times if i == axis else size for i, size in enumerate(one.shape)]


def _pointwise(s: Stacked) -> Along:
    """Element by element, operands stretched: stacked along one axis, along which the others have no size."""
    rank = len(s.sizes)
    places = {a + rank - s.rank(i) for i, a in enumerate(s.along) if a is not None}
    if len(places) != 1:
        return None
    (axis,) = places
    for i, (t, a) in enumerate(zip(s.node.inputs, s.along, strict=True)):
        at = -1 if t.is_empty() else axis - (rank - s.rank(i))
        if at >= 0 and t.shape[at] != (1 if a is None else s.sizes[axis]):
            return None
    return axis


def _by_sample(s: Stacked) -> Along:
    """(N, C, *S), each sample by itself. A max-pool's indices count through all of them."""
    return 0 if s.alone and s.axis == 0 and len(s.node.outputs) == 1 else None


def _sampled(s: Stacked) -> Along:
    """GridSample: pictures and the places at which they are read."""
    return 0 if s.together and s.axis == 0 else None


def _past(worked: Callable[[Stacked], Sequence[int] | None]) -> Follow:
    """An operator that keeps the rank and works along some axes."""

    def rule(s: Stacked) -> Along:
        axes = worked(s) if s.alone else None
        return None if axes is None or s.axis in axes else s.axis

    return rule


def _from(default: int) -> Callable[[Stacked], Sequence[int] | None]:
    return lambda s: [s.own_axis(default)]


def _reduced(s: Stacked) -> Along:
    axes = s.numbers(1)
    if not s.alone or not axes:
        return s.axis if s.alone and axes == [] and s.attr("noop_with_empty_axes", 0) else None
    return _without(s, {a % s.rank() for a in axes}, s.attr("keepdims", 1) == 1)


def _arg_reduced(s: Stacked) -> Along:
    return _without(s, {s.own_axis(0)}, s.attr("keepdims", 1) == 1)


def _without(s: Stacked, axes: Collection[int], kept: bool = False) -> Along:
    """Where axes go, or stay with size one, that are not the one."""
    if not s.alone or s.axis in axes:
        return None
    return s.axis if kept else s.axis - sum(a < s.axis for a in axes)


def _squeezed(s: Stacked) -> Along:
    axes = s.numbers(1)
    return _without(s, {a % s.rank() for a in axes}) if axes else None


def _unsqueezed(s: Stacked) -> Along:
    axes, rank = s.numbers(1), len(s.sizes)
    if axes is None:
        return None
    new = {a % rank for a in axes}
    return [a for a in range(rank) if a not in new][s.axis]


def _side_by_side(default: int) -> Follow:
    """Concat and lookups element by element: all operands are stacked, along another axis than the operator's."""
    return lambda s: s.axis if s.together and s.axis != s.own_axis(default) else None


def _sliced(s: Stacked) -> Along:
    starts, axes = s.numbers(1), s.numbers(3)
    if not s.alone or starts is None or axes is None:
        return None
    cut = {a % s.rank() for a in axes} or set(range(len(starts)))
    return None if s.axis in cut else s.axis


def _gathered(s: Stacked) -> Along:
    if not s.alone or s.axis == s.own_axis(0):
        return None
    return s.axis if s.axis < s.own_axis(0) else s.axis + s.rank(1) - 1


def _transposed(s: Stacked) -> Along:
    return list(s.node.attrs.get("perm", range(s.rank())[::-1])).index(s.axis)


def _reshaped(s: Stacked) -> Along:
    """Batches that lie in front are stretches of memory and stay that; others, where all in front of them stays."""
    before = list(s.node.inputs[0].shape)
    if not s.alone:
        return None
    if before[: s.axis + 1] == s.sizes[: s.axis + 1]:
        return s.axis
    grown = next((i for i, (one, more) in enumerate(zip(s.sizes, s.many, strict=False)) if one != more), None)
    in_front = grown is not None and not any(size != 1 for size in (*before[: s.axis], *s.sizes[:grown]))
    return grown if in_front else None


def _flattened(s: Stacked) -> Along:
    return 0 if s.axis == 0 and s.attr("axis", 1) % (s.rank() + 1) > 0 else None


def _expanded(s: Stacked) -> Along:
    return s.axis + len(s.sizes) - s.rank() if s.alone else None


def _product(s: Stacked) -> Along:
    """MatMul: along an axis of a stack of matrices, or along the rows of the left one."""
    rank = len(s.sizes)
    if min(s.rank(0), s.rank(1)) < 2:
        return None
    places = {a + rank - s.rank(i) for i, a in enumerate(s.along) if a is not None}
    axis = places.pop()
    if places or axis == rank - 1 or (axis == rank - 2 and s.along[1] is not None):
        return None
    for i, (t, a) in enumerate(zip(s.node.inputs, s.along, strict=True)):
        at = axis - (rank - s.rank(i))
        if 0 <= at < s.rank(i) - 2 and t.shape[at] != (1 if a is None else s.sizes[axis]):
            return None
    return axis


def _pairs(s: Stacked) -> bool:
    """MatMul: whether it adds up along the batches, or multiplies each of them with each."""
    if min(s.rank(0), s.rank(1)) < 2:
        return False
    summed = s.along[0] == s.rank(0) - 1 or s.along[1] == s.rank(1) - 2
    return summed or len({a - s.rank(i) for i, a in enumerate(s.along) if a is not None}) > 1


def _dense_pairs(s: Stacked) -> bool:
    """Gemm: likewise."""
    left, right = s.along[:2]
    both = left is not None and right is not None
    return both or left == (0 if s.attr("transA", 0) else 1) or right == (1 if s.attr("transB", 0) else 0)


def _dense(s: Stacked) -> Along:
    """Gemm: rows of the left operand; a matrix that is added has one row for all."""
    added = s.node.inputs[2] if len(s.node.inputs) > 2 else gs.Variable.empty()
    one_row = added.is_empty() or len(added.shape) < 2 or added.shape[0] == 1
    return 0 if s.alone and s.axis == 0 and not s.attr("transA", 0) and one_row else None


def _summed_products(s: Stacked) -> Along:
    """Einsum: the batch's letter is in every operand that is stacked, in no other, and in the result."""
    left, _, right = str(s.node.attrs["equation"]).replace(" ", "").partition("->")
    terms = left.split(",")
    if not right or "." in left:
        return None
    letters = {term[a] for term, a in zip(terms, s.along, strict=True) if a is not None}
    letter = letters.pop()
    apart = all((letter in term) == (a is not None) for term, a in zip(terms, s.along, strict=True))
    return right.index(letter) if not letters and apart and letter in right else None


def _running(s: Stacked) -> Sequence[int] | None:
    axes = s.numbers(1)
    return None if axes is None else [a % s.rank() for a in axes]


def _padded(s: Stacked) -> Sequence[int] | None:
    amounts = s.numbers(1)
    if amounts is None or len(s.node.inputs) > 3:
        return None
    return [i % s.rank() for i, amount in enumerate(amounts) if amount]


_POINTWISE = (BROADCASTING - {"MatMul", "Gemm", "Expand", "Einsum"}) | {
    "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not", "IsNaN", "IsInf", "Sign",
    "Floor", "Ceil", "Round", "Identity", "Dropout", "Cast", "CastLike", "Neg", "Abs", "Sqrt", "Exp", "Log",
    "Reciprocal", "Erf", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid", "HardSwish", "Gelu",
    "Mish", "Tanh", "Softplus", "Softsign", "Clip", "ThresholdedRelu", "Shrink", "Sin", "Cos", "Tan", "Asin", "Acos",
    "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh",
}  # fmt: skip

_BY_SAMPLE = (
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool",
    "BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN", "DepthToSpace", "SpaceToDepth",
    "Resize",
)  # fmt: skip

_REDUCTIONS = (
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceSumSquare",
)  # fmt: skip

_ALONG = (
    "ArgMax", "ArgMin", "Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "LayerNormalization",
    "MeanVarianceNormalization", "TopK",
)  # fmt: skip
"""Operators that mix along the axes that their attributes name, and along no other."""

_ACROSS: Mapping[str, Callable[[Stacked], bool]] = {
    **dict.fromkeys(_ALONG, lambda s: s.alone),
    **dict.fromkeys((*_REDUCTIONS, "CumSum"), lambda s: s.alone and s.numbers(1) is not None),
    "MatMul": _pairs,
    "Gemm": _dense_pairs,
}
"""Where a rule finds no axis on which batches stay apart: whether that is since the operator works across them."""

_RULES: Mapping[str, Follow] = {
    **dict.fromkeys(_POINTWISE, _pointwise),
    **dict.fromkeys(_BY_SAMPLE, _by_sample),
    **dict.fromkeys(_REDUCTIONS, _reduced),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg_reduced),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "TopK"), _past(_from(-1))),
    **dict.fromkeys(("GatherElements", "ScatterElements", "Concat"), _side_by_side(0)),
    "LayerNormalization": _past(lambda s: range(s.own_axis(-1), s.rank())),
    "MeanVarianceNormalization": _past(lambda s: [a % s.rank() for a in s.node.attrs.get("axes", [0, 2, 3])]),
    "CumSum": _past(_running),
    "Split": _past(_from(0)),
    "Pad": _past(_padded),
    "Trilu": _past(lambda s: [s.rank() - 2, s.rank() - 1]),
    "QuantizeLinear": _past(lambda s: [s.own_axis(1)] if s.rank(1) else []),
    "DequantizeLinear": _past(lambda s: [s.own_axis(1)] if s.rank(1) else []),
    "Slice": _sliced,
    "Gather": _gathered,
    "GridSample": _sampled,
    "Transpose": _transposed,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    "Reshape": _reshaped,
    "Flatten": _flattened,
    "Expand": _expanded,
    "MatMul": _product,
    "Gemm": _dense,
    "Einsum": _summed_products,
}
