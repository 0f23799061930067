"""ReLU by other names: what methods make of it is what they make of a Relu."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.compiler import compile_model
from tests.passes.graphs import canonical
from tests.running import net, run

X = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)

NAMES = [
    "r = Max(c, zero)",
    "r = Max(zeros, c)",
    "r = LeakyRelu<alpha = 0.0>(c)",
    "r = PRelu(c, zeros)",
]
OTHERS = [
    "r = Max(c, one)",
    "r = Min(c, zero)",
    "r = LeakyRelu<alpha = 0.25>(c)",
    "r = LeakyRelu(c)",
    "r = PRelu(c, ones)",
    "r = ThresholdedRelu<alpha = 0.5>(c)",
    "r = ThresholdedRelu(c)",
    "r = ThresholdedRelu<alpha = 0.0>(c)",
    "p = Greater(c, zero) r = Where(p, c, zero)",
    "p = Greater(c, zero) m = Cast<to = 1>(p) r = Mul(c, m)",
]


def model(rectified: str) -> str:
    return f"""g (float[N,3,4,4] x) => (float[N,3] y) <float[3,3,1,1] w = {{1,-2,3, -1,2,1, 0.5,1,-1}},
        float zero = {{0}}, float one = {{1}}, float[3,1,1] zeros = {{0,0,0}}, float[3,1,1] ones = {{1,0,1}}> {{
        c = Conv(x, w) {rectified} d = Conv(r, w) e = Relu(d) q = GlobalAveragePool(e) y = Flatten(q) }}"""


def rectifiers(rectified: str) -> int:
    subject, _ = canonical(model(rectified))
    return sum(node.op == "Relu" for node in subject.graph.nodes)


@pytest.mark.parametrize("method", ["guided-backprop", "deconvnet", "lrp-epsilon-plus", "deeplift"])
@pytest.mark.parametrize("rectified", NAMES)
def test_every_method_knows_a_relu(rectified: str, method: str) -> None:
    assert rectifiers(rectified) == 2
    found, want = (run(compile_model(net(model(each)), method), X) for each in (rectified, "r = Relu(c)"))
    np.testing.assert_array_equal(found["y"], want["y"])
    np.testing.assert_array_equal(found["attribution"], want["attribution"])


@pytest.mark.parametrize("rectified", OTHERS)
def test_what_is_none_stays(rectified: str) -> None:
    assert rectifiers(rectified) == 1


def test_what_grows_by_it_stays() -> None:
    """Max with a larger tensor of zeros repeats its operand."""
    subject, _ = canonical(
        """g (float[N,1,4,4] x) => (float[N,3] y) <float[3,1,1] zeros = {0,0,0}> {
        r = Max(x, zeros) p = GlobalAveragePool(r) y = Flatten(p) }"""
    )
    assert "Max" in {node.op for node in subject.graph.nodes}
