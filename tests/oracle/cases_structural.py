"""Cases of operators that make constants, move elements or index them."""

from __future__ import annotations

import numpy as np

from .cases import Case, X, cases, ints

YES = np.array([[True, False, True], [False, False, True]])
CONSTANT = [
    *cases("c = Constant<value = float[2] {1.5, -2.0}>(); y = Add(x, c)", 9, 13, x=(3, 2)),
    *cases("c = Constant<value_float = 1.5>(); y = Add(x, c)", 12, x=X),
    *cases("c = Constant<value_floats = [1.5, 2.5]>(); y = Add(x, c)", 12, x=(3, 2)),
    *cases("c = Constant<value_ints = [3, -1]>(); y = Reshape(x, c)", 12, x=(3, 2, 2)),
    *cases("y = Constant<value_int = 3>()", 12),
    *cases("y = ConstantOfShape<value = float[1] {0.5}>(s)", 9, s=ints(2, 3)),
    *cases("y = ConstantOfShape<value = int64[1] {5}>(s)", 9, s=ints(2, 3)),
    *cases("y = ConstantOfShape(s)", 9, s=ints(2, 3)),
    *cases("y = Shape(x)", 7, 15, x=X),
    *cases("y = Shape<start = 1, end = -1>(x)", 15, x=X),
    *cases("y = Size(x)", 7, 13, x=X),
    *cases("y = Range(a, b, d)", 11, a=np.int64(2), b=np.int64(11), d=np.int64(3)),
    *cases("y = Range(a, b, d)", 11, a=np.float32(2), b=np.float32(-1), d=np.float32(-0.7)),
    *cases("y = EyeLike<k = 1>(x)", 9, x=(3, 4)),
    *cases("y = NonZero(a)", 9, a=YES),
    # ONNX Runtime 1.32 refuses negative indices before opset 11, which gave them a meaning.
    *cases("y = OneHot(i, d, v)", 9, i=ints(0, 2, 1, 7), d=np.int64(3), v=[0.0, 2.0]),
    *cases("y = OneHot(i, d, v)", 11, i=ints(0, 2, -1, 7), d=np.int64(3), v=[0.0, 2.0]),
    *cases("y = OneHot<axis = 1>(i, d, v)", 11, i=np.array([[0, 2], [1, 1], [2, 0]]), d=np.int64(3), v=[0.5, 2.0]),
    *cases("y = OneHot<axis = 0>(i, d, v)", 11, i=np.array([[0, 2], [1, 1]]), d=np.int64(3), v=[0.0, 1.0]),
    *cases("y = Trilu(x)", 14, x=(2, 4, 5)),
    *cases("y = Trilu<upper = 0>(x, k)", 14, x=(4, 5), k=np.int64(-1)),
]

LAYOUT = [
    *cases("y = Reshape(x, s)", 7, 13, 21, x=X, s=ints(0, -1, 2)),
    *cases("y = Reshape<allowzero = 1>(x, s)", 14, x=(0, 3), s=ints(3, 0)),
    *cases("y = Reshape(x, s)", 13, x=X, s=ints(-1)),
    *cases("y = Reshape<shape = [0, -1, 2]>(x)", 1, x=X),
    *(c for a in (0, 1, 2, 4) for c in cases(f"y = Flatten<axis = {a}>(x)", 9, 13, x=X)),
    *cases("y = Flatten<axis = -1>(x)", 11, x=X),
    *cases("y = Transpose(x)", 7, 13, x=X),
    *cases("y = Transpose<perm = [0, 2, 3, 1]>(x)", 13, x=X),
    *cases("y = Squeeze<axes = [1, -1]>(x)", 11, x=(2, 1, 3, 1)),
    *cases("y = Squeeze<axes = [1, 3]>(x)", 1, x=(2, 1, 3, 1)),
    *cases("y = Squeeze(x)", 9, 13, x=(2, 1, 3, 1)),
    *cases("y = Squeeze(x, a)", 13, x=(2, 1, 3, 1), a=ints(1)),
    *cases("y = Unsqueeze<axes = [3, 0]>(x)", 9, x=(2, 3)),
    *cases("y = Unsqueeze(x, a)", 13, x=(2, 3), a=ints(-1, 1)),
    *cases("y = Concat<axis = 1>(a, b, c)", 9, 13, a=(2, 1), b=(2, 3), c=(2, 2)),
    *cases("y = Concat<axis = -1>(a, b)", 13, a=(2, 1), b=(2, 3)),
    *cases("p, q = Split<axis = 1, split = [1, 2]>(x)", 9, x=X),
    *cases("p, q = Split<axis = 3>(x)", 9, 13, x=X),
    *cases("p, q = Split<axis = 2>(x, s)", 13, x=X, s=ints(4, 1)),
    *cases("p, q, r = Split<axis = 2, num_outputs = 3>(x)", 18, x=X),
    *cases("y = Slice<starts = [1, -3], ends = [9, -1], axes = [1, 2]>(x)", 9, x=X),
    *cases("y = Slice<starts = [1], ends = [2]>(x)", 9, x=X),
    *cases("y = Slice(x, b, e, a, s)", 10, 13, x=X, b=ints(-1, 0), e=ints(-(2**62), 100), a=ints(2, -1), s=ints(-2, 3)),
    *cases("y = Slice(x, b, e, a, s)", 13, x=X, b=ints(100), e=ints(1), a=ints(3), s=ints(-1)),
    *cases("y = Slice(x, b, e)", 13, x=X, b=ints(0, 1), e=ints(1, -1)),
    *cases("y = Expand(x, s)", 8, 13, x=(3, 1), s=ints(2, 1, 4)),
    *cases("y = Expand(x, s)", 13, x=(2, 3, 4), s=ints(3, 1)),
    *cases("y = Tile(x, r)", 7, 13, x=(2, 3), r=ints(2, 3)),
    *cases("y = Pad<pads = [0, 1, 0, 2], value = 1.5>(x)", 9, x=(2, 3)),
    *(
        c
        for mode in ("constant", "reflect", "edge")
        for c in cases(f'y = Pad<mode = "{mode}", pads = [0, 0, 2, 1, 0, 0, 1, 3]>(x)', 9, x=X)
        + cases(f'y = Pad<mode = "{mode}">(x, p)', 11, 18, x=X, p=ints(0, 0, 2, 1, 0, 0, 1, 3))
        + cases(f'y = Pad<mode = "{mode}">(x, p, , a)', 18, x=X, p=ints(1, 2, 0, 1), a=ints(-1, 2))
    ),
    *cases("y = Pad(x, p, v)", 13, x=X, p=ints(0, 0, 2, -1, 0, 0, -1, 3), v=np.float32(0.5)),
    *cases('y = Pad<mode = "wrap">(x, p)', 19, x=X, p=ints(0, 0, 2, 1, 0, 0, 1, 3)),
    *cases("y = DepthToSpace<blocksize = 2>(x)", 9, 13, x=(2, 8, 3, 2)),
    *cases('y = DepthToSpace<blocksize = 2, mode = "CRD">(x)', 11, x=(2, 8, 3, 2)),
    *cases("y = SpaceToDepth<blocksize = 2>(x)", 9, 13, x=(2, 3, 4, 6)),
]

I3 = np.array([[[0, 1, -1], [2, 0, 1]]])
INDEXING = [
    *cases("y = Gather(x, i)", 9, 13, x=X, i=ints(1, -1)),
    *cases("y = Gather<axis = 2>(x, i)", 11, x=X, i=np.array([[0, -1], [3, 2]])),
    *cases("y = Gather<axis = 1>(x, i)", 11, x=X, i=np.int64(2)),
    *cases("y = GatherElements<axis = 1>(x, i)", 11, 13, x=(2, 3, 4), i=I3),
    *cases("y = GatherND(x, i)", 11, x=X, i=np.array([[0, 1], [1, -1]])),
    *cases("y = GatherND(x, i)", 12, x=(2, 3), i=np.array([[0, 1], [1, -1]])),
    *cases("y = GatherND<batch_dims = 1>(x, i)", 12, x=(2, 3, 4), i=np.array([[[0], [2]], [[1], [-1]]])),
    *cases("y = GatherND<batch_dims = 2>(x, i)", 13, x=(2, 3, 4), i=np.array([[[0], [2], [1]], [[1], [-1], [3]]])),
    *cases("y = Scatter<axis = 1>(x, i, u)", 9, x=(2, 3, 4), i=I3, u=(1, 2, 3)),
    *cases("y = ScatterElements<axis = 1>(x, i, u)", 11, 13, x=(2, 3, 4), i=I3, u=(1, 2, 3)),
    *cases('y = ScatterElements<axis = 1, reduction = "none">(x, i, u)', 16, x=(2, 3, 4), i=I3, u=(1, 2, 3)),
    *(
        c
        for how in ("add", "mul", "max", "min")
        for c in cases(
            f'y = ScatterElements<axis = 0, reduction = "{how}">(x, i, u)', 18, x=(3, 3, 4), i=I3, u=(1, 2, 3)
        )
        + cases(f'y = ScatterND<reduction = "{how}">(x, i, u)', 18, x=(3, 4), i=np.array([[0], [2], [0]]), u=(3, 4))
    ),
    *cases("y = ScatterND(x, i, u)", 11, 13, x=(3, 4, 2), i=np.array([[0, 1], [2, -1]]), u=(2, 2)),
    *cases("y = ScatterND(x, i, u)", 16, x=(3, 4), i=np.array([[[0], [2]]]), u=(1, 2, 4)),
]


STRUCTURAL: list[Case] = [*CONSTANT, *LAYOUT, *INDEXING]
