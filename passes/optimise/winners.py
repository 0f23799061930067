"""A max-pool's winners without indices, for runtimes that have no MaxPool with Indices or no scatter that adds."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.ir.window import Window, pool_attributes
from onnxplain.passes.optimise.rewriting import NodeRewrite, is_emitted
from onnxplain.passes.optimise.scatter import is_zero
from onnxplain.rules.vjp.windows import transposed

_LOWEST = float(np.finfo(np.float32).min)
"""Stands for padding: no element is less."""


class PlainWinners(NodeRewrite):
    """What is scattered to, or gathered from, the indices of a MaxPool goes by a mask over the places in each window.

    The elements under a window are laid out along an axis of their own, one slice for each place, and the first of the
    largest is marked, as torch and ONNX Runtime choose it. A transposed convolution whose filters are each one at one
    place adds what is sent back.
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        """The flat result of a ScatterElements or GatherElements whose indices come from MaxPool."""
        if node.op not in ("ScatterElements", "GatherElements"):
            return None
        pool = _pool(node.inputs[1])
        if pool is None:
            return None
        if not is_flat(node):
            return "it goes by positions along an axis, not in the flat tensor"
        if node.op == "ScatterElements" and not is_zero(g, g.wrap(node.inputs[0])):
            return "it puts them into something else than zeros"
        moved = g.wrap(node.inputs[2] if node.op == "ScatterElements" else node.inputs[0])
        if moved.dtype == np.float64:
            return "double precision has no transposed convolution"
        if pool.attrs.get("auto_pad", "NOTSET") != "NOTSET":
            return "its pads are known only at run time"
        x, y = g.wrap(pool.inputs[0]), _pooled(g, pool)
        hits = _hits(g, node.inputs[1], moved, pool)
        if node.op == "GatherElements":
            read = _laid_out(g, _per_sample(g, moved, x), pool, y, fill=0)
            return g.reshape(g.sum(hits * read, [2], keepdims=False), [-1])
        sent = hits * g.unsqueeze(_per_sample(g, moved, y), [2])
        return g.reshape(_put_back(g, sent, pool, x), [-1])


def is_flat(node: gs.Node) -> bool:
    """Whether a ScatterElements or GatherElements counts its positions through the whole tensor, as MaxPool does."""
    return node.attrs.get("axis", 0) == 0 and len(node.inputs[1].shape or ()) == 1


def _pool(indices: gs.Tensor) -> gs.Node | None:
    """The MaxPool that flat indices come from, past the arithmetic that says which sample they are for.

    A model's own arithmetic may say anything.
    """
    node = indices.inputs[0] if indices.inputs else None
    if node is None or node.domain:
        return None
    if node.op == "MaxPool":
        return node
    operands = {"Reshape": node.inputs[:1]}
    if is_emitted(node):
        operands |= {"Where": node.inputs[1:], "Add": node.inputs, "Sub": node.inputs}
    return next((found for t in operands.get(node.op, []) if (found := _pool(t)) is not None), None)


def _hits(g: Builder, indices: gs.Tensor, like: Value, pool: gs.Node) -> Value:
    """(N, C, places, *T): 1 where the winner is, in the dtype of `like`."""
    if isinstance(indices, gs.Constant):
        return _told(g, g.wrap(indices), like, pool)
    node = indices.inputs[0]
    if node.op == "MaxPool":
        return _first_largest(g, node, like)
    if node.op == "Where":
        condition = g.unsqueeze(g.wrap(node.inputs[0]), [2])
        return g.where(condition, *(_hits(g, t, like, pool) for t in node.inputs[1:]))
    return _hits(g, next(t for t in node.inputs if _pool(t) is not None), like, pool)


def _told(g: Builder, indices: Value, like: Value, pool: gs.Node) -> Value:
    """The same for the winners of a sample that was computed ahead: positions in it, (1, C, *T)."""
    window, x = Window.of_node(pool), g.wrap(pool.inputs[0])
    sizes = [int(x.shape[axis] or 0) for axis in x.spatial]
    found = g.values(indices)
    at = np.unravel_index(found % prod(sizes), sizes)
    place = np.zeros_like(found)
    for i, kernel in enumerate(window.kernel):
        first = np.arange(found.shape[i + 2]) * window.strides[i] - window.before[i]
        first = first.reshape([-1 if axis == i + 2 else 1 for axis in range(found.ndim)])
        place = place * kernel + (at[i] - first) // window.dilations[i]
    return _one_of(g, g.constant(np.expand_dims(place, 2)), prod(window.kernel), like)


def _first_largest(g: Builder, pool: gs.Node, like: Value) -> Value:
    x, y = g.wide(g.wrap(pool.inputs[0])), _pooled(g, pool)
    under = _laid_out(g, x, pool, y, fill=_LOWEST)
    return _one_of(g, g.op("ArgMax", under, axis=2, keepdims=1), prod(pool.attrs["kernel_shape"]), like)


def _one_of(g: Builder, place: Value, places: int, like: Value) -> Value:
    """(N, C, 1, *T) -> (N, C, places, *T): 1 at the place named."""
    numbered = np.arange(places, dtype=np.int64).reshape(places, *[1] * (place.rank - 3))
    return g.mask(g.equal(place, g.constant(numbered)), like)


def _pooled(g: Builder, pool: gs.Node) -> Value:
    """The pool's output without indices: the forward node's, where that is there."""
    return g.op("MaxPool", g.wrap(pool.inputs[0]), **pool_attributes(pool))


def _laid_out(g: Builder, x: Value, pool: gs.Node, y: Value, fill: float) -> Value:
    """(N, C, *S) -> (N, C, places, *T): what each place of each window sees, `fill` where it sees padding."""
    window, axes = Window.of_node(pool), list(x.spatial)
    sizes = [y.shape[axis] for axis in axes]
    known = all(isinstance(n, int) for n in (*sizes, *(x.shape[axis] for axis in axes)))
    after = []
    for i, axis in enumerate(axes):
        slack = window.strides[i] - 1 if pool.attrs.get("ceil_mode", 0) else 0
        if known:
            read = (int(sizes[i] or 0) - 1) * window.strides[i] + window.reach[i]
            after.append(max(read - window.before[i] - int(x.shape[axis] or 0), 0))
        else:
            after.append(window.after[i] + slack)
    padded = _padded(g, x, window.before, after, fill)
    slices = []
    for place in product(*map(range, window.kernel)):
        start = [p * d for p, d in zip(place, window.dilations, strict=True)]
        if known:
            reached = zip(start, sizes, window.strides, strict=True)
            ends: list[int] | Value = [s + (int(n or 0) - 1) * k + 1 for s, n, k in reached]
        else:
            past = [s - k + 1 for s, k in zip(start, window.strides, strict=True)]
            ends = g.sizes(y, axes) * g.ints(window.strides) + g.ints(past)
        steps = window.strides if any(k > 1 for k in window.strides) else None
        slices.append(g.unsqueeze(g.slice(padded, start, ends, axes, steps), [2]))
    return g.concat(slices, axis=2)


def _padded(g: Builder, x: Value, before: list[int], after: list[int], fill: float) -> Value:
    if not any((*before, *after)):
        return x
    amounts = g.ints([0, 0, *before, 0, 0, *after])
    return g.op("Pad", x, amounts, g.constant(fill, x.dtype))


def _put_back(g: Builder, sent: Value, pool: gs.Node, x: Value) -> Value:
    """(N, C, places, *T) -> (N C, 1, *S): what the places of each window send, added where the windows lie."""
    window = Window.of_node(pool)
    places = prod(window.kernel)
    filters = np.eye(places, dtype=sent.dtype).reshape(places, 1, *window.kernel)
    planes = g.reshape(sent, g.concat([g.ints([-1, places]), g.sizes(sent, range(3, sent.rank))], axis=0))
    return transposed(g, planes, g.constant(filters), x, window, group=1)


def _per_sample(g: Builder, flat: Value, like: Value) -> Value:
    """A flat tensor with the axes of `like`; its batch may be another one."""
    return g.reshape(flat, g.concat([g.ints([-1]), g.sizes(like, range(1, like.rank))], axis=0))
