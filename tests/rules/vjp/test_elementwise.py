"""Arithmetic: every operator, and every way of broadcasting."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.rules.harness import Torch, against_torch, between, bits, case, constant, positive, real, runtime, ties
from tests.running import explained, net


def extreme(pick: str, *operands: Tensor) -> Tensor:
    """torch's amax and amin share a tie among all that hold it."""
    zeros = sum(x.detach() * 0 for x in operands)
    stacked = torch.stack([x + zeros for x in operands])
    return stacked.amax(0) if pick == "max" else stacked.amin(0)


OF_TWO: dict[str, Torch] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "Pow": torch.pow,
    "Max": partial(extreme, "max"),
    "Min": partial(extreme, "min"),
    "Sum": torch.add,
    "Mean": lambda a, b: (a + b) / 2,
}

CASES = [
    case("Identity", "y = Identity(x)", lambda x: x * 1, x=(2, 3)),
    case("Dropout", "y = Dropout(x)", lambda x: x * 1, x=(2, 3)),
    case("Dropout", "y, mask = Dropout(x, ratio, training)", lambda x: x * 1,
         x=(2, 3), ratio=constant(0.5), training=constant(False, bool)),
    case("Cast", "y = Cast<to=11>(x)", lambda x: x * 1, x=(2, 3)),
    case("Cast", "z = Mul(x, x); c = Cast<to=11>(z); y = Exp(c)", lambda x: (x * x).exp(), x=(2, 3)),
    case("CastLike", "y = CastLike(x, like)", lambda x: x * 1, x=(2, 3), like=constant(1, float)),
    case("Neg", "y = Neg(x)", torch.neg, x=(2, 3)),
    case("Abs", "y = Abs(x)", lambda x: x.abs(), x=real([[-2, 0, 3], [0, 1, -1]])),
    case("Exp", "y = Exp(x)", lambda x: x.exp(), x=(2, 3)),
    case("Log", "y = Log(x)", lambda x: x.log(), x=positive(2, 3)),
    case("Sqrt", "y = Sqrt(x)", lambda x: x.sqrt(), x=positive(2, 3)),
    case("Reciprocal", "y = Reciprocal(x)", lambda x: 1 / x, x=positive(2, 3)),
    case("Sin", "y = Sin(x)", lambda x: x.sin(), x=(2, 3)),
    case("Cos", "y = Cos(x)", lambda x: x.cos(), x=(2, 3)),
    case("Tan", "y = Tan(x)", lambda x: x.tan(), x=between(-1, 1, 2, 3)),
    case("Asin", "y = Asin(x)", lambda x: x.asin(), x=between(-0.9, 0.9, 2, 3)),
    case("Acos", "y = Acos(x)", lambda x: x.acos(), x=between(-0.9, 0.9, 2, 3)),
    case("Atan", "y = Atan(x)", lambda x: x.atan(), x=(2, 3)),
    case("Sinh", "y = Sinh(x)", lambda x: x.sinh(), x=(2, 3)),
    case("Cosh", "y = Cosh(x)", lambda x: x.cosh(), x=(2, 3)),
    case("Asinh", "y = Asinh(x)", lambda x: x.asinh(), x=(2, 3)),
    case("Acosh", "y = Acosh(x)", lambda x: x.acosh(), x=between(1.5, 3, 2, 3)),
    case("Atanh", "y = Atanh(x)", lambda x: x.atanh(), x=between(-0.9, 0.9, 2, 3)),
    *[
        case(op, f"y = {op}(a, b)", function, a=positive(*a), b=positive(*b))
        for op, function in OF_TWO.items()
        for a, b in (((2, 3, 4), (4,)), ((3, 1), (2, 3, 4)), ((2, 3, 4), ()), ((2, 1, 4), (3, 1)), ((2, 3), (2, 3)))
    ],
    case("Add", "y = Add(x, x)", lambda x: x + x, x=(2, 3)),
    case("Mul", "y = Mul(x, x)", lambda x: x * x, x=(2, 3)),
    case("Pow", "y = Pow(x, x)", lambda x: x**x, x=positive(2, 3)),
    case("Pow", "y = Pow(x, p)", lambda x: x**2, x=real([[-2, 0, 3]]), p=constant(2)),
    case("Pow", "y = Pow(x, p)", lambda x: x**3, x=real([[-2, 0, 3]]), p=[3]),
    case("Pow", "y = Pow(x, p)", lambda x: x**0.5, x=positive(2, 3), p=constant(0.5)),
    case("Pow", "y = Pow(x, p)", lambda x, p: x**p, x=real([[-2, 0, 3]]), p=constant([0, 1, 2])),
    case("Pow", "y = Pow(x, p)", lambda x, p: x**p, x=real([[-2, 0, 3]]), p=runtime([2, 0, 1])),
    case("Pow", "y = Pow(x, p)", lambda p: 2**p, x=constant(2), p=(2, 3)),
    case("Pow", "y = Pow(x, p)", torch.pow, x=real([[0, 2, 3]]), p=real([[2, 0, 1]])),
    case("Sum", "y = Sum(a)", lambda a: a * 1, a=(2, 3)),
    case("Sum", "y = Sum(a, b, c)", lambda a, b, c: a + b + c, a=(2, 3, 4), b=(3, 1), c=()),
    case("Mean", "y = Mean(a)", lambda a: a * 1, a=(2, 3)),
    case("Mean", "y = Mean(a, b, c)", lambda a, b, c: (a + b + c) / 3, a=(3, 1), b=(2, 3, 4), c=(4,)),
    case("Max", "y = Max(a)", lambda a: a * 1, a=(2, 3)),
    case("Max", "y = Max(a, b)", torch.maximum, a=ties(2, 3, 4), b=ties(2, 3, 4)),
    case("Max", "y = Max(a, b, c)", lambda a, b, c: extreme("max", a, b, c), a=ties(2, 3, 4), b=ties(4), c=ties(3, 1)),
    case("Max", "y = Max(a, zero)", lambda a: a.relu(), a=(2, 3, 4), zero=constant(0)),
    case("Min", "y = Min(a)", lambda a: a * 1, a=(2, 3)),
    case("Min", "y = Min(a, b)", torch.minimum, a=ties(2, 3, 4), b=ties(2, 3, 4)),
    case("Min", "y = Min(a, b, c)", lambda a, b, c: extreme("min", a, b, c), a=ties(2, 3, 4), b=ties(4), c=ties(3, 1)),
    case("Clip", "y = Clip(x)", lambda x: x * 1, x=(2, 3)),
    case("Clip", "y = Clip(x, low)", lambda x: x.clamp(min=0), x=(2, 3), low=constant(0)),
    case("Clip", 'y = Clip(x, "", high)', lambda x: x.clamp(max=0.5), x=(2, 3), high=constant(0.5)),
    case("Clip", "y = Clip(x, low, high)", torch.nn.functional.hardtanh, x=ties(4, 4),
         low=constant(-1), high=constant(1)),
    case("Clip", "y = Clip(x, low, high)", lambda x: x.clamp(0, 6), x=between(-9, 9, 4, 5),
         low=constant(0), high=constant(6)),
    case("Where", "y = Where(c, a, b)", torch.where, c=bits(2, 3, 4), a=(2, 3, 4), b=(2, 3, 4)),
    case("Where", "y = Where(c, a, b)", torch.where, c=runtime([[1], [0], [1]], bool), a=(4,), b=(2, 1, 4)),
    case("Where", "y = Where(c, a, b)", torch.where, c=bits(2, 3, 4), a=(), b=(3, 1)),
    case("Where", "y = Where(c, a, b)", lambda c, a: torch.where(c, a, -1.0),
         c=[True, False, True], a=(2, 3), b=constant(-1)),
    case("Mod", "y = Mod<fmod=1>(x, m)", lambda x: torch.fmod(x, 0.75), x=(2, 3), m=constant(0.75)),
    case("Mod", "y = Mod<fmod=1>(x, m)", lambda x, m: torch.fmod(x, m), x=(3, 1), m=constant([0.5, 0.75])),
]  # fmt: skip

test_derivative = against_torch(CASES)

ROOTS: dict[str, Callable[[Tensor], Tensor]] = {
    "Sqrt(r)": torch.sqrt,
    "Pow(r, half)": lambda r: r**0.5,
    "Pow(r, powers)": lambda r: r ** torch.tensor([0.25, 0.5, 1, 2]),
    "Asin(less)": lambda r: torch.asin(1 - r),
    "Acos(less)": lambda r: torch.acos(1 - r),
    "Acosh(more)": lambda r: torch.acosh(1 + r),
}


@pytest.mark.parametrize("runtime", ["cpu", "cuda", "portable"])
@pytest.mark.parametrize("root", ROOTS)
def test_nothing_passes_a_root_at_zero(root: str, runtime: str) -> None:
    """A ReLU whose slope is zero stands before a slope that is infinite: torch selects, a product gives no number."""
    model = net(f"""g (float[N,4] x) => (float[N,4] y)
        <float one = {{1}}, float half = {{0.5}}, float[4] powers = {{0.25, 0.5, 1, 2}}> {{
        r = Relu(x) less = Sub(one, r) more = Add(one, r) y = {root} }}""")
    x = torch.tensor([[-0.5, 0.25, -0.75, 0.125], [0.5, -0.25, 0.75, -1.0]], requires_grad=True)
    expected = [torch.autograd.grad(ROOTS[root](x.relu())[:, k].sum(), x)[0] for k in range(4)]
    for k, gradient in enumerate(expected):
        found = explained(model, x.detach().numpy(), target=k, runtime=runtime)["attribution"]
        np.testing.assert_allclose(found, gradient.numpy(), rtol=1e-5, atol=1e-7)


def test_nor_does_it_through_a_sum_of_squares() -> None:
    model = net("g (float[N,4] x) => (float[N,1] y) { s = ReduceSumSquare<axes = [1]>(x) y = Sqrt(s) }", 17)
    x = np.array([[0, 0, 0, 0], [3, 0, -4, 0]], np.float32)
    np.testing.assert_allclose(explained(model, x)["attribution"], [[0, 0, 0, 0], [0.6, 0, -0.8, 0]], rtol=1e-6)
