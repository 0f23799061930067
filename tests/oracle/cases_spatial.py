"""Cases of operators that know of channels and positions."""

from __future__ import annotations

import numpy as np

from .cases import TIED, Case, X, cases, ints, positive

IMAGE = (2, 4, 9, 8)
W = (6, 4, 3, 3)
LINEAR = [
    *cases("y = Conv(x, w)", 7, 11, 22, x=IMAGE, w=W),
    *cases("y = Conv<strides = [2, 1], pads = [1, 0, 2, 1]>(x, w, b)", 11, x=IMAGE, w=W, b=(6,)),
    *cases("y = Conv<pads = [1, 1, 1, 1], dilations = [2, 1]>(x, w, b)", 11, x=IMAGE, w=W, b=(6,)),
    *cases("y = Conv<group = 2, pads = [1, 1, 1, 1]>(x, w)", 11, x=IMAGE, w=(6, 2, 3, 3)),
    *cases("y = Conv<group = 4, strides = [2, 2]>(x, w, b)", 11, x=IMAGE, w=(4, 1, 3, 3), b=(4,)),
    *cases('y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w)', 7, 11, x=IMAGE, w=W),
    *cases('y = Conv<auto_pad = "SAME_LOWER", strides = [2, 3]>(x, w)', 7, 11, x=IMAGE, w=(6, 4, 2, 4)),
    *cases('y = Conv<auto_pad = "VALID", strides = [2, 2]>(x, w)', 11, x=IMAGE, w=W),
    *cases("y = Conv<pads = [1, 2], strides = [2]>(x, w, b)", 11, x=(2, 4, 9), w=(6, 4, 3), b=(6,)),
    *cases("y = Conv<pads = [1, 0, 1, 1, 2, 1]>(x, w, b)", 11, x=(2, 2, 5, 6, 4), w=(3, 2, 3, 2, 3), b=(3,)),
    *cases("y = ConvTranspose(x, w)", 7, 11, x=IMAGE, w=(4, 3, 3, 3)),
    *cases("y = ConvTranspose<strides = [2, 3], pads = [1, 0, 0, 2]>(x, w, b)", 11, x=IMAGE, w=(4, 3, 3, 4), b=(3,)),
    *cases(
        "y = ConvTranspose<strides = [2, 2], output_padding = [1, 1], pads = [1, 1, 0, 0]>(x, w, b)",
        11,
        x=IMAGE,
        w=(4, 3, 3, 3),
        b=(3,),
    ),
    *cases("y = ConvTranspose<group = 2, dilations = [2, 1], strides = [2, 2]>(x, w)", 11, x=IMAGE, w=(4, 3, 3, 3)),
    *cases('y = ConvTranspose<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w)', 11, x=IMAGE, w=(4, 3, 3, 3)),
    *cases('y = ConvTranspose<auto_pad = "SAME_LOWER", strides = [2, 2]>(x, w)', 11, x=IMAGE, w=(4, 3, 3, 3)),
    *cases('y = ConvTranspose<auto_pad = "VALID", strides = [2, 2]>(x, w)', 11, x=IMAGE, w=(4, 3, 3, 3)),
    *cases("y = ConvTranspose<output_shape = [18, 16], strides = [2, 2]>(x, w)", 11, x=IMAGE, w=(4, 3, 3, 3)),
    *cases("y = ConvTranspose<strides = [2], pads = [1, 0]>(x, w, b)", 11, x=(2, 4, 5), w=(4, 3, 3), b=(3,)),
    *cases("y = ConvTranspose<strides = [2, 1, 2]>(x, w)", 11, x=(1, 2, 3, 4, 3), w=(2, 3, 2, 3, 2)),
    *cases("y = Gemm(a, b, c)", 7, 11, 13, a=(2, 3), b=(3, 4), c=(4,)),
    *cases("y = Gemm<transA = 1, transB = 1, alpha = 0.5, beta = 2.0>(a, b, c)", 13, a=(3, 2), b=(4, 3), c=(2, 1)),
    *cases("y = Gemm(a, b)", 11, 13, a=(2, 3), b=(3, 4)),
    *cases("y = MatMul(a, b)", 9, 13, a=(2, 5, 3), b=(3, 4)),
    *cases("y = MatMul(a, b)", 13, a=(2, 1, 5, 3), b=(3, 3, 4)),
    *cases("y = MatMul(a, b)", 13, a=(3,), b=(2, 3, 4)),
    *cases("y = MatMul(a, b)", 13, a=(2, 4, 3), b=(3,)),
    *cases('y = Einsum<equation = "bhid,bhjd->bhij">(a, b)', 12, a=(2, 3, 4, 5), b=(2, 3, 6, 5)),
    *cases('y = Einsum<equation = "...ij,jk->...ik">(a, b)', 12, a=(2, 3, 4), b=(4, 5)),
]

POOLING = [
    *cases("y = MaxPool<kernel_shape = [3, 3]>(x)", 7, 12, x=X),
    *cases("y = MaxPool<kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 0, 1]>(x)", 7, 12, x=X),
    *cases("y = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1], ceil_mode = 1>(x)", 10, 22, x=X),
    *cases("y = MaxPool<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1>(x)", 12, x=X),
    *cases("y = MaxPool<kernel_shape = [2, 2], dilations = [2, 3]>(x)", 12, x=X),
    *cases('y = MaxPool<kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_UPPER">(x)', 7, 12, x=X),
    *cases('y = MaxPool<kernel_shape = [2, 2], strides = [2, 2], auto_pad = "SAME_LOWER">(x)', 7, 12, x=X),
    *cases('y = MaxPool<kernel_shape = [2, 2], strides = [2, 2], auto_pad = "VALID">(x)', 12, x=X),
    *cases("y = MaxPool<kernel_shape = [3], pads = [1, 1]>(x)", 12, x=(2, 3, 7)),
    *cases("y = MaxPool<kernel_shape = [2, 2, 2], strides = [2, 1, 2]>(x)", 12, x=(2, 2, 5, 4, 4)),
    *cases("y, i = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x)", 8, 12, x=X),
    *cases("y, i = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(x)", 12, x=TIED),
    *cases("y = AveragePool<kernel_shape = [3, 3]>(x)", 7, 11, x=X),
    *(
        c
        for counted in (0, 1)
        for attributes in (
            "strides = [2, 2], pads = [1, 0, 0, 1]",
            "strides = [2, 2], pads = [1, 1, 1, 1], ceil_mode = 1",
            "strides = [3, 2], ceil_mode = 1",
            'strides = [2, 2], auto_pad = "SAME_UPPER"',
            'strides = [2, 3], auto_pad = "SAME_LOWER"',
        )
        for c in cases(
            f"y = AveragePool<kernel_shape = [3, 2], count_include_pad = {counted}, {attributes}>(x)", 11, 19, x=X
        )
    ),
    *cases("y = AveragePool<kernel_shape = [2, 2], dilations = [2, 3]>(x)", 19, x=X),
    *cases("y = AveragePool<kernel_shape = [3], pads = [1, 1]>(x)", 11, x=(2, 3, 7)),
    *cases("y = AveragePool<kernel_shape = [2, 2, 2], strides = [2, 1, 2]>(x)", 11, x=(2, 2, 5, 4, 4)),
    *cases("y = LpPool<kernel_shape = [3, 2], p = 3, strides = [2, 1], pads = [1, 0, 0, 1]>(x)", 11, 18, x=X),
    *cases("y = LpPool<kernel_shape = [2, 2], ceil_mode = 1, strides = [2, 2]>(x)", 18, x=X),
    *cases("y = GlobalAveragePool(x)", 7, x=X),
    *cases("y = GlobalMaxPool(x)", 7, x=X),
    *cases("y = GlobalLpPool<p = 3>(x)", 7, x=X),
]

NORMALISATION = [
    *cases(
        "y = BatchNormalization<epsilon = 0.01>(x, s, b, m, v)",
        7,
        9,
        14,
        15,
        x=X,
        s=(3,),
        b=(3,),
        m=(3,),
        v=positive(3),
    ),
    *cases(
        "y = BatchNormalization<spatial = 0>(x, s, b, m, v)",
        7,
        x=X,
        s=X[1:],
        b=X[1:],
        m=X[1:],
        v=positive(*X[1:]),
    ),
    *cases("y = BatchNormalization(x, s, b, m, v)", 15, x=(4, 3), s=(3,), b=(3,), m=(3,), v=positive(3)),
    *cases("y = InstanceNormalization<epsilon = 0.01>(x, s, b)", 7, x=X, s=(3,), b=(3,)),
    *cases("y = LayerNormalization<epsilon = 0.01>(x, s, b)", 17, x=X, s=(4,), b=(4,)),
    *cases("y = LayerNormalization<axis = 2>(x, s)", 17, x=X, s=(5, 4)),
    *cases("y, m, i = LayerNormalization<axis = -2>(x, s)", 17, x=X, s=(5, 4)),
    *cases("y = GroupNormalization<num_groups = 2>(x, s, b)", 18, x=IMAGE, s=(2,), b=(2,)),
    *cases("y = GroupNormalization<num_groups = 2>(x, s, b)", 21, x=IMAGE, s=(4,), b=(4,)),
    *cases("y = RMSNormalization(x, s)", 23, x=X, s=(4,)),
    *cases("y = LpNormalization(x)", 7, x=X),
    *cases("y = LpNormalization<axis = 1, p = 1>(x)", 7, x=X),
    *cases("y = MeanVarianceNormalization(x)", 9, 13, x=X),
    *cases("y = LRN<size = 3, alpha = 0.3, beta = 0.6, bias = 2.0>(x)", 7, 13, x=(2, 7, 3, 4)),
    *cases("y = LRN<size = 5>(x)", 13, x=X),
]

NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
S = [1.0, 1.0, 2.0, 1.5]
RESAMPLING = [
    *cases("y = Upsample<scales = [1.0, 1.0, 2.0, 3.0]>(x)", 7, x=X),
    *cases('y = Upsample<mode = "linear", scales = [1.0, 1.0, 2.0, 3.0]>(x)', 7, x=X),
    *cases("y = Upsample(x, s)", 9, x=X, s=S),
    *cases('y = Upsample<mode = "linear">(x, s)', 9, x=X, s=S),
    *cases('y = Resize<mode = "linear">(x, s)', 10, x=X, s=S),
    *cases("y = Resize(x, s)", 10, x=X, s=[1.0, 1.0, 0.6, 1.5]),
    *(
        c
        for coordinates in COORDINATES
        for c in cases(
            f'y = Resize<mode = "linear", coordinate_transformation_mode = "{coordinates}">(x, r, s)',
            11,
            13,
            x=X,
            r=np.empty(0, np.float32),
            s=S,
        )
        + cases(
            f'y = Resize<mode = "linear", coordinate_transformation_mode = "{coordinates}">(x, , s)', 13, 19, x=X, s=S
        )
        + cases(
            f'y = Resize<mode = "linear", coordinate_transformation_mode = "{coordinates}">(x, , , n)',
            13,
            x=X,
            n=ints(2, 3, 3, 7),
        )
        + cases(
            f'y = Resize<coordinate_transformation_mode = "{coordinates}", nearest_mode = "floor">(x, , s)',
            13,
            x=X,
            s=S,
        )
    ),
    *(
        c
        for how in NEAREST
        for c in cases(f'y = Resize<nearest_mode = "{how}">(x, , , n)', 13, 18, x=X, n=ints(2, 3, 8, 7))
    ),
    *cases(
        'y = Resize<mode = "linear", coordinate_transformation_mode = "half_pixel_symmetric">(x, , s)', 19, x=X, s=S
    ),
    *cases('y = Resize<mode = "linear", axes = [2, 3]>(x, , s)', 18, x=X, s=[2.0, 1.5]),
    *cases("y = GridSample(x, g)", 20, x=X, g=(2, 3, 2, 2)),
    *cases(
        'y = GridSample<mode = "bicubic", padding_mode = "border", align_corners = 1>(x, g)', 16, x=X, g=(2, 3, 2, 2)
    ),
]


SPATIAL: list[Case] = [*LINEAR, *POOLING, *NORMALISATION, *RESAMPLING]
