"""Sign analysis: what is proven is true, what is false is not proven, and what is left out changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxplain.ir.builder import Builder
from onnxplain.ir.save import to_proto
from onnxplain.ir.site import Facts
from onnxplain.passes.explain.backward import walk
from onnxplain.passes.explain.trace import Trace
from onnxplain.passes.optimise import signs
from onnxplain.passes.optimise.dead_code import DropDeadCode
from onnxplain.rules.composite import Composite, op
from onnxplain.rules.lrp.affine import is_linear
from onnxplain.rules.lrp.composites import Options, base, first, layers
from onnxplain.rules.lrp.inputs import flat, w_square, z_box
from onnxplain.rules.lrp.layers import alpha_beta, epsilon, gamma, z_plus
from tests.rules.lrp.small import opened, output, small
from tests.running import run

Floats = NDArray[np.float64]
SHAPE = (2, 3, 4, 4)


def drawn(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape)


CONSTANTS = {
    "up": np.abs(drawn(1, 3, 1, 1, seed=1)), "mixed": np.asarray([1.0, -2.0, 0.5]).reshape(1, 3, 1, 1),
    "down": -np.abs(drawn(1, 3, 1, 1, seed=2)), "zero": np.asarray(0.0), "six": np.asarray(6.0),
    "minus": np.asarray(-1.0), "matrix": np.abs(drawn(4, 4, seed=3)), "kernel": np.abs(drawn(2, 3, 3, 3, seed=4)),
    "scale": np.ones(3), "shift": np.zeros(3), "mean": np.full(3, 0.3), "var": np.ones(3),
    "large": np.ones((3, 256, 256)),
}  # fmt: skip

NEVER_NEGATIVE = {
    "ReLU": "y = Relu(x)",
    "sigmoid": "y = Sigmoid(x)",
    "softmax": "y = Softmax(x)",
    "absolute value": "y = Abs(x)",
    "clipped from 0": "y = Clip(x, zero, six)",
    "clipped from 0, no upper bound": "y = Clip(x, zero)",
    "a clipped ReLU": "a = Relu(x) y = Clip(a, minus, six)",
    "the larger of something and a ReLU": "a = Relu(x) y = Max(x, a)",
    "the smaller of two that are not negative": "a = Relu(x) b = Sigmoid(x) y = Min(a, b)",
    "max-pool of a ReLU": "a = Relu(x) y = MaxPool<kernel_shape = [2, 2], pads = [1, 1, 0, 0]>(a)",
    "average pool of a ReLU": "a = Relu(x) y = AveragePool<kernel_shape = [2, 2]>(a)",
    "sum": "a = Relu(x) b = Sigmoid(x) y = Add(a, b)",
    "sum with a positive constant": "a = Relu(x) y = Add(a, up)",
    "product": "a = Relu(x) b = Sigmoid(x) y = Mul(a, b)",
    "product with a positive constant": "a = Relu(x) y = Mul(up, a)",
    "matrix product with positive weights": "a = Relu(x) y = MatMul(a, matrix)",
    "concatenation": "a = Relu(x) b = Sigmoid(x) y = Concat<axis = 1>(a, b)",
    "mean": "<int64[1] axes = {2}> a = Relu(x) y = ReduceMean(a, axes)",
    "LeakyReLU of a ReLU": "a = Relu(x) y = LeakyRelu<alpha = 0.3>(a)",
    "GELU of a ReLU": "a = Relu(x) y = Gelu(a)",
    "padded with zeros": "<int64[8] p = {0,0,1,1,0,0,1,1}> a = Relu(x) y = Pad(a, p)",
    "padded with a positive number": "<int64[8] p = {0,0,1,1,0,0,1,1}> a = Relu(x) y = Pad(a, p, six)",
    "padded with zeros along axes named": "<int64[2] p = {1,1}, int64[1] axes = {2}> a = Relu(x) y = Pad(a, p, , axes)",
    "padded by reflection": "<int64[8] p = {0,0,1,1,0,0,1,1}> a = Relu(x) y = Pad<mode = \"reflect\">(a, p)",
    "resized linearly": "<float[4] s = {1,1,2,2}> a = Relu(x) y = Resize<mode = \"linear\">(a, , s)",
    "resized to the nearest": "<float[4] s = {1,1,2,2}> a = Relu(x) y = Resize(a, , s)",
    "ReLU from a threshold on": "y = ThresholdedRelu<alpha = 0.5>(x)",
}  # fmt: skip

CAN_BE_NEGATIVE = {
    "the input": "y = Identity(x)",
    "LeakyReLU": "y = LeakyRelu<alpha = 0.3>(x)",
    "GELU": "y = Gelu(x)",
    "ELU": "y = Elu(x)",
    "difference": "a = Relu(x) b = Sigmoid(x) y = Sub(a, b)",
    "minus": "a = Relu(x) y = Neg(a)",
    "sum with a negative constant": "a = Relu(x) y = Add(a, down)",
    "product with a constant of mixed signs": "a = Relu(x) y = Mul(a, mixed)",
    "one of two": "a = Relu(x) y = Add(a, x)",
    "the smaller of something and a ReLU": "a = Relu(x) y = Min(a, x)",
    "concatenation with the input": "a = Relu(x) y = Concat<axis = 1>(a, x)",
    "clipped from -1": "y = Clip(x, minus, six)",
    "clipped from above alone": "y = Clip(x, , six)",
    "a ReLU clipped below 0": "a = Relu(x) y = Clip(a, , minus)",
    "padded with a negative number": "<int64[8] p = {0,0,1,1,0,0,1,1}> a = Relu(x) y = Pad(a, p, minus)",
    "cubic interpolation overshoots":
        "<float[4] s = {1,1,2,2}> a = Relu(x) y = Resize<mode = \"cubic\", cubic_coeff_a = -0.75>(a, , s)",
    "a negative threshold": "y = ThresholdedRelu<alpha = -0.5>(x)",
    "batch norm of a ReLU": "a = Relu(x) y = BatchNormalization(a, scale, shift, mean, var)",
}  # fmt: skip

NOT_LOOKED_AT = {
    "positive filters": "a = Relu(x) y = Conv(a, kernel)",
    "a large constant": "<float[4] s = {1,1,64,64}> a = Relu(x) u = Resize(a, , s) y = Mul(u, large)",
}


def proven(body: str) -> set[str]:
    g, seen = opened(small(body, SHAPE, CONSTANTS))
    return signs.nonnegative(g, seen.nodes, set())


@pytest.mark.parametrize("body", NEVER_NEGATIVE.values(), ids=NEVER_NEGATIVE)
def test_what_is_never_negative_is_proven(body: str) -> None:
    assert "y" in proven(body)
    assert output(small(body, SHAPE, CONSTANTS, np.float64), 3 * drawn(*SHAPE)).min() >= 0


@pytest.mark.parametrize("body", CAN_BE_NEGATIVE.values(), ids=CAN_BE_NEGATIVE)
def test_what_can_be_negative_is_not_proven(body: str) -> None:
    assert "y" not in proven(body)
    if "Resize" in body:  # the oracle has no cubic interpolation with this coefficient
        y = run(small(body, SHAPE, CONSTANTS), drawn(*SHAPE).astype(np.float32))["y"]
    else:
        y = output(small(body, SHAPE, CONSTANTS, np.float64), 3 * drawn(*SHAPE))
    assert y.min() < 0


@pytest.mark.parametrize("body", NOT_LOOKED_AT.values(), ids=NOT_LOOKED_AT)
def test_what_is_not_looked_at_counts_as_unknown(body: str) -> None:
    assert "y" not in proven(body)


def test_the_input_is_not_negative_where_its_range_says_so() -> None:
    g, seen = opened(small("a = MaxPool<kernel_shape = [2, 2]>(x) y = Add(a, up)", SHAPE, CONSTANTS))
    assert "y" in signs.nonnegative(g, seen.nodes, {"x"})
    assert "y" not in signs.nonnegative(g, seen.nodes, set())


# What arrives

W = {"w": drawn(5, 3, 3, 3, seed=7), "v": drawn(4, 5, 3, 3, seed=8), "u": drawn(6, 4, 1, 1, seed=9)}
AFFINE = {"scale": drawn(5, seed=3), "shift": drawn(5, seed=4), "mean": drawn(5, seed=5), "var": np.ones(5)}
EPSILON = Composite("epsilon", (layers(is_linear, epsilon(1e-6), "epsilon"), *base(Options())))
PASSED = Composite("passed", (layers(is_linear, epsilon(1e-6), "epsilon"), *base(Options(pass_norm=True))))


def with_last(rule: object) -> Composite:
    """That rule in the layer of matrix u, which knows nothing of zeros; the epsilon rule before."""
    named = [layers(lambda s: s.name == "last", rule, "last", "unknown")]  # type: ignore[arg-type]
    return Composite("last", (*named, *EPSILON.entries))


RECTIFIED = {
    "ReLU": ("c = Conv(x, w) a = Relu(c) y = Conv(a, v)", EPSILON),
    "ReLU, then the score": ("c = Conv(x, w) y = Relu(c)", EPSILON),
    "ReLU and max-pool": ("c = Conv(x, w) a = Relu(c) p = MaxPool<kernel_shape = [2, 2]>(a) y = Conv(p, u5)", EPSILON),
    "ReLU6": ("c = Conv(x, w) a = Clip(c, zero, six) y = Conv(a, v)", EPSILON),
    "clipped from zero, no upper bound": ("c = Conv(x, w) a = Clip(c, zero) y = Conv(a, v)", EPSILON),
    "ReLU, read twice": ("c = Conv(x, w) a = Relu(c) d = Conv(a, v1) y = Add(a, d)", EPSILON),
    "ReLU, gated": (
        "c = Conv(x, w) a = Relu(c) p = GlobalAveragePool(a) s = Sigmoid(p) m = Mul(a, s) y = Conv(m, v)",
        EPSILON,
    ),
    "ReLU, normalised": (
        "c = Conv(x, w) a = Relu(c) n = BatchNormalization(a, scale, shift, mean, var) y = Conv(n, v)",
        EPSILON,
    ),
}
NOT_RECTIFIED = {
    "no ReLU": ("c = Conv(x, w) y = Conv(c, v)", EPSILON),
    "LeakyReLU": ("c = Conv(x, w) a = LeakyRelu(c) y = Conv(a, v)", EPSILON),
    "clipped from below zero": ("c = Conv(x, w) a = Clip(c, minus, six) y = Conv(a, v)", EPSILON),
    "clipped from above alone": ("c = Conv(x, w) a = Clip(c, , six) y = Conv(a, v)", EPSILON),
    "clipped to zero": ("c = Conv(x, w) a = Clip(c, zero, zero) y = Conv(a, v)", EPSILON),
    "one of two readers is no ReLU": ("c = Conv(x, w) a = Relu(c) y = Add(a, c)", EPSILON),
    "one of two readers is a LeakyReLU": ("c = Conv(x, w) a = Relu(c) d = LeakyRelu(c) y = Add(a, d)", EPSILON),
    "a sigmoid behind the ReLU": ("c = Conv(x, w) a = Relu(c) s = Sigmoid(a) y = Conv(s, v)", EPSILON),
    "batch norm passes": (
        "c = Conv(x, w) a = Relu(c) n = BatchNormalization(a, scale, shift, mean, var) y = Conv(n, v)", PASSED),
    "the flat rule behind": ("c = Conv(x, w) a = Relu(c) [last] y = Conv(a, v)", with_last(flat())),
    "the w^2 rule behind": ("c = Conv(x, w) a = Relu(c) [last] y = Conv(a, v)", with_last(w_square())),
    "the box rule behind": ("c = Conv(x, w) a = Relu(c) [last] y = Conv(a, v)", with_last(z_box())),
}  # fmt: skip


def facts_of(body: str, composite: Composite) -> dict[str, Facts]:
    more = {"u5": drawn(4, 5, 1, 1, seed=10), "v1": drawn(5, 5, 1, 1, seed=11)}
    g, seen = opened(small(body, (1, 3, 8, 8), CONSTANTS | W | AFFINE | more))
    return {s.y.name: f for s, f in zip(seen.sites, _in_order(g, seen, composite), strict=True)}


def _in_order(g: Builder, seen: Trace, composite: Composite) -> list[Facts]:
    found = signs.facts(g, seen, composite, nonnegative_input=False)
    return [found[s.name] for s in seen.sites]


@pytest.mark.parametrize(("body", "composite"), RECTIFIED.values(), ids=RECTIFIED)
def test_nothing_arrives_where_a_layer_before_relus_is_not_positive(body: str, composite: Composite) -> None:
    assert facts_of(body, composite)["c"].rectified


@pytest.mark.parametrize(("body", "composite"), NOT_RECTIFIED.values(), ids=NOT_RECTIFIED)
def test_something_may_arrive_there(body: str, composite: Composite) -> None:
    assert not facts_of(body, composite)["c"].rectified


# What is left out

TABLES = {
    "epsilon": epsilon(1e-6),
    "z+": z_plus(),
    "gamma": gamma(0.25),
    "alpha-beta": alpha_beta(2, 1),
}
CHAINS = {
    "ReLU6": "c = Conv(x, w) a = Clip(c, zero, six) d = Conv(a, v) e = Clip(d, zero, six) f = Conv(e, u) "
    "y = Clip(f, zero, six)",
    "ReLU": "c = Conv(x, w) a = Relu(c) d = Conv(a, v) e = Relu(d) f = Conv(e, u) y = Relu(f)",
    "LeakyReLU": "c = Conv(x, w) a = Leaky(c) d = Conv(a, v) e = Leaky(d) f = Conv(e, u) y = Leaky(f)".replace(
        "Leaky", "LeakyRelu<alpha = 0.3>"
    ),
}
CONVOLUTIONS = {
    # Three layers forward; then one, two or four for each, as its operand has one sign or both. The first has both.
    ("ReLU", "epsilon"): (6, 6),
    ("ReLU", "z+"): (11, 15),
    ("ReLU", "gamma"): (11, 21),
    ("ReLU", "alpha-beta"): (15, 27),
    ("ReLU6", "epsilon"): (6, 6),
    ("ReLU6", "z+"): (11, 15),
    ("ReLU6", "gamma"): (11, 21),
    ("ReLU6", "alpha-beta"): (15, 27),
    ("LeakyReLU", "epsilon"): (6, 6),
    ("LeakyReLU", "z+"): (15, 15),
    ("LeakyReLU", "gamma"): (21, 21),
    ("LeakyReLU", "alpha-beta"): (21, 27),
}


def explained(body: str, composite: Composite, analyse: bool, told: Facts | None = None) -> tuple[Floats, int]:
    """The relevance of x, and how many convolutions the graph has; `told` are facts to believe of every layer."""
    g, seen = opened(small(body, (2, 3, 8, 8), W | CONSTANTS))
    facts = signs.facts(g, seen, composite, nonnegative_input=False) if analyse else None
    if told is not None:
        facts = {s.name: told if s.op == "Conv" and s[0].name != "x" else Facts() for s in seen.sites}
    flow = walk(g, seen, composite, seen.score, facts=facts)
    g.graph.outputs.append(g.publish(flow, "relevance").tensor)
    DropDeadCode().run(g.model)
    x = drawn(2, 3, 8, 8, seed=12).astype(np.float32)
    count = sum(node.op in ("Conv", "ConvTranspose") for node in g.graph.nodes)
    return run(to_proto(g.model), x)["relevance"].astype(np.float64), count


def composite_of(rule: str) -> Composite:
    return Composite(rule, (layers(is_linear, TABLES[rule], rule), *base(Options())))


@pytest.mark.parametrize(("chain", "rule"), CONVOLUTIONS)
def test_what_is_left_out_changes_nothing(chain: str, rule: str) -> None:
    fewer, saved = explained(CHAINS[chain], composite_of(rule), True)
    full, whole = explained(CHAINS[chain], composite_of(rule), False)
    assert (saved, whole) == CONVOLUTIONS[chain, rule]
    assert np.linalg.norm(fewer - full) <= 1e-5 * np.linalg.norm(full)


@pytest.mark.parametrize("rule", ["z+", "gamma", "alpha-beta"])
def test_without_the_proof_negative_operands_would_be_lost(rule: str) -> None:
    """The chain of LeakyReLUs would come out wrong if x were believed to have no negative element."""
    right, _ = explained(CHAINS["LeakyReLU"], composite_of(rule), True)
    wrong, _ = explained(CHAINS["LeakyReLU"], composite_of(rule), True, told=Facts(nonnegative=True))
    assert np.linalg.norm(wrong - right) > 1e-2 * np.linalg.norm(right)


def test_without_the_proof_gamma_would_lose_its_negative_branch() -> None:
    right, _ = explained(CHAINS["LeakyReLU"], composite_of("gamma"), True)
    wrong, _ = explained(CHAINS["LeakyReLU"], composite_of("gamma"), True, told=Facts(rectified=True))
    assert np.linalg.norm(wrong - right) > 1e-2 * np.linalg.norm(right)


def test_the_first_layer_alone_keeps_its_terms_when_the_input_has_both_signs() -> None:
    g, seen = opened(small(CHAINS["ReLU"], (2, 3, 8, 8), W))
    known = signs.facts(g, seen, EPSILON, nonnegative_input=False)
    by_layer = [known[s.name] for s in seen.sites if s.op == "Conv"]
    assert [f.nonnegative for f in by_layer] == [False, True, True]
    pixels = signs.facts(g, seen, EPSILON, nonnegative_input=True)
    assert all(pixels[s.name].nonnegative for s in seen.sites if s.op == "Conv")


def test_first_is_a_place_of_its_own_in_a_table() -> None:
    """A flat first layer says nothing of zeros of the input, and that costs nothing behind it."""
    table = Composite("flat", (layers(first(is_linear), flat(), "flat", "unknown"), *EPSILON.entries))
    g, seen = opened(small(CHAINS["ReLU"], (2, 3, 8, 8), W))
    found = signs.facts(g, seen, table, nonnegative_input=False)
    assert all(found[s.name].rectified for s in seen.sites if s.op == "Conv")
    assert found[seen.sites[0].name] == Facts(rectified=True, analysed=True)
    assert table.entry_for(seen.sites[0]).label == "flat"  # type: ignore[union-attr]
    assert op("Conv")(seen.sites[0])
