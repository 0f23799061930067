"""DeepLIFT's rules on small graphs: sums with several signals, and numbers worked out by plain loops."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedOp
from tests.running import Results, net, run

Array = NDArray[Any]

SIGNALS = [
    "y = Mul(a, b)",
    "y = Mul(a, a)",
    "e = Exp(b) p = Add(e, half) y = Div(a, p)",
    "e = Exp(b) y = Div(e, a)",
    "s = Sigmoid(b) y = Mul(a, s)",
    "y = Max(a, b)",
    "y = Min(a, b, a)",
    "y = Max(a, zero)",
    "p = Greater(a, zero) y = Where(p, a, b)",
    "p = Greater(a, zero) m = Cast<to=1>(p) y = Mul(a, m)",
    "s = Sign(a) m = Abs(a) y = Mul(s, m)",
    "s = Sign(a) m = Abs(a) d = Sub(m, half) r = Relu(d) y = Mul(s, r)",
    "f = Floor(a) c = Ceil(b) d = Add(f, b) y = Mul(d, c)",
    "d = Div(a, half) f = Round(d) q = Mul(f, half) y = Add(q, b)",
    "s = Pow(a, two) t = Mul(b, b) u = Add(s, t) y = Sqrt(u)",
    "s = Mul(a, a) y = Pow(s, half)",
    "s = Mul(a, a) e = Exp(s) r = Reciprocal(e) y = Mul(r, b)",
    "y = Softmax<axis=1>(x)",
    "y = LogSoftmax<axis=1>(x)",
    "s = Softmax<axis=1>(a) y = Mul(s, b)",
    "y = LpNormalization<axis=1, p=2>(x)",
    "y = LpNormalization<axis=1, p=1>(x)",
    "n = ReduceL2(a, first) y = Mul(n, b)",
    "n = ReduceLogSumExp(a, first) y = Sub(b, n)",
    "n = ReduceMax(a, first) k = ReduceMin(b, first) d = Sub(n, k) y = Mul(d, x)",
    """c = ReduceMean(x, first) u = Sub(x, c) s = Mul(u, u) v = ReduceMean(s, first)
       w = Add(v, small) d = Sqrt(w) y = Div(u, d)""",
    'y = Einsum<equation="ni,ni->ni">(a, b)',
    'y = Einsum<equation="ni,nj->nij">(a, b)',
    "p = Unsqueeze(a, second) q = Unsqueeze(b, first) y = MatMul(p, q)",
    "p = Unsqueeze(a, second) q = Unsqueeze(b, first) m = MatMul(p, q) s = Softmax<axis=-1>(m) y = MatMul(s, p)",
]
"""Graphs from x (N, 6), split into a and b (N, 3), to y."""


def classifier(text: str) -> ModelProto:
    """The graph behind a split, with two scores that see all of y, and not in proportion."""
    return net(
        f"""tiny (float[N, 6] x) => (float[N, 2] scores)
        <float zero = {{0}}, float half = {{0.5}}, float two = {{2}}, float small = {{0.00001}},
         int64[1] first = {{1}}, int64[1] second = {{2}}, int64[3] flat = {{0, 1, -1}}>
        {{ a, b = Split<axis=1, num_outputs=2>(x)
           {text}
           rows = Reshape(y, flat)
           mean = ReduceMean<keepdims=0>(rows, second)
           bent = Tanh(rows)
           sum = ReduceSum<keepdims=0>(bent, second)
           scores = Concat<axis=1>(mean, sum) }}"""
    )


def explain(model: ModelProto, x: Array, baseline: Array, method: str = "deeplift-rescale", **how: Any) -> Results:
    compiled = compile_model(model, method, baseline="input", **how)
    return run(compiled, {"x": x.astype(np.float32), "baseline": baseline.astype(np.float32)})


def gain(results: Results) -> Array:
    """The score's difference from the baseline's."""
    attribution = results["attribution"]
    return attribution.reshape(len(attribution), -1).sum(1, dtype=np.float64) + results["residual"]


@pytest.mark.parametrize("text", SIGNALS)
@pytest.mark.parametrize("rows", [1, 3])
def test_two_signals_keep_the_sum(text: str, rows: int) -> None:
    rng = np.random.default_rng(3)
    x, baseline = rng.standard_normal((3, 6)), rng.standard_normal((rows, 6))
    results = explain(classifier(text), x, baseline)
    assert np.isfinite(results["attribution"]).all()
    assert (np.abs(results["residual"]) <= 1e-5 * np.maximum(np.abs(gain(results)), 0.1)).all()


@pytest.mark.parametrize("text", SIGNALS)
def test_a_sample_does_not_depend_on_the_others(text: str) -> None:
    rng = np.random.default_rng(4)
    x, baseline = rng.standard_normal((4, 6)), rng.standard_normal((1, 6))
    model = classifier(text)
    together = explain(model, x, baseline)
    for i in range(len(x)):
        alone = explain(model, x[i : i + 1], baseline)
        np.testing.assert_allclose(together["attribution"][i], alone["attribution"][0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", [t for t in SIGNALS if "Pow(s, half)" not in t])
def test_at_the_baseline_all_is_zero_and_near_it_the_multiplier_is_the_gradient(text: str) -> None:
    model = classifier(text)
    x = np.random.default_rng(5).standard_normal((2, 6))
    at = explain(model, x, x)
    assert not at["attribution"].any()
    assert not at["residual"].any()
    assert not at["heatmap"].any()
    step = 1e-3
    near = explain(model, x, x - step, target=1)["attribution"] / step
    gradient = run(compile_model(model, "gradient", target=1), x.astype(np.float32))["attribution"]
    np.testing.assert_allclose(near, gradient, rtol=0, atol=5e-3 * np.abs(gradient).max())


def test_products_share_symmetrically() -> None:
    """D(ab) = Da (b + b0)/2 + Db (a + a0)/2, worked out by hand."""
    model = net("g (float[N, 2] x) => (float[N, 1] y) { a, b = Split<axis=1, num_outputs=2>(x) y = Mul(a, b) }")
    results = explain(model, np.array([[3.0, 5.0]]), np.array([[1.0, 2.0]]))
    np.testing.assert_allclose(results["attribution"], [[2 * 3.5, 3 * 2.0]])


def test_quotients_share_as_the_product_that_they_undo() -> None:
    """y b = a gives Dy = (Da - Db (y + y0)/2) / ((b + b0)/2)."""
    model = net("g (float[N, 2] x) => (float[N, 1] y) { a, b = Split<axis=1, num_outputs=2>(x) y = Div(a, b) }")
    results = explain(model, np.array([[6.0, 3.0]]), np.array([[1.0, 1.0]]))
    np.testing.assert_allclose(results["attribution"], [[5 / 2.0, -2 * 1.5 / 2.0]])


def test_softmax_is_its_derivative_with_the_logarithmic_mean() -> None:
    rng = np.random.default_rng(6)
    x, x0 = rng.standard_normal((2, 4)), rng.standard_normal((1, 4))
    y, y0 = (np.exp(v) / np.exp(v).sum(1, keepdims=True) for v in (x, x0))
    mean = (y - y0) / (np.log(y) - np.log(y0))
    got = explain(one_function("Softmax", 4), x, x0, target=2)
    want = -mean * mean[:, 2:3] / mean.sum(1, keepdims=True)
    want[:, 2] += mean[:, 2]
    np.testing.assert_allclose(got["attribution"], -2 * want * (x - x0), rtol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 60.0, 1000.0])
def test_softmax_of_far_apart_logits_stays_exact(scale: float) -> None:
    """Differences that underflow an exponential, in either direction."""
    rng = np.random.default_rng(7)
    x, x0 = scale * rng.standard_normal((3, 6)), scale * rng.standard_normal((1, 6))
    results = explain(classifier("y = Softmax<axis=1>(x)"), x, x0)
    assert np.isfinite(results["attribution"]).all()
    assert np.abs(results["residual"]).max() <= 1e-5


def test_masked_logits_are_no_numbers_that_spread() -> None:
    """Attention masks are minus infinity."""
    text = """masked (float[N, 3] x) => (float[N, 3] y) <float[3] mask = {0, -inf, 0}>
              { m = Add(x, mask) s = Softmax(m) two = Constant<value_float=2.0>() y = Mul(s, two) }"""
    results = explain(net(text.replace("-inf", "-1e38")), np.array([[1.0, 2.0, 3.0]]), np.zeros((1, 3)))
    assert np.isfinite(results["attribution"]).all()
    assert abs(results["residual"][0]) <= 1e-6


def pooled(x: Array, kernel: int, stride: int, pad: int) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """For each output of a max-pool the positions in its window, of x (C, H, W)."""
    channels, height, width = x.shape
    rows, columns = ((size + 2 * pad - kernel) // stride + 1 for size in (height, width))
    windows = {}
    for c, i, j in itertools.product(range(channels), range(rows), range(columns)):
        inside = [(c, i * stride - pad + a, j * stride - pad + b) for a in range(kernel) for b in range(kernel)]
        windows[c, i, j] = [p for p in inside if 0 <= p[1] < height and 0 <= p[2] < width]
    return windows


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (3, 1, 0)])
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool_by_plain_loops(kernel: int, stride: int, pad: int, ties: bool) -> None:
    """The maximum at the sample takes all where the maximum rises, that at the baseline where it falls."""
    rng = np.random.default_rng(8)
    x, x0 = rng.standard_normal((2, 2, 6, 6)), rng.standard_normal((1, 2, 6, 6))
    if ties:
        x, x0 = np.sign(x), np.sign(x0)
    windows = pooled(x[0], kernel, stride, pad)
    weights = rng.standard_normal(len(windows))
    shape = [len(windows), 1]
    model = net(
        f"""pool (float[N, 2, 6, 6] x) => (float[N, 1] y)
        <float[{shape[0]}, 1] w = {{{", ".join(f"{v:.8f}" for v in weights)}}}>
        {{ p = MaxPool<kernel_shape=[{kernel},{kernel}], strides=[{stride},{stride}], pads=[{pad},{pad},{pad},{pad}]>(x)
           f = Flatten(p) y = MatMul(f, w) }}"""
    )
    results = explain(model, x, x0)
    np.testing.assert_allclose(results["residual"], 0, atol=1e-5)
    want = np.zeros(x.shape)
    for n in range(len(x)):
        for weight, window in zip(weights, windows.values(), strict=True):
            now, before = (max(each[p] for p in window) for each in (x[n], x0[0]))
            taker = x[n] if now >= before else x0[0]
            winner = next(p for p in window if taker[p] == taker[max(window, key=lambda q: taker[q])])
            want[n][winner] += weight * (now - before)
    if not ties:
        np.testing.assert_allclose(results["attribution"], want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(results["attribution"].sum((1, 2, 3)), want.sum((1, 2, 3)), rtol=1e-4, atol=1e-5)


def one_function(op: str, size: int = 3) -> ModelProto:
    """Minus twice the function, which is not taken for the probabilities of what goes into it."""
    return net(
        f"g (float[N, {size}] x) => (float[N, {size}] y) "
        f"{{ s = {op}(x) two = Constant<value_float=-2.0>() y = Mul(s, two) }}"
    )


def sigmoid(v: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-v)))


def test_rescale_by_hand_and_derivatives_within_the_threshold() -> None:
    x = np.array([[0.5, 0.5, 2.0]], np.float32)
    x0 = np.array([[-1.5, 0.5 - 2**-3, 2.0]], np.float32)
    quotient = sigmoid(x) - sigmoid(x0)
    mean = (sigmoid(x) * (1 - sigmoid(x)) + sigmoid(x0) * (1 - sigmoid(x0))) / 2 * (x - x0)
    for target, threshold, want in ((0, 1e-4, quotient), (1, 1e-4, quotient), (1, 0.2, mean), (2, 1e-4, 0 * x)):
        got = explain(one_function("Sigmoid"), x, x0, target=target, threshold=threshold)["attribution"][0]
        np.testing.assert_allclose(got[target], -2 * want[0, target], rtol=1e-5)
        assert not np.delete(got, target).any()
    assert abs(mean[0, 1] - quotient[0, 1]) > 1e-5


@pytest.mark.parametrize("op", ["Sigmoid", "Tanh", "Gelu", "Softplus", "Exp"])
def test_a_change_lost_in_rounding_leaves_no_noise_in_the_multiplier(op: str) -> None:
    """What is added and taken away again leaves an input of the function that moved by a rounding error or two."""
    model = net(
        f"""g (float[N, 2] x) => (float[N, 1] y) <float[2, 1] w = {{1000, -1000}}, float one = {{1.0}}>
        {{ d = MatMul(x, w) z = Add(d, one) y = {op}(z) }}"""
    )
    x = np.array([[0.3, 0.3]], np.float32)
    x0 = x - np.array([[0.1, 0.1]], np.float32)
    got = explain(model, x, x0)
    slope = run(compile_model(model, "gradient"), x)["attribution"][0, 0] / 1000
    np.testing.assert_allclose(got["attribution"][0] / ((x - x0)[0] * [1000, -1000]), slope, rtol=1e-3)


@pytest.mark.parametrize("near", [0.0, 1e-9, 1e-6, 1e-3, 1.0])
def test_relu_needs_no_threshold(near: float) -> None:
    """Wherever both signs are, and however close: between no slope and a slope of one, and exact."""
    x = np.array([[near, near, -near]], np.float32)
    x0 = np.array([[-near, near / 2, -near / 2]], np.float32)
    for target, want in enumerate((near, near / 2, 0.0)):
        results = explain(one_function("Relu"), x, x0, target=target)
        np.testing.assert_allclose(results["attribution"][0, target], -2 * np.float32(want), rtol=1e-6)
        assert abs(results["residual"][0]) <= 1e-6 * near


@pytest.mark.parametrize("near", [1e-30, 1e-9, 1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("edge", [0.0, 2.0])
def test_clip_needs_no_threshold(near: float, edge: float) -> None:
    """On one side of a bound, on the other and across it, however close to it: as float64 has it."""
    x, x0 = (edge + np.array([[near, -near, near, -near]]) * steps for steps in ([1, 1, 1, 2], [-1, 1, 2, 1]))
    x, x0 = x.astype(np.float32), x0.astype(np.float32)
    model = net(
        f"""g (float[N, 4] x) => (float[N, 4] y) <float lo = {{0}}, float hi = {{2}}, float[4, 4] w = {{{
            ", ".join(str(1.0 if i == j else 0.0) for i in range(4) for j in range(4))
        }}}> {{ s = Clip(x, lo, hi) y = MatMul(s, w) }}"""
    )
    want = np.clip(x.astype(np.float64), 0, 2) - np.clip(x0.astype(np.float64), 0, 2)
    for target in range(4):
        results = explain(model, x, x0, target=target)
        np.testing.assert_allclose(results["attribution"][0, target], want[0, target], rtol=1e-6, atol=1e-37)


def test_clip_at_the_baseline_has_its_derivative() -> None:
    """Inputs that cancel each other exactly before the Clip keep their multipliers, and lose them beyond its bounds."""
    model = net(
        """g (float[N, 2] x) => (float[N, 3] y)
        <float lo = {0}, float hi = {6}, float[2, 3] w = {1, 1, 1, 1, 1, 1}, float[3] at = {2, -2, 7}>
        { d = MatMul(x, w) z = Add(d, at) s = Clip(z, lo, hi) two = Constant<value_float=2.0>() y = Mul(s, two) }"""
    )
    x, x0 = np.array([[0.5, -0.5]]), np.zeros((1, 2))
    for target, slope in enumerate((2, 0, 0)):
        np.testing.assert_array_equal(explain(model, x, x0, target=target)["attribution"], slope * x)


def test_a_leaky_relu_written_with_where_is_one() -> None:
    rng = np.random.default_rng(9)
    x, x0 = rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    written = net(
        """g (float[N, 3] x) => (float[N, 3] y)
        { zero = Constant<value_float=0.0>() slope = Constant<value_float=0.25>() two = Constant<value_float=-2.0>()
          p = Greater(x, zero) l = Mul(x, slope) s = Where(p, x, l) y = Mul(s, two) }"""
    )
    one, other = explain(written, x, x0), explain(one_function("LeakyRelu<alpha=0.25>"), x, x0)
    np.testing.assert_allclose(one["attribution"], other["attribution"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("op", ["TopK", "Foo"])
def test_what_has_no_rule_is_refused_by_name(op: str) -> None:
    k = "one = Constant<value_ints=[3]>() s, i = TopK(x, one)"
    text = k if op == "TopK" else "l = Constant<value_ints=[1]>() s = ReduceProd(x, l)"
    model = net(f"g (float[N, 3] x) => (float[N, 3] y) {{ {text} y = Add(s, x) }}")
    with pytest.raises(UnsupportedOp, match="TopK" if op == "TopK" else "ReduceProd"):
        compile_model(model, "deeplift-rescale")


@pytest.mark.parametrize("text", ["y = Relu(x)", "p = Greater(x, o) m = Cast<to=1>(p) y = Mul(x, m)",
                                  "s = Sign(x) r = Relu(x) y = Mul(s, r)"])  # fmt: skip
def test_a_product_with_a_step_jumps_however_near_the_baseline_is(text: str) -> None:
    model = net(f"""g (float[N, 4] x) => (float[N, 1] z) <float o = {{0}}, int64[1] last = {{1}}>
        {{ {text} z = ReduceSum(y, last) }}""")
    x = np.array([[0.004, -0.003, 1e-7, 0.0049]])
    found = explain(model, x, np.zeros((1, 4)))
    np.testing.assert_allclose(found["attribution"], np.maximum(x, 0), rtol=1e-6)
    np.testing.assert_allclose(found["residual"], 0, atol=1e-9)


@pytest.mark.parametrize(("op", "baseline"), [
    ("Atanh", 0.9955), ("Asin", 0.9955), ("Acos", -0.9955), ("Tan", 1.56), ("Acosh", 1.0001), ("Log", 1e-3),
    ("Atanh", 0.3), ("Asin", 0.0), ("Tan", 0.7), ("Acosh", 2.0), ("Log", 30.0),
])  # fmt: skip
@pytest.mark.parametrize("step", [0.0044, 1e-3, 1e-4, 1e-5])
def test_near_a_pole_the_sum_is_kept(op: str, baseline: float, step: float) -> None:
    """The derivative there is no mean slope, even of a short way. The rounding of x allows for some of its slope."""
    model = net(f"g (float[N, 1] x) => (float[N, 2] z) <float[1, 2] w = {{1, 2}}> {{ y = {op}(x) z = MatMul(y, w) }}")
    ends = np.float32(baseline), np.float32(baseline) + np.float32(np.sign(baseline or 1) * step)
    results = explain(model, np.full((1, 1), ends[1]), np.full((1, 1), ends[0]), target=0)
    numpy_op = {"Atanh": np.arctanh, "Asin": np.arcsin, "Acos": np.arccos, "Acosh": np.arccosh, "Tan": np.tan,
                "Log": np.log}[op]  # fmt: skip
    before, after = (float(numpy_op(np.float64(end))) for end in ends)
    rounding = 4 * np.finfo(np.float32).eps * max(abs(before), abs(after), 1)
    assert abs(results["attribution"].sum() - (after - before)) <= 1e-4 * abs(after - before) + rounding


@pytest.mark.parametrize("method", ["deeplift", "deeplift-revealcancel"])
@pytest.mark.parametrize(("op", "power"), [("Log", ""), ("Pow", ", half"), ("Asin", ""), ("Atanh", "")])
def test_reveal_cancel_leaves_functions_alone_that_have_no_value_everywhere(method: str, op: str, power: str) -> None:
    """It looks at the sums of what raises and of what lowers alone, which may lie where such a function ends."""
    weights = ", ".join(f"{v:.4f}" for v in np.abs(np.random.default_rng(0).standard_normal(24)) / 24)
    model = net(f"""g (float[N, 8] x) => (float[N, 2] z)
        <float[8, 3] w = {{{weights}}}, float[3, 2] v = {{1, 2, -1, 3, 2, -2}},
         float half = {{0.5}}, float e = {{0.000001}}> {{
            h = MatMul(x, w)  a = Add(h, e)  y = {op}(a{power})  z = MatMul(y, v) }}""")
    rng = np.random.default_rng(1)
    x, baseline = rng.random((3, 8)), rng.random((1, 8))
    x[1] = 0
    found, rescaled = (explain(model, x, baseline, each, target=0) for each in (method, "deeplift-rescale"))
    np.testing.assert_allclose(found["attribution"], rescaled["attribution"], rtol=1e-5)
    assert (np.abs(found["residual"]) <= 1e-5 * np.abs(gain(found))).all()


FORMS = {
    "z, mean = LayerNormalization<axis = 1>(x, w) s = Add(z, mean) y = Mul(s, s)": "whose mean or deviation is used",
}


@pytest.mark.parametrize("text", FORMS)
def test_a_form_without_rule_is_refused_with_its_reason(text: str) -> None:
    model = net(f"g (float[N, 3] x) => (float[N, 3] y) <float[3] w = {{1, 2, 3}}> {{ {text} }}")
    with pytest.raises(UnsupportedOp, match=FORMS[text]):
        compile_model(model, "deeplift-rescale")
