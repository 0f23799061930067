"""RevealCancel on the examples it was invented for, and on layers of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from onnxplain.compiler import compile_model
from tests.running import Results, net, run

Array = NDArray[Any]

GRID = np.array([[a, b] for a in (0.0, 0.25, 1.0, 3.0) for b in (0.0, 0.5, 1.0, 2.0)], np.float32)


def explain(model: ModelProto, x: Array, method: str = "deeplift-revealcancel", **how: Any) -> Results:
    results = run(compile_model(model, method, **how), {"x": np.asarray(x, np.float32)})
    assert np.abs(results["residual"]).max() <= 1e-6 * max(1.0, float(np.abs(results["attribution"]).max()))
    return results


def relu_arithmetic(weights: str, bias: str, own: str) -> ModelProto:
    """o = own . (i1, i2) + sign * relu(weights . (i1, i2) + bias), as a network of linear layers and one ReLU."""
    return net(
        f"""gate (float[N, 2] x) => (float[N, 1] o)
        <float[2, 1] w = {{{weights}}}, float[1] b = {{{bias}}}, float[2, 1] v = {{{own.split(";")[0]}}},
         float[1, 1] s = {{{own.split(";")[1]}}}>
        {{ z = Gemm(x, w, b) h = Relu(z) r = MatMul(h, s) l = MatMul(x, v) o = Add(l, r) }}"""
    )


MINIMUM = relu_arithmetic("1, -1", "0", "1, 0; -1")
"""i1 - relu(i1 - i2), figure 4 of Shrikumar et al. 2017."""

MAXIMUM = relu_arithmetic("-1, 1", "0", "1, 0; 1")
"""i1 + relu(i2 - i1)."""

AND = relu_arithmetic("1, 1", "-1", "0, 0; 1")
"""relu(i1 + i2 - 1)."""

OR = relu_arithmetic("-1, -1", "1", "0, 0; -1")
"""1 - relu(1 - i1 - i2), less the constant."""


@pytest.mark.parametrize("method", ["deeplift", "deeplift-revealcancel"])
def test_a_minimum_is_half_owed_to_each(method: str) -> None:
    found = explain(MINIMUM, GRID, method)["attribution"]
    np.testing.assert_allclose(found, np.repeat(GRID.min(1, keepdims=True) / 2, 2, axis=1), rtol=1e-6)


def test_rescale_gives_the_minimum_to_one() -> None:
    """What the rule is for: Rescale sees no part of the other input."""
    found = explain(MINIMUM, np.array([[3.0, 1.0]]), "deeplift-rescale")["attribution"]
    np.testing.assert_allclose(found, [[0.0, 1.0]])


def test_a_maximum_is_shared_so_that_both_would_have_sufficed() -> None:
    found = explain(MAXIMUM, GRID)["attribution"]
    low, high = GRID.min(1, keepdims=True), GRID.max(1, keepdims=True)
    np.testing.assert_allclose(found, np.where(high == GRID, high - low / 2, low / 2), rtol=1e-6)


@pytest.mark.parametrize("model", [AND, OR], ids=["and", "or"])
def test_and_and_or_of_two_ones_are_shared_evenly(model: ModelProto) -> None:
    ones = np.array([[1, 1], [0, 0], [1, 0]], np.float32)
    found = explain(model, ones)["attribution"]
    one_alone = [0.0, 0.0] if model is AND else [1.0, 0.0]
    np.testing.assert_allclose(found, [[0.5, 0.5], [0.0, 0.0], one_alone], rtol=1e-6)


def test_of_an_input_that_did_not_change_nothing_is_said() -> None:
    assert not explain(MINIMUM, np.array([[0.0, 2.0]]))["attribution"].any()


# What may lie between the layer and the function: each graph computes a ReLU of x w + b

W = np.array([[1.0, -2.0, 0.5], [-1.5, 0.25, 2.0], [0.75, 1.0, -1.0], [2.0, -0.5, 1.25]])
B = np.array([0.5, -0.25, 0.125])
K = np.array([-2.0, 0.5, 1.5])


def numbers(a: Array) -> str:
    return ", ".join(f"{v}" for v in np.ravel(a))


INITIAL = f"""<float[4, 3] w = {{{numbers(W)}}}, float[3, 4] t = {{{numbers(W.T)}}},
    float[4, 3] wk = {{{numbers(W * K)}}}, float[3] b = {{{numbers(B)}}},
    float[3] bk = {{{numbers(B * K)}}}, float[3] k = {{{numbers(K)}}},
    float[3] ik = {{{numbers(1 / K)}}}, float[3] one = {{1, 1, 1}}, float[3] zero = {{0, 0, 0}},
    float[3, 1] v = {{1, -0.5, 2}}, int64[3] rows = {{0, 1, 3}}, int64[2] flat = {{0, 3}},
    float[3, 4, 1, 1] c = {{{numbers(W.T)}}}, int64[4] planes = {{0, 4, 1, 1}}>"""

PLAIN = "z = MatMul(x, w) d = Mul(z, k) q = Add(d, bk) h = Relu(q)"
LAYERS = {
    "scaled by either sign": PLAIN,
    "folded": "q = Gemm(x, wk, bk) h = Relu(q)",
    "transposed weights": "z = Gemm<transB=1>(x, t) d = Mul(k, z) q = Add(bk, d) h = Relu(q)",
    "divided": "z = MatMul(x, w) d = Div(z, ik) q = Add(d, bk) h = Relu(q)",
    "batch norm": "z = MatMul(x, w) q = BatchNormalization<epsilon=0.0>(z, k, bk, zero, one) h = Relu(q)",
    "subtracted": "z = MatMul(x, w) n = Neg(z) m = Mul(n, k) q = Sub(bk, m) h = Relu(q)",
    "reshaped": """z = MatMul(x, w) u = Reshape(z, rows) d = Mul(u, k) q = Add(d, bk) a = Relu(q)
                   h = Reshape(a, flat)""",
    "convolution": """p = Reshape(x, planes) z = Conv(p, c) u = Reshape(z, flat) d = Mul(u, k) q = Add(d, bk)
                      h = Relu(q)""",
    "a sum over products": 'z = Einsum<equation="ni,ij->nj">(x, w) d = Mul(z, k) q = Add(d, bk) h = Relu(q)',
    "a factor below zero": "n = Neg(wk) q = Gemm<alpha=-1.0>(x, n, bk) h = Relu(q)",
    "weights on the left": """xt = Transpose<perm=[1,0]>(x) z = MatMul(t, xt) u = Transpose<perm=[1,0]>(z) d = Mul(u, k)
                              q = Add(d, bk) h = Relu(q)""",
}


@pytest.mark.parametrize("between", LAYERS)
@pytest.mark.parametrize("kept", [False, True], ids=["", "kept"])
def test_what_lies_between_changes_nothing(between: str, kept: bool) -> None:
    """kept: the layer's output is an output of the model too, so that nothing is folded into the layer."""
    axes = "3, N" if "left" in between else "N, 3, 1, 1" if "conv" in between else "N, 3"
    also = f", float[{axes}] z" if kept and "z =" in LAYERS[between] else ""
    model = net(f"g (float[N, 4] x) => (float[N, 1] y{also}) {INITIAL} {{ {LAYERS[between]} y = MatMul(h, v) }}")
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    method = "deeplift-revealcancel"
    found = explain(model, x, method, output="y", baseline="zeros")["attribution"]
    plain = net(f"g (float[N, 4] x) => (float[N, 1] y) {INITIAL} {{ {LAYERS['folded']} y = MatMul(h, v) }}")
    want = explain(plain, x, method)["attribution"]
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
    assert np.abs(want - explain(plain, x, "deeplift-rescale")["attribution"]).max() > 0.1


@pytest.mark.parametrize("function", ["LeakyRelu<alpha=0.2>", "Sigmoid", "Gelu", "HardSwish", "Elu", "Softplus", "Abs"])
def test_every_function_of_one_number_by_eq_22_to_25(function: str) -> None:
    model = net(
        f"g (float[N, 4] x) => (float[N, 1] y) {INITIAL} {{ q = Gemm(x, wk, bk) h = {function}(q) y = MatMul(h, v) }}"
    )
    evaluate = net(f"g (float[N, 3] x) => (float[N, 3] y) {{ y = {function}(x) }}")

    def f(z: Array) -> Array:
        return run(evaluate, {"x": z.astype(np.float32)})["y"].astype(np.float64)

    rng = np.random.default_rng(1)
    x, x0 = rng.standard_normal((2, 6, 4))
    parts = (x - x0)[:, :, None] * (W * K)
    up, down = np.maximum(parts, 0).sum(1), np.minimum(parts, 0).sum(1)
    z0 = x0 @ (W * K) + B * K
    of_up = 0.5 * (f(z0 + up) - f(z0) + f(z0 + up + down) - f(z0 + down))
    of_down = 0.5 * (f(z0 + down) - f(z0) + f(z0 + up + down) - f(z0 + up))
    m_up, m_down = of_up / np.where(up == 0, 1, up), of_down / np.where(down == 0, 1, down)
    shares = np.where(parts > 0, m_up[:, None], m_down[:, None])
    want = (parts * shares) @ np.array([1, -0.5, 2])
    compiled = compile_model(model, "deeplift-revealcancel", baseline="input")
    found = run(compiled, {"x": x.astype(np.float32), "baseline": x0.astype(np.float32)})
    np.testing.assert_allclose(found["attribution"], want, rtol=1e-3, atol=1e-4)
    assert np.abs(found["residual"]).max() <= 1e-5


def test_behind_anything_else_than_a_layer_it_is_rescale() -> None:
    model = net(
        f"""g (float[N, 4] x) => (float[N, 1] y) {INITIAL}
        {{ a = MatMul(x, w) b1 = MatMul(x, wk) q = Add(a, b1) h = Relu(q) y = MatMul(h, v) }}"""
    )
    x = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)
    one, other = (explain(model, x, m)["attribution"] for m in ("deeplift-revealcancel", "deeplift-rescale"))
    np.testing.assert_array_equal(one, other)


def test_a_layer_with_a_second_reader_is_explained_through_both() -> None:
    """z goes through the function and past it; the sum is kept, and so is what RevealCancel says of the function."""
    text = "z = Gemm(x, wk, bk) h = Relu(z) both = Add(h, z) y = MatMul(both, v)"
    model = net(f"g (float[N, 4] x) => (float[N, 1] y) {INITIAL} {{ {text} }}")
    alone = net(
        f"g (float[N, 4] x) => (float[N, 1] y) {INITIAL} {{ z = Gemm(x, wk, bk) h = Relu(z) y = MatMul(h, v) }}"
    )
    x = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)
    past = x * (W * K @ np.array([1, -0.5, 2]))
    np.testing.assert_allclose(
        explain(model, x)["attribution"], explain(alone, x)["attribution"] + past, rtol=1e-4, atol=1e-5
    )
