"""Biases that are added behind a layer, as exporters write them: the layer's rule sees them, whatever their shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnxplain.compiler import compile_model
from tests.rules.lrp import dense
from tests.rules.lrp.dense import Dense
from tests.rules.lrp.small import opened, small
from tests.running import assert_near, run

Floats = NDArray[np.float64]


def drawn(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32).astype(np.float64)


W = {
    "w": drawn(4, 5), "b": drawn(5), "row": drawn(1, 1, 5), "place": drawn(3, 5), "left": drawn(5, 3),
    "tall": drawn(5, 1), "k": drawn(3, 2, 3, 3), "c": drawn(3), "map": drawn(1, 3, 4, 4), "one": drawn(1),
    "ns": drawn(2, seed=1), "nb": drawn(2, seed=2), "nm": drawn(2, seed=3), "nv": drawn(2, seed=4) ** 2 + 0.3,
    "half": np.array(0.5),
}  # fmt: skip
STACK, IMAGE = (3, 4), (2, 4, 4)
CONV = "Conv<pads = [1, 1, 1, 1]>"

BODIES: dict[str, tuple[str, tuple[int, ...]]] = {
    "a stack of rows": ("a = MatMul(x, w) z = Add(a, b)", STACK),
    "the bias first": ("a = MatMul(x, w) z = Add(b, a)", STACK),
    "a bias with axes of one": ("a = MatMul(x, w) z = Add(a, row)", STACK),
    "one for each place": ("a = MatMul(x, w) z = Add(a, place)", STACK),
    "a bias taken off": ("a = MatMul(x, w) z = Sub(a, b)", STACK),
    "weights on the left": ("a = MatMul(left, x) z = Add(a, tall)", STACK),
    "weights without stack": ('a = Einsum<equation = "ntk,kc->ntc">(x, w) z = Add(a, b)', STACK),
    "a map": (f"a = {CONV}(x, k) z = Add(a, map)", IMAGE),
    "a map and a bias": (f"a = {CONV}(x, k, c) z = Add(a, map)", IMAGE),
    "a norm before padding": (f"n = BatchNormalization(x, ns, nb, nm, nv) z = {CONV}(n, k, c)", IMAGE),
}
RULES: dict[str, dense.Rule] = {
    "lrp-0": dense.epsilon(0),
    "lrp-eps": dense.epsilon(1e-6),
    "lrp-zplus": dense.alpha_beta(1, 0, 1e-6),
    "lrp-gamma": dense.gamma(0.25, 1e-6),
    "lrp-alphabeta": dense.alpha_beta(2, 1, 1e-6),
}


def model(body: str, shape: tuple[int, ...], batch: int | str = 2) -> tuple[onnx.ModelProto, Floats]:
    """The layer, a ReLU, and a second layer on all of it; with the weights of the second."""
    size = int(np.prod(run(layer(body, shape), np.zeros((1, *shape), np.float32))["y"].shape))
    v = drawn(size, 2, seed=7)
    proto = small(f"<int64[2] flat = {{-1, {size}}}> {body} h = Relu(z) f = Reshape(h, flat) y = MatMul(f, v)",
                  (2, *shape), used(body) | {"v": v})  # fmt: skip
    if isinstance(batch, str):
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = batch
    return proto, v


def layer(body: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    return small(f"{body} y = Identity(z)", (1, *shape), used(body))


def used(body: str) -> dict[str, Floats]:
    return {name: w for name, w in W.items() if f" {name})" in body or f"({name}," in body or f" {name}," in body}


def matrix(body: str, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """The layer as a matrix and a vector, from what it makes of zeros and of single ones."""
    here = layer(body, shape)
    b = run(here, np.zeros((1, *shape), np.float32))["y"].ravel().astype(np.float64)
    ones = np.eye(int(np.prod(shape)), dtype=np.float32).reshape(-1, 1, *shape)
    return np.stack([run(here, one)["y"].ravel() - b for one in ones], axis=1), b


def by_hand(body: str, shape: tuple[int, ...], v: Floats, x: Floats, rule: dense.Rule) -> Floats:
    w, b = matrix(body, shape)
    nothing = np.zeros(1)
    found = []
    for sample in x:
        lower = Dense(w, b, sample.ravel(), nothing, nothing)
        head = Dense(v.T, np.zeros(2), np.maximum(lower.y, 0), nothing, nothing)
        found.append(rule(lower, rule(head, np.where(head.y == head.y.max(), head.y, 0))).reshape(shape))
    return np.stack(found)


@pytest.mark.parametrize("batch", [2, "N"])
@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("case", BODIES)
def test_the_bias_takes_part_as_in_one_layer(case: str, method: str, batch: int | str) -> None:
    body, shape = BODIES[case]
    proto, v = model(body, shape, batch)
    x = 2 * drawn(2, *shape, seed=6)
    have = run(compile_model(proto, method), x.astype(np.float32))
    np.testing.assert_allclose(have["y"], run(proto, x.astype(np.float32))["y"], rtol=1e-5)
    assert_near(have["attribution"], by_hand(body, shape, v, x, RULES[method]), 2e-5)


@pytest.mark.parametrize(("method", "how", "rule"), [
    ("lrp-eps", {"bias": False}, dense.epsilon(1e-6, bias=False)),
    ("lrp-zplus", {"bias": False}, dense.alpha_beta(1, 0, 1e-6, bias=False)),
    ("lrp-zplus", {"compat": "captum"}, dense.captum_alpha1_beta0()),
    ("lrp-gamma", {"compat": "captum"}, dense.captum_gamma(0.25)),
    ("lrp-alphabeta", {"compat": "innvestigate"}, dense.alpha_beta_whole_bias(2, 1, 1e-6)),
])  # fmt: skip
@pytest.mark.parametrize("case", ["a stack of rows", "a map and a bias"])
def test_so_do_those_of_other_conventions(case: str, method: str, how: dict[str, Any], rule: dense.Rule) -> None:
    body, shape = BODIES[case]
    proto, v = model(body, shape)
    x = np.abs(drawn(2, *shape, seed=8)) if "compat" in how else drawn(2, *shape, seed=8)
    have = run(compile_model(proto, method, **how), x.astype(np.float32))["attribution"]
    assert_near(have, by_hand(body, shape, v, x, rule), 2e-5)


_STACKED = "a = MatMul({x}, w) c = Add(a, b) h = Relu(c) d = MatMul(h, u) e = Add(d, p) i = Relu(e)"
_ROWS = "a = Gemm(s, w, b) h = Relu(a) d = MatMul(h, u) e = Add(d, p) i = Relu(e)"


@pytest.mark.parametrize("body", [
    f"{_STACKED.format(x='x')} f = Flatten(i) y = MatMul(f, v)",
    f"s = Transpose<perm = [1, 0, 2]>(x) {_STACKED.format(x='s')} j = Transpose<perm = [1, 0, 2]>(i) f = Flatten(j) "
    "y = MatMul(f, v)",
    f"<int64[2] rows = {{-1, 4}}, int64[2] whole = {{-1, 15}}> s = Reshape(x, rows) {_ROWS} f = Reshape(i, whole) "
    "y = MatMul(f, v)",
    "<int64[2] rows = {-1, 4}, int64[3] parts = {3, -1, 5}> t = Transpose<perm = [1, 0, 2]>(x) s = Reshape(t, rows) "
    f"{_ROWS} q = Reshape(i, parts) j = Transpose<perm = [1, 0, 2]>(q) f = Flatten(j) y = MatMul(f, v)",
], ids=["samples first", "rows first", "rows beside each other", "rows first, samples beside each other"])  # fmt: skip
def test_a_stack_has_one_epsilon_for_each_sample(body: str) -> None:
    """The root mean square is over all rows of a sample, not of each by itself, wherever they lie."""
    weights = {"w": W["w"], "b": W["b"], "u": drawn(5, 5), "p": drawn(5), "v": drawn(15, 2)}
    proto = small(body, (2, *STACK), weights)
    _, seen = opened(proto)
    middle = next(site for site in seen.sites if site.op == "MatMul" and site.role.depth == 0.5)
    x = drawn(2, *STACK, seed=6) * np.array([1, 10]).reshape(2, 1, 1)
    have = run(compile_model(proto, "lrp-composite", low=-9, high=10), x.astype(np.float32))["attribution"]
    assert middle.role.bias is not None
    w, u, v, b, p = W["w"], drawn(5, 5), drawn(15, 2), W["b"], drawn(5)
    for n, sample in enumerate(x):
        first, second = (np.kron(np.eye(3), m.T) for m in (w, u))
        low, high = np.full(12, -9.0), np.full(12, 10.0)
        lower = Dense(first, np.tile(b, 3), sample.ravel(), low, high)
        inner = Dense(second, np.tile(p, 3), np.maximum(lower.y, 0), low, high)
        head = Dense(v.T, np.zeros(2), np.maximum(inner.y, 0), low, high)
        r = dense.epsilon(0)(head, np.where(head.y == head.y.max(), head.y, 0))
        want = dense.box(1e-6)(lower, dense.relative_epsilon(0.25)(inner, r))
        assert_near(have[n].reshape(1, -1), want.reshape(1, -1), 2e-5)


def bias_of(body: str) -> str | None:
    """The name of what is the bias of the layer that makes `a`."""
    _, seen = opened(small(f"{body}", (2, *STACK), W))
    found = next(site for site in seen.sites if site.y.name == "a").role.bias
    return None if found is None else found.y.name


@pytest.mark.parametrize(("body", "bias"), [
    ("a = MatMul(x, w) y = Add(a, b)", "y"),
    ("a = MatMul(x, w) d = Add(a, b) y = Add(a, d)", None),
    ("a = MatMul(x, w) y = Sub(b, a)", None),
    ("a = MatMul(x, w) r = Relu(a) y = Add(r, b)", None),
    ("a = MatMul(x, w) d = Add(a, b) y = Add(d, row)", "d"),
    ("a = MatMul(x, w) d = ReduceMean<keepdims = 0>(a) y = Add(d, b)", None),
], ids=["a layer", "read twice", "turned round", "behind a ReLU", "two sums", "a mean between"])  # fmt: skip
def test_which_sums_belong_to_a_layer(body: str, bias: str | None) -> None:
    assert bias_of(body) == bias


def test_a_sum_that_stretches_the_output_is_none_of_its_own() -> None:
    """One row for a whole picture, and a map that makes many of it."""
    stretched: Callable[[tuple[int, ...]], Any] = lambda shape: small(  # noqa: E731
        "a = MatMul(x, w) y = Add(a, place)", shape, {"w": W["w"], "place": W["place"]}
    )
    for shape, own in (((2, 3, 4), True), ((2, 1, 4), False)):
        _, seen = opened(stretched(shape))
        assert (next(s for s in seen.sites if s.op == "MatMul").role.bias is not None) is own
