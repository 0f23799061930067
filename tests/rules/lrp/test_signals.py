"""Operators without weights against loops over their elements."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from onnxplain.rules.composite import Composite
from onnxplain.rules.lrp.composites import Options, base
from tests.rules.lrp import plain
from tests.rules.lrp.plain import EPS, Flow, Windows, shared
from tests.rules.lrp.small import output, relevance, small

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """Nodes from x to y, and what becomes of relevance there."""

    name: str
    body: str
    shape: tuple[int, ...]
    flow: Flow
    weights: Mapping[str, Floats] = field(default_factory=dict)
    options: Options = field(default_factory=Options)

    def __str__(self) -> str:
        return self.name


def drawn(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


def pooled(op: str, windows: Windows, **more: int) -> str:
    given = {"kernel_shape": windows.kernel, "strides": windows.strides, "pads": windows.pads}
    given |= {"dilations": windows.dilations}
    texts = [f"{k} = {list(v)}" for k, v in given.items()] + [f"{k} = {v}" for k, v in more.items()]
    return f"y = {op}<{', '.join(texts)}>(x)"


LINE = Windows([3], [2], [1, 0], [1])
PLANE = Windows([3, 2], [2, 1], [1, 0, 1, 1], [1, 1])
HOLES = Windows([2, 2], [1, 2], [0, 0, 0, 0], [2, 1])
UP = Windows([3, 3], [2, 2], [0, 0, 0, 0], [1, 1], ceil=True)
SOLID = Windows([2, 2, 2], [2, 1, 2], [0] * 6, [1, 1, 1])
APART = Windows([2, 2], [2, 2], [0] * 4, [1, 1])


def pools() -> list[Case]:
    kinds = [("line", LINE, (2, 3, 9)), ("plane", PLANE, (2, 3, 7, 6)), ("holes", HOLES, (1, 2, 6, 6)),
             ("ceil", UP, (1, 2, 6, 8)), ("solid", SOLID, (1, 2, 4, 4, 4)), ("apart", APART, (2, 2, 6, 6))]  # fmt: skip
    found = []
    for name, w, shape in kinds:
        up = {"ceil_mode": 1} if w.ceil else {}
        share = Options(share_pool=True)
        found += [
            Case(f"max-pool, winner, {name}", pooled("MaxPool", w, **up), shape, plain.winner_takes_all(w)),
            Case(f"max-pool, proportional, {name}", pooled("MaxPool", w, **up), shape, plain.in_proportion(w),
                 options=share),
            Case(f"average pool, {name}", pooled("AveragePool", w, **up), shape, plain.in_proportion(w)),
        ]  # fmt: skip
        if not w.ceil:
            whole = int(np.prod(w.kernel))
            found.append(
                Case(f"average pool with its padding, {name}", pooled("AveragePool", w, count_include_pad=1), shape,
                     plain.in_proportion(w, whole))
            )  # fmt: skip
    return found


def _global(x: Floats) -> Windows:
    size = x.shape[2:]
    return Windows(size, [1] * len(size), [0] * 2 * len(size), [1] * len(size))


def _sum_of_parts(x: Floats, r: Floats) -> Floats:
    return np.concatenate(shared(x[:, :3], x[:, 3:], r=r), axis=1)


def _sum_with_row(x: Floats, r: Floats) -> Floats:
    """x[:, :3] (N, 3, 4) and the first row of the rest (N, 1, 4), which is added to each of its rows."""
    a, b = x[:, :3], x[:, 3:4]
    of_a, of_b = shared(a, b, r=r)
    return np.concatenate([of_a, of_b.sum(axis=1, keepdims=True), np.zeros_like(x[:, 4:])], axis=1)


def _difference(x: Floats, r: Floats) -> Floats:
    return np.concatenate(shared(x[:, :3], -x[:, 3:], r=r), axis=1)


def _sum_of_three(over: int) -> Flow:
    return lambda x, r: np.concatenate(shared(x[:, :2] / over, x[:, 2:4] / over, x[:, 4:] / over, r=r), axis=1)


HALVES = "<int64[2] parts = {3, 3}> a, b = Split<axis = 1>(x, parts)"
CONSTANT = drawn(1, 6, 1, seed=5)


def sums() -> list[Case]:
    one = {"c": CONSTANT}
    row = "a = Slice(x, zero, three, one) b = Slice(x, three, four, one)"
    bounds = "<int64[1] zero = {0}, int64[1] one = {1}, int64[1] three = {3}, int64[1] four = {4}>"
    return [
        Case("sum of two", f"{HALVES} y = Add(a, b)", (2, 6, 4), _sum_of_parts),
        Case("sum of two, broadcast", f"{bounds} {row} y = Add(a, b)", (2, 6, 4), _sum_with_row),
        Case("difference", f"{HALVES} y = Sub(a, b)", (2, 6, 4), _difference),
        Case("sum with a constant", "y = Add(c, x)", (2, 6, 4), lambda x, r: shared(x, CONSTANT, r=r)[0], one),
        Case("constant minus x", "y = Sub(c, x)", (2, 6, 4), lambda x, r: shared(-x, CONSTANT, r=r)[0], one),
        Case("mean of three", "<int64[3] parts = {2, 2, 2}> a, b, c = Split<axis = 1>(x, parts) y = Mean(a, b, c)",
             (2, 6, 4), _sum_of_three(3)),
        Case("sum of three", "<int64[3] parts = {2, 2, 2}> a, b, c = Split<axis = 1>(x, parts) y = Sum(a, b, c)",
             (2, 6, 4), _sum_of_three(1)),
        Case("global average pool", "y = GlobalAveragePool(x)", (2, 3, 4, 5),
             lambda x, r: plain.in_proportion(_global(x))(x, r)),
        Case("mean over space", "<int64[2] axes = {2, 3}> y = ReduceMean(x, axes)", (2, 3, 4, 5),
             lambda x, r: plain.in_proportion(_global(x))(x, r)),
        Case("sum over space", "<int64[2] axes = {2, 3}> y = ReduceSum(x, axes)", (2, 3, 4, 5),
             lambda x, r: plain.in_proportion(_global(x), 1)(x, r)),
        Case("global max-pool", "y = GlobalMaxPool(x)", (2, 3, 4, 5),
             lambda x, r: plain.winner_takes_all(_global(x))(x, r)),
        Case("maximum over space", "<int64[2] axes = {2, 3}> y = ReduceMax(x, axes)", (2, 3, 4, 5),
             lambda x, r: plain.winner_takes_all(_global(x))(x, r)),
    ]  # fmt: skip


def routes() -> list[Case]:
    return [
        Case("concatenation", f"{HALVES} y = Concat<axis = 1>(b, a)", (2, 6, 4),
             lambda x, r: np.concatenate([r[:, 3:], r[:, :3]], axis=1)),
        Case("a part", "<int64[1] s = {1}, int64[1] e = {4}, int64[1] a = {2}> y = Slice(x, s, e, a)", (2, 3, 5),
             lambda x, r: np.pad(r, ((0, 0), (0, 0), (1, 1)))),
        Case("one of two parts", f"{HALVES} y = Relu(b)", (2, 6, 4),
             lambda x, r: np.concatenate([np.zeros_like(r), r], axis=1)),
        Case("reshape, transpose", "<int64[3] s = {0, 2, 6}> a = Reshape(x, s) y = Transpose<perm = [0, 2, 1]>(a)",
             (2, 3, 4), lambda x, r: r.transpose(0, 2, 1).reshape(x.shape)),
        Case("padding", "<int64[6] p = {0, 0, 1, 0, 0, 2}> y = Pad(x, p)", (2, 3, 4), lambda x, r: r[:, :, 1:-2]),
        Case("an element taken twice", "<int64[3] i = {2, 0, 2}> y = Gather<axis = 1>(x, i)", (2, 3, 4),
             lambda x, r: np.stack([r[:, 1], 0 * r[:, 1], r[:, 0] + r[:, 2]], axis=1)),
        Case("an element written over another",
             "<int64[1,1] at = {1}, int64[1] zero = {0}, int64[1] one = {1}> "
             "u = Relu(x) v = Slice(u, zero, one, zero) y = ScatterND(u, at, v)", (2, 3, 4),
             lambda x, r: np.stack([r[0] + r[1], 0 * r[1]])),
        Case("tiles", "<int64[3] t = {1, 2, 1}> y = Tile(x, t)", (2, 3, 4), lambda x, r: r[:, :3] + r[:, 3:]),
        Case("sign", "y = Neg(x)", (2, 3, 4), lambda x, r: r),
        Case("a constant factor", "y = Mul(x, c)", (2, 6, 4), lambda x, r: r, {"c": CONSTANT}),
        Case("a constant divisor", "y = Div(x, c)", (2, 6, 4), lambda x, r: r, {"c": CONSTANT}),
    ] + [
        Case(op, f"y = {op}(x)", (2, 3, 4), lambda x, r: r)
        for op in ("Relu", "LeakyRelu", "Elu", "Gelu", "HardSwish", "Sigmoid", "Tanh", "Softplus", "HardSigmoid")
    ]  # fmt: skip


K, C, MEAN, VARIANCE = drawn(3, seed=6), drawn(3, seed=7), drawn(3, seed=8), drawn(3, seed=9) ** 2 + 0.5


def _norm(x: Floats, r: Floats) -> Floats:
    scale = (K / np.sqrt(VARIANCE + 1e-5)).reshape(1, 3, 1)
    return shared(scale * x, C.reshape(1, 3, 1) - scale * MEAN.reshape(1, 3, 1), r=r)[0]


SCALE, BIAS = drawn(5, seed=10), drawn(5, seed=11)


def _matrices(x: Floats, r: Floats) -> Floats:
    """x (N, 2, 3, 4) holds a (N, 3, 4) and b (N, 4, 3)."""
    a, b = x[:, 0], x[:, 1].reshape(-1, 4, 3)
    of_a, of_b = plain.product(a, b, r)
    return np.stack([of_a, of_b.reshape(-1, 3, 4)], axis=1)


def _instances(x: Floats, r: Floats) -> Floats:
    """Every channel is normalised over space by itself, with one scale and one bias."""
    rows = [
        plain.layer_norm(np.full(4, SCALE[c]), np.full(4, BIAS[c]), 1e-5)(x[:, c].reshape(2, 4), r[:, c].reshape(2, 4))
        for c in range(5)
    ]
    return np.stack(rows, axis=1).reshape(x.shape)


def _groups(x: Floats, r: Floats) -> Floats:
    """Three channels are normalised as one, with one scale and one bias, as opset 20 has it."""
    rows = [
        plain.layer_norm(np.full(18, SCALE[k]), np.full(18, BIAS[k]), 1e-5)(
            x[:, 3 * k : 3 * k + 3].reshape(2, 18), r[:, 3 * k : 3 * k + 3].reshape(2, 18)
        ).reshape(2, 3, 3, 2)
        for k in range(2)
    ]
    return np.concatenate(rows, axis=1)


PLACES = np.random.default_rng(12).uniform(-1.2, 1.2, (2, 3, 3, 2)).astype(np.float32).astype(np.float64)


def _read(x: Floats, r: Floats) -> Floats:
    """What each element contributes to what is read, from the matrix that torch makes of the places."""
    found = np.zeros_like(x)
    for n, c in np.ndindex(*x.shape[:2]):
        places = torch.from_numpy(PLACES[n : n + 1])
        units = torch.eye(x[n, c].size, dtype=torch.float64).reshape(1, -1, *x.shape[2:])
        matrix = torch.nn.functional.grid_sample(units, places, align_corners=False)[0].flatten(1).numpy()
        contributions = matrix * x[n, c].reshape(-1, 1)
        total = contributions.sum(0)
        share = r[n, c].reshape(-1) / np.where(total >= 0, total + EPS, total - EPS)
        found[n, c] = (contributions @ share).reshape(x.shape[2:])
    return found


def _soft(x: Floats, r: Floats) -> Floats:
    weights = np.exp(x - x.max(axis=2, keepdims=True))
    return weights / weights.sum(axis=2, keepdims=True) * r


def _of_norm(power: int) -> Flow:
    """Of the root of a sum of powers: each element in proportion to its power."""

    def flow(x: Floats, r: Floats) -> Floats:
        powers = np.abs(x) ** power
        norm = powers.sum(axis=2, keepdims=True) ** (1 / power)
        return powers / norm ** (power - 1) / (norm + EPS) * r

    return flow


def norms() -> list[Case]:
    last = "<int64[1] last = {2}>"
    return [
        Case("a norm", f"{last} y = ReduceL2(x, last)", (2, 3, 5), _of_norm(2)),
        Case("a sum of magnitudes", f"{last} y = ReduceL1(x, last)", (2, 3, 5), _of_norm(1)),
        Case("a norm over space", "y = GlobalLpPool<p = 3>(x)", (2, 3, 5), _of_norm(3)),
        Case("a norm over windows", "y = LpPool<kernel_shape = [5]>(x)", (2, 3, 5), _of_norm(2)),
        Case("a soft maximum", f"{last} y = ReduceLogSumExp(x, last)", (2, 3, 5), _soft),
        Case("places", "y = GridSample(x, places)", (2, 2, 3, 4), _read, {"places": PLACES}),
        Case("a power", "y = Pow(x, three)", (2, 3, 4), lambda x, r: r, {"three": np.asarray(3.0)}),
    ] + [Case(op, f"y = {op}(x)", (2, 3, 4), lambda x, r: r) for op in ("Sin", "Atan", "Shrink", "Reciprocal")]


def others() -> list[Case]:
    norm = {"scale": K, "bias": C, "mean": MEAN, "variance": VARIANCE}
    affine = {"scale": SCALE, "bias": BIAS}
    two = (
        "<int64 zero = {0}, int64 one = {1}, int64[3] s = {0, 4, 3}> "
        "a = Gather<axis = 1>(x, zero) h = Gather<axis = 1>(x, one) b = Reshape(h, s)"
    )
    masked = np.where(np.arange(5) == 2, -np.inf, 0.0)
    return [
        Case("batch norm", "y = BatchNormalization(x, scale, bias, mean, variance)", (2, 3, 4), _norm, norm),
        Case("batch norm, passed", "y = BatchNormalization(x, scale, bias, mean, variance)", (2, 3, 4),
             lambda x, r: r, norm, Options(pass_norm=True)),
        Case("layer norm", "y = LayerNormalization(x, scale, bias)", (2, 3, 5),
             plain.layer_norm(SCALE, BIAS, 1e-5), affine),
        Case("layer norm without bias", "y = LayerNormalization<epsilon = 0.5>(x, scale)", (2, 3, 5),
             plain.layer_norm(SCALE, 0 * BIAS, 0.5), {"scale": SCALE}),
        Case("instance norm", "y = InstanceNormalization(x, scale, bias)", (2, 5, 2, 2), _instances, affine),
        Case("group norm", "y = GroupNormalization<num_groups = 2>(x, scale, bias)", (2, 6, 3, 2), _groups,
             {"scale": SCALE[:2], "bias": BIAS[:2]}),
        Case("softmax", "y = Softmax(x)", (2, 3, 5), plain.softmax),
        Case("matrix product of signals", f"{two} y = MatMul(a, b)", (2, 2, 3, 4), _matrices),
        Case("the same as Einsum", f'{two} y = Einsum<equation = "nij,njk->nik">(a, b)', (2, 2, 3, 4), _matrices),
        Case("masked softmax", "m = Add(x, mask) y = Softmax(m)", (2, 3, 5), _masked, {"mask": masked}),
    ]  # fmt: skip


def _masked(x: Floats, r: Floats) -> Floats:
    found = np.zeros_like(x)
    kept = [0, 1, 3, 4]
    # what a mask hides has y = 0; all that arrives elsewhere is shared among the rest, which then meets x + 0
    for at in np.ndindex(*x.shape[:-1]):
        weights = np.exp(x[at][kept])
        for i, y in zip(kept, weights / weights.sum(), strict=True):
            after = x[at][i] * (r[at][i] - y * r[at].sum())
            found[at][i] = x[at][i] / (x[at][i] + np.copysign(EPS, x[at][i])) * after
    return found


CASES = [*pools(), *sums(), *routes(), *norms(), *others()]


@pytest.mark.parametrize("analyse", [True, False], ids=["analysed", "plain"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-10)], ids=["single", "double"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_relevance(case: Case, dtype: type, tolerance: float, analyse: bool) -> None:
    check(case, drawn(*case.shape, seed=zlib.crc32(case.name.encode())), dtype, tolerance, analyse)


@pytest.mark.parametrize("case", [*pools(), *sums()], ids=str)
def test_relevance_of_what_is_not_negative(case: Case) -> None:
    check(case, np.abs(drawn(*case.shape, seed=zlib.crc32(case.name.encode()))), np.float32, 1e-5, True)


def check(case: Case, x: Floats, dtype: type, tolerance: float, analyse: bool) -> None:
    model = small(case.body, case.shape, case.weights, dtype)
    y = output(small(case.body, case.shape, case.weights, np.float64), x)
    r = drawn(*y.shape, seed=1) * y  # as relevance comes: no more than the value, where values nearly cancel
    r = r.astype(np.float32).astype(np.float64)
    have = relevance(model, x, r, Composite("shared", base(case.options)), analyse)
    want = case.flow(x, r)
    assert have.shape == want.shape
    error = float(np.linalg.norm(have - want) / np.linalg.norm(want))
    assert error <= tolerance, f"relative error {error:.2e}"


def test_the_places_that_are_computed_take_nothing() -> None:
    """A spatial transformer: what is read is the signal, where it is read from is not."""
    body = """<int64[4] s = {0, 1, 2, 2}, int64[1] zero = {0}, int64[1] four = {4}, int64[1] axis = {3}>
        t = Tanh(x) c = Slice(t, zero, four, axis) g = Reshape(c, s) y = GridSample(x, g)"""
    x = drawn(2, 1, 1, 4)
    r = drawn(2, 1, 1, 2, seed=1)
    have = relevance(small(" ".join(body.split()), x.shape, {}, np.float64), x, r, Composite("shared", base(Options())))
    want = np.zeros_like(x)
    for n in range(2):
        picture, places = torch.from_numpy(x[n : n + 1]), torch.from_numpy(np.tanh(x[n]).reshape(1, 1, 2, 2))
        picture.requires_grad_()
        y = torch.nn.functional.grid_sample(picture, places, align_corners=False)
        moved = y.detach() + torch.where(y >= 0, EPS, -EPS)
        (d,) = torch.autograd.grad(y, picture, torch.from_numpy(r[n : n + 1]) / moved)
        want[n] = (picture.detach() * d)[0].numpy()
    np.testing.assert_allclose(have, want, rtol=1e-9, atol=1e-12)


def test_group_norm_spelled_out() -> None:
    """As exporters write it: without scale and bias it is an instance norm of what was reshaped. Opset 21 has a scale
    for each channel."""
    weights = {"k": drawn(6, seed=13), "b": drawn(6, seed=14), "one": np.ones(2), "none": np.zeros(2)}
    one = small("y = GroupNormalization<num_groups = 2>(x, k, none6)", (2, 6, 3, 2),
                {"k": weights["k"], "none6": np.zeros(6)}, np.float64)  # fmt: skip
    one.opset_import[0].version = 21
    spelled = "<int64[3] rows = {0, 2, -1}, int64[4] whole = {0, 6, 3, 2}> a = Reshape(x, rows) "
    spelled += "n = InstanceNormalization(a, one, none) c = Reshape(n, whole) y = Mul(c, k3)"
    other = small(spelled, (2, 6, 3, 2), {**weights, "k3": weights["k"].reshape(6, 1, 1)}, np.float64)
    x, r = drawn(2, 6, 3, 2, seed=15), drawn(2, 6, 3, 2, seed=16)
    exact = Composite("shared", base(Options(eps=0)))
    want = relevance(other, x, r, exact)
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(relevance(one, x, r, exact), want, rtol=1e-9)
