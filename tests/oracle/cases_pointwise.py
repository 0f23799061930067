"""Cases of operators that work element by element, and of reductions."""

from __future__ import annotations

import numpy as np

from .cases import TIED, Case, X, cases, ints, positive, within

YES = np.array([[True, False, True], [False, False, True]])
NO = np.array([True, True, False])
ELEMENTWISE = [
    *(
        c
        for name in ("Identity", "Abs", "Neg", "Sign", "Exp", "Erf", "Floor", "Ceil", "Sin", "Cos", "Tan", "Atan")
        for c in cases(f"y = {name}(x)", 13, x=X)
    ),
    *(c for name in ("Sinh", "Cosh", "Asinh", "Round", "IsNaN") for c in cases(f"y = {name}(x)", 13, x=X)),
    *(c for name in ("Sqrt", "Log", "Reciprocal") for c in cases(f"y = {name}(x)", 7, 13, x=positive(2, 3))),
    *(c for name in ("Asin", "Acos", "Atanh") for c in cases(f"y = {name}(x)", 13, x=within(2, 3))),
    *cases("y = Acosh(x)", 13, x=positive(2, 3) + 1),
    *(c for name in ("Add", "Sub", "Mul", "Div") for c in cases(f"y = {name}(x, w)", 7, 14, x=X, w=(3, 1, 4))),
    *(c for name in ("Add", "Mul") for c in cases(f"y = {name}(x, w)", 14, x=(5, 1), w=X)),
    *cases("y = Div(a, b)", 14, a=ints(7, -7, 7, -7), b=ints(2, 2, -2, -2)),
    *cases("y = Pow(x, e)", 7, 13, x=positive(2, 3), e=(2, 3)),
    *cases("y = Pow(x, e)", 13, x=X, e=ints(2)),
    *(c for n in ("Sum", "Max", "Min", "Mean") for c in cases(f"y = {n}(a, b, c)", 8, 13, a=X, b=(5, 1), c=(3, 1, 1))),
    *cases("y = Sum(x)", 13, x=X),
    *cases("y = Mod(a, b)", 13, a=ints(7, -7, 7, -7), b=ints(3, 3, -3, -3)),
    *cases("y = Mod<fmod = 1>(x, w)", 13, x=X, w=positive(4)),
    *(c for n in ("Equal", "Greater", "Less") for c in cases(f"y = {n}(a, b)", 11, 13, a=[1.0, 2, 3], b=[2.0, 2, 2])),
    *(c for n in ("GreaterOrEqual", "LessOrEqual") for c in cases(f"y = {n}(a, b)", 16, a=[1.0, 2, 3], b=[2.0, 2, 2])),
    *(c for name in ("And", "Or", "Xor") for c in cases(f"y = {name}(a, b)", 7, a=YES, b=NO)),
    *cases("y = Not(a)", 7, a=YES),
    *cases("y = IsInf<detect_negative = 0>(x)", 10, x=[1.0, np.inf, -np.inf]),
    *cases("y = IsInf(x)", 10, x=[1.0, np.inf, -np.inf]),
    *cases("y = Where(c, x, w)", 9, 16, c=YES, x=(4, 1, 3), w=(2, 1)),
    *cases("y = Clip<min = -0.5, max = 0.5>(x)", 7, x=X),
    *cases("y = DequantizeLinear(q, s, z)", 13, q=np.array([[3, 200, 7]], np.uint8), s=np.float32(0.1), z=np.uint8(7)),
    *cases("y = Clip<max = 0.5>(x)", 6, 7, x=X),
    *cases("y = Clip(x, low, high)", 11, 13, x=X, low=np.float32(-0.5), high=np.float32(0.5)),
    *cases("y = Clip(x, , high)", 13, x=X, high=np.float32(0.5)),
    *cases("y = Clip(x, low)", 13, x=X, low=np.float32(0)),
    *cases("y = Clip(x)", 13, x=X),
    *cases("y = Cast<to = 7>(x)", 9, 13, x=X),
    *cases("y = Cast<to = 1>(a)", 9, 13, a=ints(1, -2, 3)),
    *cases("y = Cast<to = 9>(a)", 13, a=[0.0, 0.5, -2.0]),
    *cases("y = CastLike(a, x)", 15, a=ints(1, -2), x=(2,)),
]

ACTIVATION = [
    *(c for n in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign") for c in cases(f"y = {n}(x)", 7, 14, x=X)),
    *(c for n in ("LeakyRelu", "Elu", "Selu", "ThresholdedRelu") for c in cases(f"y = {n}(x)", 10, 16, x=X)),
    *cases("y = LeakyRelu<alpha = 0.2>(x)", 16, x=X),
    *cases("y = Elu<alpha = 0.7>(x)", 16, x=X),
    *cases("y = Selu<alpha = 2.0, gamma = 3.0>(x)", 16, x=X),
    *cases("y = Celu<alpha = 0.7>(x)", 12, x=X),
    *cases("y = ThresholdedRelu<alpha = 0.3>(x)", 10, x=X),
    *cases("y = PRelu(x, w)", 7, 9, 16, x=X, w=(3, 1, 1)),
    *cases("y = Shrink<lambd = 0.4, bias = 0.1>(x)", 9, x=X),
    *cases("y = Mish(x)", 18, x=X),
    *cases("y = Swish<alpha = 0.5>(x)", 24, x=X),
    *cases("y = Gelu(x)", 20, x=X),
    *cases('y = Gelu<approximate = "tanh">(x)', 20, x=X),
    *cases("y = HardSigmoid(x)", 7, x=X),
    *cases("y = HardSigmoid<alpha = 0.3, beta = 0.4>(x)", 7, x=X),
    *cases("y = HardSwish(x)", 14, x=X),
    *(
        c
        for name in ("Softmax", "LogSoftmax", "Hardmax")
        for text in (f"y = {name}(x)", f"y = {name}<axis = 1>(x)", f"y = {name}<axis = 3>(x)")
        for c in cases(text, 7, 11, 13, x=X)
    ),
    *cases("y = Softmax<axis = -2>(x)", 11, 13, x=X),
    *cases("y = Dropout<ratio = 0.3>(x)", 7, 10, x=X),
    *cases("y, m = Dropout(x, r)", 12, 13, x=X, r=np.float32(0.3)),
]

REDUCTIONS = ("Max", "Min", "Mean", "Sum", "Prod", "L1", "L2", "SumSquare")
REDUCTION = [
    *(c for n in REDUCTIONS for c in cases(f"y = Reduce{n}<axes = [1, -1]>(x)", 11, x=X)),
    *(c for n in REDUCTIONS for c in cases(f"y = Reduce{n}<keepdims = 0>(x, a)", 18, x=X, a=ints(1, -1))),
    *(c for n in REDUCTIONS for c in cases(f"y = Reduce{n}(x)", 11, 18, x=X)),
    *(c for n in REDUCTIONS for c in cases(f"y = Reduce{n}<noop_with_empty_axes = 1>(x)", 18, x=X)),
    *cases("y = ReduceLogSum<axes = [1], keepdims = 0>(x)", 11, x=positive(2, 3, 4)),
    *cases("y = ReduceLogSum(x, a)", 18, x=positive(2, 3, 4), a=ints(0)),
    *cases("y = ReduceLogSumExp<axes = [1]>(x)", 11, x=X),
    *cases("y = ReduceLogSumExp(x, a)", 18, x=X, a=ints(0, 2)),
    *cases("y = ReduceSum<axes = [0, 2]>(x)", 11, x=X),
    *cases("y = ReduceSum(x, a)", 13, x=X, a=ints(0, 2)),
    *(c for n in ("ArgMax", "ArgMin") for c in cases(f"y = {n}<axis = 1>(x)", 7, 13, x=X)),
    *(c for n in ("ArgMax", "ArgMin") for c in cases(f"y = {n}<axis = -1, keepdims = 0>(x)", 13, x=X)),
    *(c for n in ("ArgMax", "ArgMin") for c in cases(f"y = {n}<axis = 3, select_last_index = 1>(x)", 12, x=TIED)),
    *cases("y = ArgMax<axis = 3>(x)", 12, x=TIED),
    *cases("y, i = TopK<axis = 2, k = 3>(x)", 9, x=X),
    *cases("y, i = TopK(x, k)", 10, x=X, k=ints(2)),
    *cases("y, i = TopK<largest = 0, axis = 1>(x, k)", 11, x=X, k=ints(2)),
    *cases("y, i = TopK(x, k)", 11, x=TIED, k=ints(3)),
    *(
        c
        for flags in ("", "<exclusive = 1>", "<reverse = 1>", "<exclusive = 1, reverse = 1>")
        for c in cases(f"y = CumSum{flags}(x, a)", 11, 14, x=X, a=np.int64(2))
    ),
]


POINTWISE: list[Case] = [*ELEMENTWISE, *ACTIVATION, *REDUCTION]
