"""The vocabulary in which rules are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce as fold

import numpy as np
import onnx_graphsurgeon as gs
from onnx.helper import np_dtype_to_tensor_dtype

from onnxplain.ir.emitter import Emitter
from onnxplain.ir.value import Dim, Operand, Value
from onnxplain.ir.weights import Array

_END = np.iinfo(np.int64).max
_NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1, "Pow": 1}


class Builder(Emitter):
    """Words over the emitter: each is one ONNX operator, or nothing where there is nothing to do."""

    def values(self, x: Value) -> Array:
        """The numbers of a constant. Raises: ValueError if x is computed at run time."""
        if not x.is_constant:
            raise ValueError(f"{x.name!r} is computed at run time where a constant is needed")
        return self.model.weights.array(x.tensor)

    # -- elementwise ------------------------------------------------------------------------------------------------

    def binary(self, op_type: str, a: Operand, b: Operand) -> Value:
        """An elementwise operator of two operands, one of which may be a Python number; none where nothing changes."""
        if isinstance(b, Value) and not isinstance(a, Value):
            if op_type in ("Add", "Mul") and a == _NEUTRAL[op_type]:
                return b
            return self.op(op_type, self.constant(a, b.dtype), b)
        if isinstance(a, Value) and not isinstance(b, Value):
            if _NEUTRAL.get(op_type) == b:
                return a
            return self.op(op_type, a, self.constant(b, a.dtype))
        if not isinstance(a, Value) or not isinstance(b, Value):
            raise TypeError(f"{op_type} needs at least one Value")
        if a.is_half != b.is_half:
            a, b = self.wide(a), self.wide(b)
        if b.is_constant and set(b.shape) <= {1} and b.rank <= a.rank and self.values(b) == _NEUTRAL.get(op_type):
            return a
        return self.op(op_type, a, b)

    def cast(self, x: Value, like: Value | np.dtype[np.generic] | type) -> Value:
        """x in the dtype of `like`."""
        dtype = like.dtype if isinstance(like, Value) else np.dtype(like)
        if x.dtype == dtype:
            return x
        return self.op("Cast", x, to=np_dtype_to_tensor_dtype(dtype))

    def wide(self, x: Value) -> Value:
        """x in single precision where it is in half."""
        return self.cast(x, np.float32) if x.is_half else x

    def where(self, condition: Value, a: Operand, b: Operand) -> Value:
        """a where the condition holds, else b."""
        like = a if isinstance(a, Value) else b
        if not isinstance(like, Value):
            raise TypeError("where needs at least one Value")
        a, b = (v if isinstance(v, Value) else self.constant(v, like.dtype) for v in (a, b))
        return self.op("Where", condition, a, b)

    def equal(self, a: Value, b: Operand) -> Value:
        return self.binary("Equal", a, b)

    def relu(self, x: Value) -> Value:
        """max(x, 0)."""
        return self.op("Relu", x)

    def negative_part(self, x: Value) -> Value:
        """min(x, 0), the part of x that is not positive."""
        return self.at_most(x, 0)

    def maximum(self, a: Value, b: Operand) -> Value:
        return self.binary("Max", a, b)

    def minimum(self, a: Value, b: Operand) -> Value:
        return self.binary("Min", a, b)

    def at_least(self, x: Value, low: float) -> Value:
        """x, or the bound where it is less."""
        return self.op("Clip", x, self.constant(low, x.dtype))

    def at_most(self, x: Value, high: float) -> Value:
        """x, or the bound where it is more."""
        return self.op("Clip", x, None, self.constant(high, x.dtype))

    def clip(self, x: Value, low: float, high: float) -> Value:
        """x, or the bound that it lies beyond."""
        return self.op("Clip", x, self.constant(low, x.dtype), self.constant(high, x.dtype))

    def exp(self, x: Value) -> Value:
        return self.op("Exp", x)

    def log(self, x: Value) -> Value:
        return self.op("Log", x)

    def sqrt(self, x: Value) -> Value:
        return self.op("Sqrt", x)

    def erf(self, x: Value) -> Value:
        return self.op("Erf", x)

    def sigmoid(self, x: Value) -> Value:
        return self.op("Sigmoid", x)

    def tanh(self, x: Value) -> Value:
        return self.op("Tanh", x)

    def sign(self, x: Value) -> Value:
        return self.op("Sign", x)

    def mask(self, condition: Value, like: Value) -> Value:
        """1 where the condition holds and 0 elsewhere, in the dtype of `like`."""
        return self.cast(condition, like)

    def stabilise(self, z: Value, eps: float, *, nonnegative: bool = False) -> Value:
        """z moved away from zero by eps, keeping its sign; zero counts as positive.

        nonnegative: z is known to have no negative element, and its sign need not be looked at.

        For eps = 0 only zero itself moves, to one: nothing is shared there, and 0 / 1 is what is wanted for 0 / 0.
        """
        if eps == 0:
            return z + self.mask(self.equal(z, 0), z)
        if nonnegative:
            return z + eps
        return z + self.where(z < 0, self.constant(-eps, z.dtype), eps)

    # -- reductions -------------------------------------------------------------------------------------------------

    def reduce(self, op_type: str, x: Value, axes: Iterable[int] | Value, keepdims: bool = True) -> Value:
        """A Reduce* operator over axes given as numbers or as a computed vector; none are no axes."""
        if not isinstance(axes, Value):
            axes = self.ints([axis % x.rank for axis in axes])
            if axes.shape == (0,):
                return x
        return self.op(op_type, x, axes, keepdims=int(keepdims), noop_with_empty_axes=1)

    def sum(self, x: Value, axes: Iterable[int] | Value, keepdims: bool = True) -> Value:
        return self.reduce("ReduceSum", x, axes, keepdims)

    def mean(self, x: Value, axes: Iterable[int] | Value, keepdims: bool = True) -> Value:
        return self.reduce("ReduceMean", x, axes, keepdims)

    def max(self, x: Value, axes: Iterable[int] | Value, keepdims: bool = True) -> Value:
        return self.reduce("ReduceMax", x, axes, keepdims)

    def min(self, x: Value, axes: Iterable[int] | Value, keepdims: bool = True) -> Value:
        return self.reduce("ReduceMin", x, axes, keepdims)

    def total(self, values: Sequence[Value]) -> Value:
        """The sum of one or more values of one shape."""
        return fold(lambda a, b: a + b, values)

    # -- shapes -----------------------------------------------------------------------------------------------------

    def shape(self, x: Value, start: int = 0, end: int | None = None) -> Value:
        """Sizes of axes start..end as an int64 vector; a constant where they are known."""
        known = x.shape[start:end]
        if all(isinstance(d, int) for d in known):
            return self.ints([int(d) for d in known if isinstance(d, int)])
        return self.op("Shape", x, start=start or None, end=end)

    def sizes(self, x: Value, axes: Sequence[int]) -> Value:
        """Sizes of the given axes as an int64 vector."""
        known = [x.shape[axis] for axis in axes]
        if all(isinstance(d, int) for d in known):
            return self.ints([int(d) for d in known if isinstance(d, int)])
        parts = [
            self.ints([d]) if isinstance(d, int) else self.shape(x, axis, axis + 1)
            for d, axis in zip(known, axes, strict=True)
        ]
        return self.concat(parts, axis=0)

    def count(self, x: Value, axes: Sequence[int], like: Value) -> Operand:
        """How many elements the given axes hold together, as a number or in the dtype of `like`."""
        known = [x.shape[axis] for axis in axes]
        if all(isinstance(d, int) for d in known):
            return int(np.prod([int(d) for d in known if isinstance(d, int)], dtype=np.int64))
        return self.cast(self.reduce("ReduceProd", self.sizes(x, axes), [0], keepdims=False), like)

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def reshape(self, x: Value, sizes: Sequence[int] | Value) -> Value:
        """x with new sizes (0 keeps an axis, -1 is what remains)."""
        if not isinstance(sizes, Value):
            if tuple(sizes) == x.shape:
                return x
            sizes = self.ints(sizes)
        return self.op("Reshape", x, sizes)

    def reshape_like(self, x: Value, like: Value) -> Value:
        """x, which has as many elements as `like`, in the shape of `like`."""
        if 0 in like.shape:
            return self.op("Reshape", x, self.shape(like), allowzero=1)
        return self.reshape(x, self.target_shape(like, x))

    def target_shape(self, like: Value, x: Value | None = None) -> Value:
        """The shape of `like` for a Reshape of x: a constant with one -1 or kept leading axes where that suffices."""
        target: list[int] = []
        for axis, dim in enumerate(like.shape):
            if isinstance(dim, int):
                target.append(dim)
            elif x is not None and dim is not None and axis < x.rank and x.shape[axis] == dim:
                target.append(0)
            else:
                target.append(-1)
        # A literal 0 in a target means "keep", so a size that is 0 cannot be written this way.
        if target.count(-1) <= 1 and 0 not in like.shape:
            return self.ints(target)
        return self.shape(like)

    def expand_like(self, x: Value, like: Value) -> Value:
        """x broadcast to the shape of `like`."""
        if x.shape == like.shape and None not in x.shape:
            return x
        return self.named(self.op("Expand", x, self.shape(like)), like.shape)

    def full_like(self, x: Value, value: float) -> Value:
        """A tensor of the shape and dtype of x, the same number everywhere."""
        filled = self.op("ConstantOfShape", self.shape(x), value=np.asarray([value], x.dtype))
        return self.named(filled, x.shape)

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        return x if list(perm) == list(range(x.rank)) else self.op("Transpose", x, perm=list(perm))

    def swap_last(self, x: Value) -> Value:
        """The matrix transpose, over the last two axes."""
        return self.transpose(x, [*range(x.rank - 2), x.rank - 1, x.rank - 2])

    def squeeze(self, x: Value, axes: Sequence[int]) -> Value:
        return self.op("Squeeze", x, self.ints(axes)) if axes else x

    def unsqueeze(self, x: Value, axes: Sequence[int]) -> Value:
        return self.op("Unsqueeze", x, self.ints(axes)) if axes else x

    def slice(
        self,
        x: Value,
        starts: Sequence[int] | Value,
        ends: Sequence[int] | Value,
        axes: Sequence[int],
        steps: Sequence[int] | None = None,
    ) -> Value:
        """x[start:end:step] along each of the axes; nothing where the whole axis is meant."""
        if steps is None and not isinstance(starts, Value) and not isinstance(ends, Value):
            whole = [s == 0 and e in (_END, x.shape[a]) for s, e, a in zip(starts, ends, axes, strict=True)]
            if all(whole):
                return x
        vectors = [v if isinstance(v, Value) else self.ints(v) for v in (starts, ends, axes)]
        return self.op("Slice", x, *vectors, None if steps is None else self.ints(steps))

    def pad(self, x: Value, before: Sequence[int] | Value, after: Sequence[int] | Value, axes: Sequence[int]) -> Value:
        """x with zeros before and after along each of the axes; negative amounts crop.

        Every axis is named, since ONNX Runtime 1.31 loses the operand `axes` when it moves a Transpose past a Pad.
        """
        if not isinstance(before, Value) and not isinstance(after, Value) and not any((*before, *after)):
            return x
        amounts = self.concat([self._along(v, axes, x.rank) for v in (before, after)], axis=0)
        return self.op("Pad", x, amounts, self.constant(0, x.dtype))

    def _along(self, amounts: Sequence[int] | Value, axes: Sequence[int], rank: int) -> Value:
        """One number for each axis: the given ones along `axes`, zero elsewhere."""
        order = [axis % rank for axis in axes]
        if not isinstance(amounts, Value):
            return self.ints([amounts[order.index(axis)] if axis in order else 0 for axis in range(rank)])
        if order == list(range(rank)):
            return amounts
        at = [order.index(axis) if axis in order else len(order) for axis in range(rank)]
        return self.gather(self.concat([amounts, self.ints([0])], axis=0), self.ints(at), axis=0)

    def gather(self, x: Value, indices: Value, axis: int) -> Value:
        return self.op("Gather", x, indices, axis=axis)

    # -- control flow ------------------------------------------------------------------------------------------------

    def copy(self, node: gs.Node, operands: Sequence[Value | None]) -> tuple[Value, ...]:
        """The same operator on other operands."""
        return self.ops(node.op, *operands, outputs=len(node.outputs), domain=node.domain, **node.attrs)

    def repeat(
        self, times: int, first: Sequence[Value], step: Callable[[Value, list[Value]], list[Value]]
    ) -> list[Value]:
        """A Loop: `step(i, state)` returns the next state, `times` times; i is an int64 scalar.

        Returns: the last state.
        """
        names = [self.model.fresh(f"{self._scope}/Loop/{role}") for role in ("i", "go", *("state" for _ in first))]
        counter = gs.Variable(names[0], np.dtype(np.int64), [])
        go = gs.Variable(names[1], np.dtype(np.bool_), [])
        state = [gs.Variable(n, v.tensor.dtype, v.tensor.shape) for n, v in zip(names[2:], first, strict=True)]
        with self.body() as nodes:
            results = step(self.wrap(counter), [self.wrap(t) for t in state])
            outputs = [self.publish(v, self.model.fresh(f"{v.name}/next")).tensor for v in (self.wrap(go), *results)]
        body = gs.Graph(nodes, [counter, go, *state], outputs, name=f"{self._scope}/body", opset=self.opset)
        last = [gs.Variable(self.model.fresh(f"{self._scope}/Loop"), v.tensor.dtype, v.tensor.shape) for v in results]
        operands = [self.constant(np.int64(times)), self.constant(np.bool_(True)), *first]
        self._nodes.append(gs.Node("Loop", last[0].name, {"body": body}, [v.tensor for v in operands], last))
        return [self.wrap(t) for t in last]

    # -- broadcasting -----------------------------------------------------------------------------------------------

    def unbroadcast(self, d: Value, operand: Value, *, fixed: int = 0) -> Value:
        """d summed over the axes along which `operand` was broadcast, so that it has the operand's shape.

        fixed: how many of the last axes are never broadcast, whatever their sizes.
        Where the size of another is known only at run time, the running graph decides.
        """
        if d.rank > operand.rank:
            d = self.sum(d, range(d.rank - operand.rank), keepdims=False)
        pairs = list(zip(d.shape, operand.shape, strict=False))
        if d.rank < operand.rank or any(have == 1 and want != 1 for have, want in pairs):
            return self.expand_like(d, operand)
        pairs = pairs[: max(operand.rank - fixed, 0)]
        d = self.sum(d, [axis for axis, (have, want) in enumerate(pairs) if want == 1 and have != 1])
        if all(isinstance(want, int) or (have == want and want is not None) for have, want in pairs):
            return d
        stretched = self.equal(self.op("Shape", operand), self.constant(np.int64(1)))
        return self.named(self.sum(d, self.reshape(self.op("NonZero", stretched), [-1])), operand.shape)

    def named(self, x: Value, shape: Sequence[Dim]) -> Value:
        """x, known to have the given shape: sizes that inference could not find are filled in."""
        have = x.tensor.shape
        if not x.is_constant and have != list(shape):
            x.tensor.shape = (
                list(shape)
                if have is None
                else [h if isinstance(h, int) else w for h, w in zip(have, shape, strict=True)]
            )
        return x
