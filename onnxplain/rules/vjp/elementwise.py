"""Derivatives of arithmetic. Operands may have been broadcast; the walk sums that back."""

from __future__ import annotations

from functools import reduce
from operator import and_

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.rules.table import ALL, vjp


@vjp("Identity")
def identity(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy,)


@vjp("Dropout")
def dropout(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """Nothing is dropped at inference."""
    if s.optional(2) is not None and s.numbers(g, 2).any():
        raise s.refused("in training mode, where it is random")
    return (dy,)


@vjp("Cast", "CastLike")
def cast(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (g.cast(dy, s[0]),)


@vjp("Neg")
def neg(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (-dy,)


@vjp("Abs")
def absolute(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * g.sign(s[0]),)


@vjp("Exp")
def exp(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * s.y,)


@vjp("Log")
def log(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy / s[0],)


@vjp("Sqrt")
def sqrt(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (over_root(g, dy * 0.5, s.y),)


@vjp("Reciprocal")
def reciprocal(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (-dy * s.y * s.y,)


@vjp("Sin")
def sin(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * g.op("Cos", s[0]),)


@vjp("Cos")
def cos(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (-dy * g.op("Sin", s[0]),)


@vjp("Tan")
def tan(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * (1 + s.y * s.y),)


@vjp("Asin")
def asin(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (over_root(g, dy, g.sqrt(1 - s[0] * s[0])),)


@vjp("Acos")
def acos(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (over_root(g, -dy, g.sqrt(1 - s[0] * s[0])),)


@vjp("Atan")
def atan(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy / (1 + s[0] * s[0]),)


@vjp("Sinh")
def sinh(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * g.op("Cosh", s[0]),)


@vjp("Cosh")
def cosh(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * g.op("Sinh", s[0]),)


@vjp("Asinh")
def asinh(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy / g.sqrt(s[0] * s[0] + 1),)


@vjp("Acosh")
def acosh(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (over_root(g, dy, g.sqrt(s[0] * s[0] - 1)),)


@vjp("Atanh")
def atanh(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy / (1 - s[0] * s[0]),)


@vjp("Add", wrt=(0, 1))
def add(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return dy, dy


@vjp("Sub", wrt=(0, 1))
def sub(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return dy, -dy


@vjp("Mul", wrt=(0, 1))
def mul(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return dy * s[1], dy * s[0]


@vjp("Div", wrt=(0, 1))
def div(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    d = dy / s[1]
    return d, -d * s.y


@vjp("Pow", wrt=(0, 1))
def power(g: Builder, s: Site, dy: Value) -> tuple[Value | None, ...]:
    """p x^(p - 1), which is 0 for p = 0 whatever x is; y log x where the base is positive, as in torch.

    A root's infinite slope at zero is taken as zero, as in over_root.
    """
    x, p = s[0], g.cast(s[1], s[0])
    exponent = g.where(g.equal(p, 0), 1, p) - 1
    if p.is_constant and (s.numbers(g, 1) >= 1).all():
        dx = dy * p * x**exponent
    else:
        infinite = g.equal(x, 0) & (exponent < 0)
        dx = g.where(infinite, 0, dy) * p * g.where(infinite, 1, x) ** exponent
    if p.is_constant:
        return dx, None
    positive = x > 0
    return dx, dy * g.where(positive, s.y * g.log(g.where(positive, x, 1)), 0)


@vjp("Sum", wrt=ALL)
def sum_(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy,) * len(s.x)


@vjp("Mean", wrt=ALL)
def mean(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy * (1 / len(s.x)),) * len(s.x)


@vjp("Max", "Min", wrt=ALL)
def extreme(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """To the operand that is the extreme; shared equally where several are, as in torch."""
    if len(s.operands) == 1:
        return (dy,)
    y = s.rerun(g)
    winners = [g.mask(g.equal(x, y), dy) for x in s.operands]
    share = dy / g.total(winners)
    return tuple(share * w for w in winners)


@vjp("Clip")
def clip(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """Nothing passes at the bounds and beyond, as in torch's ReLU6 and Hardtanh (torch.clamp lets its bounds pass).

    Taken from the output, so that runtimes still fuse the Clip into the layer before it.
    """
    low, high = s.optional(1), s.optional(2)
    inside = [s.y > low] if low is not None else []
    inside += [s.y < high] if high is not None else []
    if not inside:
        return (dy,)
    return (dy * g.mask(reduce(and_, inside), dy),)


@vjp("Where", wrt=(1, 2))
def where(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return g.where(s[0], dy, 0), g.where(s[0], 0, dy)


@vjp("Mod")
def mod(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (dy,)


def over_root(g: Builder, dy: Value, root: Value) -> Value:
    """dy / root, and zero where the root is zero.

    The slope is infinite there. What is in front of a root is often a ReLU or a sum of squares, whose slope is zero
    where the root's is infinite, and the product would be no number.
    """
    zero = g.equal(root, 0)
    return g.where(zero, 0, dy) / g.where(zero, 1, root)


def signed_power(g: Builder, x: Value, p: float) -> Value:
    """sign(x) |x|^p, the derivative of |x|^(p+1) / (p + 1)."""
    if p == 1:
        return x
    return g.sign(x) if p == 0 else g.sign(x) * abs(x) ** p
