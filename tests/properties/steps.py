"""The steps that random graphs are made of, one for each kind of operator."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from tests.properties.graphs import Sketch, Tensor, step

ACTIVATIONS = (
    "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSigmoid", "HardSwish",
    "Gelu", "Mish", "Erf", "Neg", "Abs", "Identity", "Sin", "Cos", "Atan", "Dropout", "ThresholdedRelu",
)  # fmt: skip


@step
def activation(s: Sketch, x: Tensor) -> Tensor:
    return s.result(s.op(s.pick(ACTIVATIONS), x.name), x.shape)


@step
def clip(s: Sketch, x: Tensor) -> Tensor:
    low, high = s.weight(-0.7), s.weight(0.9)
    return s.result(s.op("Clip", x.name, *s.pick([(low,), (low, high), ("", high)])), x.shape)


@step
def softmax(s: Sketch, x: Tensor) -> Tensor:
    return s.result(s.op(s.pick(["Softmax", "LogSoftmax"]), x.name, axis=s.axis(x)), x.shape)


@step
def positive_function(s: Sketch, x: Tensor) -> Tensor:
    """Roots, logarithms and reciprocals of what is above zero; exponentials of what is bounded."""
    if s.maybe():
        return s.result(s.op("Exp", s.op("Tanh", x.name)), x.shape)
    away = s.op("Add", s.op("Abs", x.name), s.weight(0.5))
    return s.result(s.op(s.pick(["Sqrt", "Log", "Reciprocal"]), away), x.shape)


@step
def power(s: Sketch, x: Tensor) -> Tensor:
    exponent = s.weight(s.pick([2, 3]), s.pick([np.float32, np.int64, np.int32]))
    return s.result(s.op("Pow", s.op("Tanh", x.name), exponent), x.shape)


@step
def with_constant(s: Sketch, x: Tensor) -> Tensor:
    shape = [size if s.maybe() else 1 for size in x.shape[1:]][s.integer(0, x.rank - 2) :]
    op = s.pick(["Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu"])
    constant = s.weight(np.abs(s.rng.standard_normal(shape)) + 0.5) if op == "Div" else s.normal(*shape)
    turned = s.maybe() and op not in ("Div", "PRelu")
    operands = (constant, x.name) if turned else (x.name, constant)
    return s.result(s.op(op, *operands), x.shape)


@step
def joined(s: Sketch, x: Tensor) -> Tensor | None:
    """Two tensors that broadcast against one another."""
    fitting = [t for t in s.live if t.name != x.name and _broadcast(t.shape, x.shape)]
    if not fitting:
        return None
    y = s.pick(fitting)
    op = s.pick(["Add", "Sub", "Mul", "Sum", "Mean", "Max", "Min", "Where", "Div"])
    if op in ("Max", "Min", "Where") and s.repeating:
        return None
    shape = np.broadcast_shapes(x.shape, y.shape)
    if op == "Where":
        return s.result(s.op("Where", s.op("Greater", x.name, s.weight(0.1)), x.name, y.name), shape)
    if op == "Div":
        return s.result(s.op("Div", x.name, s.op("Add", s.op("Softplus", y.name), s.weight(0.5))), shape)
    s.repeating = s.repeating or op in ("Max", "Min")
    return s.result(s.op(op, x.name, y.name), shape)


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    if len(a) != len(b):
        return False
    return all(p == q or 1 in (p, q) for p, q in zip(a[1:], b[1:], strict=True))


@step
def concatenated(s: Sketch, x: Tensor) -> Tensor | None:
    axis = s.axis(x)
    at = axis % x.rank
    same = [
        t for t in s.live if t.rank == x.rank and t.shape[:at] + t.shape[at + 1 :] == x.shape[:at] + x.shape[at + 1 :]
    ]
    y = s.pick(same)
    s.repeating = True
    shape = list(x.shape)
    shape[at] += y.shape[at]
    return s.result(s.op("Concat", x.name, y.name, axis=axis), shape)


@step
def split(s: Sketch, x: Tensor) -> Tensor | None:
    axis = s.axis(x)
    size = x.shape[axis]
    if size < 2:
        return None
    first = s.integer(1, size - 1)
    parts = s.node("Split", x.name, s.ints(first, size - first), outputs=2, axis=axis)
    shapes = [[*x.shape], [*x.shape]]
    shapes[0][axis], shapes[1][axis] = first, size - first
    s.live.append(s.result(parts[0], shapes[0]))
    return s.result(parts[1], shapes[1])


@step
def reshaped(s: Sketch, x: Tensor) -> Tensor:
    """To a constant, with 0 and -1, or to a shape computed in the graph."""
    rest = math.prod(x.shape[1:])
    first = s.pick([k for k in range(1, rest + 1) if rest % k == 0])
    sizes = (first, rest // first)
    kind = s.pick(["keep", "infer", "computed", "flatten"])
    if kind == "flatten":
        return s.result(s.op("Flatten", x.name, axis=1), (x.shape[0], rest))
    if kind == "keep":
        target = s.ints(0, first, -1)
    elif kind == "infer":
        target = s.ints(-1, *sizes)
    else:
        batch = s.op("Gather", s.op("Shape", x.name), s.weight(0, np.int64), axis=0)
        column = s.op("Unsqueeze", batch, s.ints(0))
        target = s.op("Concat", column, s.ints(*sizes), axis=0)
    return s.result(s.op("Reshape", x.name, target), (x.shape[0], *sizes))


@step
def transposed(s: Sketch, x: Tensor) -> Tensor:
    order = [0, *s.draw(st.permutations(range(1, x.rank)))]
    return s.result(s.op("Transpose", x.name, perm=order), [x.shape[axis] for axis in order])


@step
def squeezed(s: Sketch, x: Tensor) -> Tensor:
    ones = [axis for axis in range(1, x.rank) if x.shape[axis] == 1]
    if ones and x.rank > 2 and s.maybe():
        axis = s.pick(ones)
        return s.result(s.op("Squeeze", x.name, s.ints(axis)), x.shape[:axis] + x.shape[axis + 1 :])
    axis = s.integer(1, x.rank)
    return s.result(s.op("Unsqueeze", x.name, s.ints(axis)), (*x.shape[:axis], 1, *x.shape[axis:]))


@step
def sliced(s: Sketch, x: Tensor) -> Tensor:
    axis = s.axis(x)
    size = x.shape[axis]
    start, stride = s.integer(0, size - 1), s.pick([1, 1, 2, -1])
    stop = s.integer(start + 1, size) if stride > 0 else -size - 1
    if stride < 0:
        start = -1
    dtype = s.pick([np.int64, np.int32])
    bounds = [s.weight([v], dtype) for v in (start, stop, axis, stride)]
    shape = list(x.shape)
    shape[axis] = len(range(size)[slice(start, None if stride < 0 else stop, stride)])
    return s.result(s.op("Slice", x.name, *bounds), shape)


@step
def padded(s: Sketch, x: Tensor) -> Tensor | None:
    axis = s.integer(1, x.rank - 1)
    mode = s.pick(["constant", "reflect", "edge", "crop", "axes"])
    size = x.shape[axis]
    before, after = s.integer(0, min(2, size - 1)), s.integer(0, min(2, size - 1))
    if mode == "crop" and before + after < size:
        before, after, mode = -before, -after, "constant"
    elif mode == "crop":
        return None
    s.repeating = True
    shape = list(x.shape)
    shape[axis] += before + after
    if mode == "axes":
        value = s.weight(0.3)
        return s.result(s.op("Pad", x.name, s.ints(before, after), value, s.ints(axis)), shape)
    amounts = np.zeros((2, x.rank), np.int64)
    amounts[:, axis] = before, after
    return s.result(s.op("Pad", x.name, s.ints(*amounts.ravel()), mode=mode), shape)


@step
def repeated(s: Sketch, x: Tensor) -> Tensor:
    s.repeating = True
    axis = s.integer(1, x.rank - 1)
    if x.shape[axis] == 1 and s.maybe():
        target = [1] * x.rank
        target[axis] = 3
        shape = list(x.shape)
        shape[axis] = 3
        return s.result(s.op("Expand", x.name, s.ints(*target)), shape)
    times = [1] * x.rank
    times[axis] = 2
    shape = [size * by for size, by in zip(x.shape, times, strict=True)]
    return s.result(s.op("Tile", x.name, s.ints(*times)), shape)


@step
def gathered(s: Sketch, x: Tensor) -> Tensor:
    s.repeating = True
    axis = s.axis(x)
    at, size = axis % x.rank, x.shape[axis]
    indices = s.pick([[s.integer(0, size - 1)], [[0, size - 1], [-1, 0]], [s.integer(-size, -1), 0, 0]])
    dtype = s.pick([np.int64, np.int32])
    shape = (*x.shape[:at], *np.shape(indices), *x.shape[at + 1 :])
    return s.result(s.op("Gather", x.name, s.weight(indices, dtype), axis=axis), shape)


@step
def blocks(s: Sketch, x: Tensor) -> Tensor | None:
    if x.rank != 4:
        return None
    n, c, h, w = x.shape
    if c % 4 == 0 and s.maybe():
        mode = s.pick(["DCR", "CRD"])
        return s.result(s.op("DepthToSpace", x.name, blocksize=2, mode=mode), (n, c // 4, 2 * h, 2 * w))
    if h % 2 or w % 2:
        return None
    return s.result(s.op("SpaceToDepth", x.name, blocksize=2), (n, 4 * c, h // 2, w // 2))


@step
def summed_up(s: Sketch, x: Tensor) -> Tensor:
    attributes = {"exclusive": s.integer(0, 1), "reverse": s.integer(0, 1)}
    return s.result(s.op("CumSum", x.name, s.weight(s.axis(x), np.int64), **attributes), x.shape)


@step
def reduced(s: Sketch, x: Tensor) -> Tensor | None:
    kinds = ["Mean", "Sum", "L2", "L1", "LogSumExp", "SumSquare"]
    kinds += [] if s.repeating else ["Max", "Min"]
    axis, keep = s.integer(1, x.rank - 1), s.maybe() or x.rank == 2
    kind = s.pick(kinds)
    shape = list(x.shape)
    shape[axis : axis + 1] = [1] if keep else []
    # Of L2 and L1, since at zero their slope is anyone's choice
    name = s.op("Add", x.name, s.normal(*x.shape[1:])) if kind in ("L1", "L2") else x.name
    s.repeating = s.repeating or kind in ("Max", "Min")
    return s.result(s.op(f"Reduce{kind}", name, s.ints(axis), keepdims=int(keep)), shape)


@step
def product(s: Sketch, x: Tensor) -> Tensor:
    """With a matrix from the right or the left, or of a tensor with itself."""
    width = x.shape[-1]
    kind = s.pick(["right", "left", "self"]) if x.rank > 2 else "right"
    if kind == "right":
        size = s.integer(1, 4)
        return s.result(s.op("MatMul", x.name, s.normal(width, size, scale=width**-0.5)), (*x.shape[:-1], size))
    if kind == "left":
        size, rows = s.integer(1, 4), x.shape[-2]
        weights = s.normal(size, rows, scale=rows**-0.5)
        return s.result(s.op("MatMul", weights, x.name), (*x.shape[:-2], size, width))
    order = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    other = s.op("Transpose", x.name, perm=order)
    return s.result(s.op("MatMul", x.name, other), (*x.shape[:-1], x.shape[-2]))
