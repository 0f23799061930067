"""Operators that move elements."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.rules.harness import STATIC, Case, against_torch, case, constant, runtime

MAX = 2**63 - 1


def cut(
    at: slice | tuple[slice | int, ...], x: tuple[int, ...], runtime_bounds: bool = False, **bounds: list[int]
) -> Case:
    """x[at] as a Slice, its bounds constants or known only when the graph runs."""
    given = {name: runtime(v) if runtime_bounds else v for name, v in bounds.items()}
    return case("Slice", f"y = Slice(x, {', '.join(bounds)})", lambda x: x[at], x=x, **given)


def turned(at: int | tuple[int, ...], x: tuple[int, ...], **bounds: list[int]) -> Case:
    """A Slice that goes backwards over whole axes."""
    return case("Slice", f"y = Slice(x, {', '.join(bounds)})", lambda x: x.flip(at), x=x, **bounds)


def wrapped(x: Tensor, pads: list[tuple[int, int]]) -> Tensor:
    """Pad by going round, axis by axis."""
    for axis, (before, after) in enumerate(pads):
        x = x.index_select(axis, torch.arange(-before, x.shape[axis] + after) % x.shape[axis])
    return x


def crd(x: Tensor, block: int) -> Tensor:
    return F.pixel_shuffle(x, block)


def dcr(x: Tensor, block: int) -> Tensor:
    n, c, h, w = x.shape
    y = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(n, c // block**2, h * block, w * block)


def to_depth(x: Tensor, block: int) -> Tensor:
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return y.reshape(n, c * block**2, h // block, w // block)


RESHAPED = [
    case("Reshape", "y = Reshape(x, to)", lambda x: x.reshape(6, 4), x=(2, 3, 4), to=[6, 4]),
    case("Reshape", "y = Reshape(x, to)", lambda x: x.reshape(2, 12), x=(2, 3, 4), to=[0, -1]),
    case("Reshape", "y = Reshape(x, to)", lambda x: x.reshape(2, 3, 2, 2), x=(2, 3, 4), to=[0, 0, 2, -1]),
    case("Reshape", "y = Reshape(x, to)", lambda x: x.reshape(24), x=(2, 3, 4), to=[-1]),
    case("Reshape", "y = Reshape(x, to)", lambda x: x.reshape(()), x=(1, 1), to=[]),
    case("Reshape", "y = Reshape<allowzero=1>(x, to)", lambda x: x.reshape(3, 8), x=(2, 3, 4), to=[3, 8]),
    case("Reshape", "s = Shape(x); y = Reshape(x, s)", lambda x: x * 1, x=(2, 3)),
    case("Reshape", "s = Shape<end=1>(x); to = Concat<axis=0>(s, rest); y = Reshape(x, to)",
         lambda x: x.reshape(2, 12), x=(2, 3, 4), rest=[-1]),
    case("Flatten", "y = Flatten(x)", lambda x: x.reshape(2, 12), x=(2, 3, 4)),
    *[
        case("Flatten", f"y = Flatten<axis={axis}>(x)", lambda x, to=to: x.reshape(to), x=(2, 3, 4))
        for axis, to in ((0, (1, 24)), (2, (6, 4)), (3, (24, 1)), (-1, (6, 4)))
    ],
    case("Squeeze", "y = Squeeze(x, axes)", lambda x: x.squeeze(1), x=(2, 1, 3, 1), axes=[1]),
    case("Squeeze", "y = Squeeze(x, axes)", lambda x: x.reshape(2, 3), x=(2, 1, 3, 1), axes=[-1, 1]),
    case("Squeeze", "y = Squeeze(x)", lambda x: x.squeeze(), x=(2, 1, 3, 1), shapes=(STATIC,)),
    case("Unsqueeze", "y = Unsqueeze(x, axes)", lambda x: x[:, None], x=(2, 3), axes=[1]),
    case("Unsqueeze", "y = Unsqueeze(x, axes)", lambda x: x[None, ..., None], x=(2, 3), axes=[-1, 0]),
    case("Transpose", "y = Transpose(x)", lambda x: x.permute(2, 1, 0), x=(2, 3, 4)),
    case("Transpose", "y = Transpose<perm=[2,0,1]>(x)", lambda x: x.permute(2, 0, 1), x=(2, 3, 4)),
    case("Transpose", "y = Transpose<perm=[0,3,1,2]>(x)", lambda x: x.permute(0, 3, 1, 2), x=(2, 3, 4, 5)),
    case("Expand", "y = Expand(x, to)", lambda x: x.expand(2, 3, 4), x=(3, 1), to=[2, 3, 4]),
    case("Expand", "y = Expand(x, to)", lambda x: x.expand(2, 3, 4), x=(2, 3, 4), to=[1, 4]),
    case("Expand", "y = Expand(x, to)", lambda x: x.expand(2, 3), x=(), to=[2, 3]),
    case("Expand", "y = Expand(x, to)", lambda x: x.expand(2, 3, 4), x=(1, 3, 1), to=runtime([2, 1, 4])),
]  # fmt: skip

JOINED = [
    case("Concat", "y = Concat<axis=1>(a, b, c)", lambda a, b, c: torch.cat((a, b, c), 1),
         a=(2, 3), b=(2, 1), c=(2, 4)),
    case("Concat", "y = Concat<axis=-2>(a, b)", lambda a, b: torch.cat((a, b), -2), a=(2, 3, 4), b=(2, 2, 4)),
    case("Concat", "y = Concat<axis=0>(a)", lambda a: a * 1, a=(2, 3)),
    case("Concat", "y = Concat<axis=1>(a, b)", lambda a, b: torch.cat((a, b), 1), a=(2, 3), b=constant((2, 4))),
    case("Concat", "y = Concat<axis=1>(a, a)", lambda a: torch.cat((a, a), 1), a=(2, 3)),
    case("Split", "a, b = Split<num_outputs=2, axis=1>(x); y = Mul(a, b)", lambda x: x[:, :3] * x[:, 3:], x=(2, 6)),
    case("Split", "a, b = Split<axis=-1>(x, sizes); c = Neg(b); y = Concat<axis=-1>(c, a)",
         lambda x: torch.cat((-x[..., 2:], x[..., :2]), -1), x=(2, 3, 5), sizes=[2, 3]),
    case("Split", "a, y, c = Split<num_outputs=3, axis=1>(x)", lambda x: x[:, 2:4], x=(2, 5)),
    case("Split", "y, b = Split(x, sizes)", lambda x: x[:1], x=(3, 4), sizes=[1, 2]),
    case("Split", "a, b, c = Split<num_outputs=3>(x); y = Sub(a, c)", lambda x: x[:1] - x[2:], x=(3, 4)),
]  # fmt: skip

CUT = [
    cut((slice(None), slice(1, 3)), (2, 5), starts=[1], ends=[3], axes=[1]),
    cut((slice(1, 2), slice(0, 3)), (2, 5), starts=[1, 0], ends=[2, 3]),
    cut((slice(None), slice(-3, -1)), (2, 5), starts=[-3], ends=[-1], axes=[-1]),
    cut((slice(None), slice(1, None)), (2, 5), starts=[1], ends=[MAX], axes=[1]),
    cut((slice(1, 3), slice(None), slice(2, 9)), (4, 2, 5), starts=[2, 1], ends=[9, 3], axes=[2, 0]),
    cut((slice(None), slice(0, 7, 3)), (2, 8), starts=[0], ends=[7], axes=[1], steps=[3]),
    cut((slice(0, None, 2), slice(1, None, 2)), (5, 6), starts=[0, 1], ends=[MAX, MAX], axes=[0, 1], steps=[2, 2]),
    cut((slice(None), slice(1, 3)), (2, 5), True, starts=[1], ends=[3], axes=[1]),
    cut((slice(None), slice(1, 6, 2)), (2, 7), True, starts=[1], ends=[6], axes=[1], steps=[2]),
    turned(1, (2, 5), starts=[-1], ends=[-MAX], axes=[1], steps=[-1]),
    turned((0, 2), (2, 3, 4), starts=[-1, -1], ends=[-9, -9], axes=[0, 2], steps=[-1, -1]),
    case("Slice", "y = Slice(x, starts, ends, axes, steps)", lambda x: x[:, [6, 4, 2]], x=(2, 8), starts=[6], ends=[1],
         axes=[1], steps=[-2]),
    case("Pad", "y = Pad(x, pads)", lambda x: F.pad(x, (2, 1, 1, 0)), x=(3, 4), pads=[1, 2, 0, 1]),
    case("Pad", "y = Pad(x, pads, value)", lambda x: F.pad(x, (2, 1), value=7),
         x=(3, 4), pads=[0, 2, 0, 1], value=constant(7)),
    case("Pad", "y = Pad(x, pads)", lambda x: x[1:, :-2], x=(3, 4), pads=[-1, 0, 0, -2]),
    case("Pad", "y = Pad(x, pads)", lambda x: F.pad(x[:, 1:], (0, 2)), x=(3, 4), pads=[0, -1, 0, 2]),
    case("Pad", 'y = Pad(x, pads, "", axes)', lambda x: F.pad(x, (1, 3)), x=(2, 3, 4), pads=[1, 3], axes=[-1]),
    case("Pad", 'y = Pad(x, pads, "", axes)', lambda x: F.pad(x, (0, 1, 2, 0)),
         x=(2, 3, 4), pads=[0, 2, 1, 0], axes=[2, 1]),
    case("Pad", "y = Pad(x, pads)", lambda x: F.pad(x, (2, 1, 1, 0)), x=(3, 4), pads=runtime([1, 2, 0, 1])),
    case("Pad", 'y = Pad(x, pads, "", axes)', lambda x: F.pad(x, (2, 1)), x=(3, 4), pads=runtime([2, 1]), axes=[1]),
    case("Pad", 'y = Pad<mode="reflect">(x, pads)',
         lambda x: F.pad(x, (2, 1, 1, 2), mode="reflect"), x=(2, 3, 4, 5), pads=[0, 0, 1, 2, 0, 0, 2, 1]),
    case("Pad", 'y = Pad<mode="reflect">(x, pads, value, axes)', lambda x: F.pad(x, (3, 0), mode="reflect"),
         x=(2, 3, 4), pads=[3, 0], value=constant(0), axes=[2]),
    case("Pad", 'y = Pad<mode="edge">(x, pads)',
         lambda x: F.pad(x, (2, 1, 1, 2), mode="replicate"), x=(2, 3, 4, 5), pads=[0, 0, 1, 2, 0, 0, 2, 1]),
    case("Pad", 'y = Pad<mode="edge">(x, pads)',
         lambda x: F.pad(x, (2, 1), mode="replicate"), x=(2, 3, 4), pads=runtime([0, 0, 2, 0, 0, 1])),
    case("Pad", 'y = Pad<mode="wrap">(x, pads)', lambda x: wrapped(x, [(1, 0), (2, 1)]), x=(3, 4), pads=[1, 2, 0, 1]),
    case("Pad", 'y = Pad<mode="wrap">(x, pads)', lambda x: wrapped(x, [(0, 0), (0, 4)]), x=(3, 4), pads=[0, 0, 0, 4]),
]  # fmt: skip

REPEATED = [
    case("Tile", "y = Tile(x, repeats)", lambda x: x.repeat(2, 3), x=(2, 3), repeats=[2, 3]),
    case("Tile", "y = Tile(x, repeats)", lambda x: x.repeat(1, 4), x=(2, 3), repeats=runtime([1, 4])),
    case("DepthToSpace", "y = DepthToSpace<blocksize=2>(x)", lambda x: dcr(x, 2), x=(2, 8, 3, 2)),
    case("DepthToSpace", 'y = DepthToSpace<blocksize=3, mode="DCR">(x)', lambda x: dcr(x, 3), x=(1, 18, 2, 2)),
    case("DepthToSpace", 'y = DepthToSpace<blocksize=2, mode="CRD">(x)', lambda x: crd(x, 2), x=(2, 8, 3, 2)),
    case("SpaceToDepth", "y = SpaceToDepth<blocksize=2>(x)", lambda x: to_depth(x, 2), x=(2, 3, 4, 6)),
    case("Trilu", "y = Trilu(x)", torch.triu, x=(2, 3, 4)),
    case("Trilu", "y = Trilu<upper=0>(x)", torch.tril, x=(4, 3)),
    case("Trilu", "y = Trilu<upper=1>(x, k)", lambda x: x.triu(-1), x=(2, 4, 4), k=-1),
    case("Trilu", "y = Trilu<upper=0>(x, k)", lambda x: x.tril(1), x=(2, 4, 4), k=runtime(1)),
]  # fmt: skip

CASES = [*RESHAPED, *JOINED, *CUT, *REPEATED]

test_derivative = against_torch(CASES)
