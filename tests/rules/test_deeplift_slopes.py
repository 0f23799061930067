"""Mean slopes where no quotient is to be had: at kinks, where both points are one, in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.compiler import compile_model
from tests.rules.test_deeplift import explain
from tests.running import net, run

METHODS = ["deeplift", "deeplift-rescale", "deeplift-revealcancel"]


@pytest.mark.parametrize("method", METHODS)
def test_a_magnitude_that_is_zero_at_both_points_has_no_slope(method: str) -> None:
    """As a ReLU there, a sum of magnitudes, and the derivative: |a - b| where both are one."""
    one = net("""g (float[N, 2] x) => (float[N, 1] y) <float[2, 1] w = {1, -1}, float[1, 1] k = {3}>
        { d = MatMul(x, w) m = Abs(d) y = MatMul(m, k) }""")
    other = net("""g (float[N, 2] x) => (float[N, 1] y)
        <float[2, 1] w = {1, -1}, float[1, 1] k = {3}, int64[1] last = {1}>
        { d = MatMul(x, w) m = ReduceL1(d, last) y = MatMul(m, k) }""")
    x = np.array([[1.0, 1.0], [2.0, 1.0], [1.0, 3.0]])
    for model in (one, other):
        found = explain(model, x, np.zeros((1, 2)), method)["attribution"]
        assert not found[0].any()
        np.testing.assert_allclose(found.sum(1), [0, 3, 6], rtol=1e-6)
        if method == "deeplift-rescale":
            np.testing.assert_allclose(found, [[0, 0], [6, -3], [-3, 9]], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("alpha", "beta"), [(-0.3, 0.4), (-2.0, 0.0), (0.3, 0.4), (0.0, 0.4)])
def test_a_hard_sigmoid_that_falls(method: str, alpha: float, beta: float) -> None:
    """Its lower kink is where it leaves one; the quotient of differences, by numpy in float64."""
    ones = ", ".join("1" if i == j else "0" for i in range(6) for j in range(6))
    model = net(f"""g (float[N, 6] x) => (float[N, 6] y) <float[6, 6] w = {{{ones}}}>
        {{ h = HardSigmoid<alpha = {alpha}, beta = {beta}>(x) y = MatMul(h, w) }}""")
    x, x0 = np.array([[-4, -1.5, -0.3, 0.2, 1.1, 5]]), np.array([[3, -1, -0.3, 2, -2, 6]])
    y, y0 = (np.clip(alpha * v + beta, 0, 1) for v in (x, x0))
    for target in range(6):
        got = explain(model, x, x0, method, target=target)
        np.testing.assert_allclose(got["attribution"][0, target], (y - y0)[0, target], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("function", ["Relu(a)", "Abs(a)", "Clip(a, lo, hi)"])
def test_in_double_precision_what_does_not_move_is_a_number_too(method: str, function: str) -> None:
    """ONNX Runtime, as it opens a graph by default, leaves out the sum with a constant that it reads as zero."""
    model = net(f"""g (double[N, 3] x) => (double[N, 2] y) <double[3, 2] w = {{1, -1, 2, 1, -1, 1}}, double lo = {{0}},
        double hi = {{9}}, double[2, 2] v = {{1, 2, 3, -1}}> {{ a = MatMul(x, w) r = {function} y = MatMul(r, v) }}""")
    x = np.array([[0.0, 0, 0], [1, 0, 1], [1, 2, 3]])
    found = run(compile_model(model, method, target=0), x)
    assert found["attribution"].dtype == np.float64
    assert np.isfinite(found["attribution"]).all()
    assert not found["attribution"][:2, 1].any()
    np.testing.assert_allclose(found["residual"], 0, atol=1e-12)
    np.testing.assert_allclose(found["attribution"].sum(1), found["explained_score"], atol=1e-12)
