"""Lookups: what arrives is added where it was read."""

import numpy as np
import torch
from torch import Tensor

from tests.rules.harness import against_torch, case, constant, runtime


def taken(x: Tensor, indices: Tensor | list[list[int]], axis: int) -> Tensor:
    """ONNX's Gather: indices of any shape along one axis."""
    at = torch.as_tensor(indices) % x.shape[axis]
    axis %= x.dim()
    rows = torch.index_select(x, axis, at.reshape(-1))
    return rows.reshape(*x.shape[:axis], *at.shape, *x.shape[axis + 1 :])


def indices_of(*shape: int, below: int) -> list[int]:
    """Whole numbers, some negative, many of them twice."""
    rng = np.random.default_rng(3)
    return (rng.integers(0, below, shape) - below * rng.integers(0, 2, shape)).tolist()  # type: ignore[no-any-return]


CASES = [
    case("Gather", "y = Gather(x, at)", lambda x: x[1], x=(3, 4), at=1),
    case("Gather", "y = Gather<axis=1>(x, at)", lambda x: x[:, -2], x=(3, 4, 2), at=-2),
    case("Gather", "y = Gather<axis=-1>(x, at)", lambda x: x[..., 0], x=(3, 4, 2), at=0),
    case("Gather", "y = Gather<axis=1>(x, at)", lambda x: x[:, 2], x=(3, 4, 2), at=runtime(2)),
    case("Gather", "y = Gather<axis=1>(x, at)", lambda x: x[:, 2], x=(3, 4), at=runtime(-2, np.int32)),
    case("Gather", "y = Gather(x, at)", lambda x: x[[2, 0, 2]], x=(3, 4), at=[2, 0, 2]),
    case("Gather", "y = Gather<axis=1>(x, at)", lambda x: x[:, [3, -1, 0]], x=(3, 4, 2), at=[3, -1, 0]),
    case("Gather", "y = Gather<axis=2>(x, at)", lambda x: taken(x, [[0, 1], [-1, 1]], 2),
         x=(2, 3, 4), at=[[0, 1], [-1, 1]]),
    case("Gather", "y = Gather<axis=1>(x, at)", lambda x: taken(x, [[0], [2]], 1), x=(2, 3, 4), at=runtime([[0], [2]])),
    case("Gather", "y = Gather<axis=0>(x, at)", lambda x: taken(x, [[0, 2, 2]], 0), x=(3,),
         at=constant([[0, 2, 2]], np.int32)),
    case("GatherElements", "y = GatherElements(x, at)", lambda x, at: x.gather(0, at % 3),
         x=(3, 4), at=indices_of(2, 4, below=3)),
    case("GatherElements", "y = GatherElements<axis=-1>(x, at)", lambda x, at: x.gather(-1, at % 4),
         x=(3, 4), at=runtime(indices_of(3, 6, below=4))),
    case("GatherElements", "y = GatherElements<axis=1>(x, at)", lambda x, at: x.gather(1, at.long()),
         x=(2, 3), at=runtime([[0, 0], [2, 1]], np.int32)),
    case("GatherND", "y = GatherND(x, at)", lambda x: x[[0, 1, 1], [2, 0, 0]],
         x=(2, 3, 4), at=[[0, 2], [1, 0], [1, 0]]),
    case("GatherND", "y = GatherND(x, at)", lambda x: x[[1, -1]], x=(3, 4), at=[[1], [-1]]),
    case("GatherND", "y = GatherND<batch_dims=1>(x, at)", lambda x: x[[0, 1], [2, 0]], x=(2, 3, 4), at=[[2], [0]]),
    case("GatherND", "y = GatherND<batch_dims=1>(x, at)",
         lambda x: torch.stack((x[0, [2, 2], [0, 1]], x[1, [0, -1], [3, 3]])), x=(2, 3, 4),
         at=runtime([[[2, 0], [2, 1]], [[0, 3], [-1, 3]]])),
    case("GatherND", "y = GatherND<batch_dims=2>(x, at)",
         lambda x: x.gather(2, torch.tensor([[[1], [0], [3]], [[2], [2], [0]]]))[..., 0], x=(2, 3, 4),
         at=[[[1], [0], [3]], [[2], [2], [0]]]),
    case("ScatterElements", "y = ScatterElements<axis=1>(x, at, u)", lambda x, at, u: x.scatter(1, at, u),
         x=(2, 4), at=[[3, 0], [1, 2]], u=(2, 2)),
    case("ScatterElements", 'y = ScatterElements<axis=-1, reduction="add">(x, at, u)',
         lambda x, at, u: x.scatter_add(1, at, u), x=(2, 4), at=[[3, 3], [1, 2]], u=(2, 2)),
    case("ScatterND", "y = ScatterND(x, at, u)", lambda x, u: x.index_put((torch.tensor([2, 0]),), u),
         x=(3, 4), at=[[2], [0]], u=(2, 4)),
    case("ScatterND", 'y = ScatterND<reduction="add">(x, at, u)',
         lambda x, u: x.index_put((torch.tensor([2, 2]), torch.tensor([0, 0])), u, accumulate=True),
         x=(3, 4), at=runtime([[2, 0], [2, 0]]), u=(2,)),
    case("TopK", "y, at = TopK(x, k)", lambda x: x.topk(2).values, x=(3, 5), k=[2]),
    case("TopK", "y, at = TopK<axis=1>(x, k)", lambda x: x.topk(2, 1).values, x=(3, 5, 2), k=[2]),
    case("TopK", "y, at = TopK<axis=0, largest=0>(x, k)", lambda x: x.topk(2, 0, largest=False).values,
         x=(4, 3), k=[2]),
    case("TopK", "y, at = TopK(x, k)", lambda x: x.topk(3).values, x=(3, 5), k=runtime([3])),
]  # fmt: skip

test_derivative = against_torch(CASES)
