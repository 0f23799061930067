"""Reductions, over every way of naming axes."""

import torch
from torch import Tensor

from tests.rules.harness import against_torch, case, positive, real, runtime, ties

FUNCTIONS = {
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceProd": lambda x, axes, keep: x.log().sum(axes, keepdim=keep).exp(),
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: (x * x).sum(axes, keepdim=keep).sqrt(),
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keepdim=keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
}


def exclusive(x: Tensor, axis: int) -> Tensor:
    """The sum of what comes before each element."""
    return x.cumsum(axis) - x


CASES = [
    *[
        line
        for op, f in FUNCTIONS.items()
        for line in (
            case(op, f"y = {op}(x, axes)", lambda x, f=f: f(x, (1,), True), x=positive(2, 3, 4), axes=[1]),
            case(op, f"y = {op}<keepdims=0>(x, axes)", lambda x, f=f: f(x, (1, 2), False),
                 x=positive(2, 3, 4), axes=[-1, -2]),
            case(op, f"y = {op}<keepdims=0>(x, axes)", lambda x, f=f: f(x, (0, 2), False),
                 x=positive(2, 3, 4), axes=[0, 2]),
            case(op, f"y = {op}<keepdims=2>(x, axes)", lambda x, f=f: f(x, (1,), False), x=positive(2, 3), axes=[1]),
            case(op, f"y = {op}<keepdims=0>(x)", lambda x, f=f: f(x, (0, 1), False), x=positive(2, 3)),
            case(op, f"y = {op}(x)", lambda x, f=f: f(x, (0, 1), True), x=positive(2, 3)),
            case(op, f"y = {op}(x, axes)", lambda x, f=f: f(x, (0, 1), True), x=positive(2, 3), axes=[]),
            case(op, f"y = {op}<noop_with_empty_axes=1>(x, axes)", lambda x, f=f: f(x[..., None], (2,), False),
                 x=positive(2, 3), axes=[]),
        )
    ],
    case("ReduceMax", "y = ReduceMax(x, axes)", lambda x: x.amax(1, keepdim=True), x=ties(2, 5, 4), axes=[1]),
    case("ReduceMin", "y = ReduceMin<keepdims=0>(x, axes)", lambda x: x.amin((0, 2)), x=ties(2, 5, 4), axes=[0, 2]),
    case("ReduceL1", "y = ReduceL1(x, axes)", lambda x: x.abs().sum(1, keepdim=True), x=ties(2, 5), axes=[1]),
    case("ReduceL2", "y = ReduceL2(x, axes)", lambda x: torch.linalg.norm(x, dim=1, keepdim=True),
         x=real([[0, 0], [3, -4]]), axes=[1]),
    case("ReduceProd", "y = ReduceProd(x, axes)", lambda x: x.prod(1, keepdim=True), x=(2, 4), axes=[1]),
    case("ReduceProd", "y = ReduceProd(x, axes)", lambda x: x.prod(1, keepdim=True),
         x=real([[2, 0, -3], [0, 5, 0], [1, -2, 4], [0, 0, 0]]), axes=[1]),
    case("ReduceProd", "y = ReduceProd<keepdims=0>(x)", lambda x: x.prod(), x=real([[2, 0], [-3, 5]])),
    case("ReduceLogSumExp", "y = ReduceLogSumExp(x, axes)", lambda x: x.logsumexp(1, keepdim=True),
         x=real([[90, 91, 89], [-90, -91, -92]]), axes=[1]),
    case("CumSum", "y = CumSum(x, axis)", lambda x: x.cumsum(1), x=(2, 3, 4), axis=1),
    case("CumSum", "y = CumSum(x, axis)", lambda x: x.cumsum(-1), x=(2, 3, 4), axis=runtime(-1)),
    case("CumSum", "y = CumSum<exclusive=1>(x, axis)", lambda x: exclusive(x, 1), x=(2, 3, 4), axis=1),
    case("CumSum", "y = CumSum<reverse=1>(x, axis)", lambda x: x.flip(0).cumsum(0).flip(0), x=(2, 3, 4), axis=0),
    case("CumSum", "y = CumSum<exclusive=1, reverse=1>(x, axis)", lambda x: exclusive(x.flip(2), 2).flip(2),
         x=(2, 3, 4), axis=2),
]  # fmt: skip

test_derivative = against_torch(CASES)
