"""Mean slopes where no quotient is to be had: at kinks, where both points are one, in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rules.test_deeplift import explain
from tests.running import net

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
