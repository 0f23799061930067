"""What a computed shape holds, element by element, as far as it can be told before the graph runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.model import Model
from onnxplain.ir.value import Dim

UP_TO = 64
"""Elements. A larger vector is no shape."""

_SAME = frozenset({"Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten"})
_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: int(a / b) if b else 0,
    "Mod": lambda a, b: a % b if b else 0,
}


def told(model: Model, tensor: gs.Tensor) -> list[Dim] | None:
    """The elements of an integer scalar or vector: numbers, names of sizes, None where unknown.

    Returns: None if not even their count is known.
    """
    if isinstance(tensor, gs.Constant):
        if math.prod(tensor.shape) > UP_TO or np.dtype(tensor.dtype).kind not in "iub":
            return None
        return [int(v) for v in np.ravel(model.weights.array(tensor))]
    node = tensor.inputs[0] if tensor.inputs else None
    found = None if node is None or node.domain else _computed(model, node)
    if found is not None:
        return found
    count = (
        math.prod(d if isinstance(d, int) else UP_TO + 1 for d in tensor.shape) if tensor.shape is not None else None
    )
    return None if count is None or count > UP_TO else [None] * count


def _computed(model: Model, node: gs.Node) -> list[Dim] | None:
    if node.op == "Shape":
        shape = node.inputs[0].shape
        return None if shape is None else list(shape)[node.attrs.get("start", 0) : node.attrs.get("end")]
    if node.op == "Size":
        shape = node.inputs[0].shape
        known = shape is not None and all(isinstance(d, int) for d in shape)
        return [math.prod(shape) if known else None]
    if node.op == "Range":
        return _counted([told(model, t) for t in node.inputs])
    if node.op in _SAME:
        return told(model, node.inputs[0])
    if node.op == "Cast":
        return _cast(told(model, node.inputs[0]), node)
    if node.op == "Concat":
        parts = [told(model, t) for t in node.inputs]
        return None if any(part is None for part in parts) else [d for part in parts for d in part or []]
    if node.op in ("Gather", "Slice"):
        return _picked(model, node)
    if node.op == "ConstantOfShape":
        sizes = told(model, node.inputs[0])
        value = node.attrs.get("value")
        fill = 0 if value is None else int(np.ravel(value.values)[0])
        if sizes is None or len(sizes) > 1 or not all(isinstance(n, int) and n <= UP_TO for n in sizes):
            return None
        return [fill] * math.prod(n for n in sizes if isinstance(n, int))
    if node.op in ("Equal", "Where", "Max", "Min", *_ARITHMETIC):
        operands = [told(model, t) for t in node.inputs]
        count = max((len(o) for o in operands if o is not None), default=0)
        if any(o is None or len(o) not in (1, count) for o in operands):
            return None
        rows = zip(*([o[0]] * count if len(o) == 1 else o for o in operands if o is not None), strict=True)
        if node.op in ("Max", "Min"):
            return [_extreme(node.op, row) for row in rows]
        return None if node.attrs.get("fmod", 0) else [_combined(node.op, *row) for row in rows]
    return None


def _counted(bounds: Sequence[list[Dim] | None]) -> list[Dim] | None:
    """A Range's numbers, from its start, limit and step."""
    start, limit, step = (bound[0] if bound else None for bound in bounds)
    if not (isinstance(start, int) and isinstance(limit, int) and isinstance(step, int) and step):
        return None
    numbers = range(start, limit, step)
    return list(numbers) if len(numbers) <= UP_TO else None


def _cast(values: list[Dim] | None, node: gs.Node) -> list[Dim] | None:
    """Integers as integers, or as whether they are not zero; None of real numbers, which are no sizes."""
    kinds = [None if t.dtype is None else np.dtype(t.dtype).kind for t in (node.inputs[0], node.outputs[0])]
    if values is None or any(kind not in ("i", "u", "b") for kind in kinds):
        return None
    return [int(v != 0) if isinstance(v, int) else None for v in values] if kinds[1] == "b" else values


def _extreme(op: str, values: Sequence[Dim]) -> Dim:
    known = [v for v in values if isinstance(v, int)]
    if len(known) == len(values):
        return max(known) if op == "Max" else min(known)
    return values[0] if len(set(values)) == 1 else None


def _picked(model: Model, node: gs.Node) -> list[Dim] | None:
    vector = told(model, node.inputs[0])
    numbers = [told(model, t) for t in node.inputs[1:]]
    if vector is None or len(node.inputs[0].shape or ()) != 1:
        return None
    if any(n is None or not all(isinstance(v, int) for v in n) for n in numbers):
        return None
    picks = [[v for v in n or [] if isinstance(v, int)] for n in numbers]
    if node.op == "Gather":
        return [vector[i] if -len(vector) <= i < len(vector) else None for i in picks[0]]
    step = picks[3][0] if len(picks) > 3 and picks[3] else 1
    return vector[picks[0][0] : picks[1][0] : step]


def _combined(op: str, a: Dim, b: Dim, c: Dim = None) -> Dim:
    if op == "Where":
        return None if not isinstance(a, int) else b if a else c
    if op == "Equal":
        if isinstance(a, int) and isinstance(b, int):
            return int(a == b)
        # A size has a name where its number is not known, and is never below zero.
        named, number = (a, b) if isinstance(a, str) else (b, a)
        return 0 if isinstance(named, str) and isinstance(number, int) and number < 0 else None
    if isinstance(a, int) and isinstance(b, int):
        return _ARITHMETIC[op](a, b)
    if op in ("Mul", "Div") and b == 1:
        return a
    return b if op == "Mul" and a == 1 else None


def reshaped(source: list[Dim], target: list[Dim], *, keeps: bool) -> list[Dim]:
    """The sizes that a Reshape to that target gives: -1 is what remains, and 0 keeps an axis unless it is a size."""
    kept = [source[i] if keeps and d == 0 and i < len(source) else d for i, d in enumerate(target)]
    return [None if d == -1 else d for d in kept]


def expanded(source: list[Dim], target: list[Dim]) -> list[Dim]:
    """The sizes that an Expand to that target gives."""
    rank = max(len(source), len(target))
    pairs = zip([1] * (rank - len(source)) + source, [1] * (rank - len(target)) + target, strict=True)
    return [_stretched(have, want) for have, want in pairs]


def _stretched(have: Dim, want: Dim) -> Dim:
    """One size of an Expand. A size known by name alone may be one, and then the other decides."""
    if want == 1:
        return have
    if have == 1 or isinstance(want, int):
        return want
    return have if isinstance(have, int) or have == want else None
