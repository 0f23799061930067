"""A shortcut that a matrix product adds is a sum of two signals."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.passes.canonical.dense import SplitGemm
from tests.passes.graphs import assert_unchanged, operators, refusals, typed
from tests.running import explained, net

WEIGHTS = "float[4,4] w = {1, -2, 3, 1, 2, 2, -1, 0, 1, 1, -3, 2, 0.5, 1, 2, -1}, float[4] b = {1, -1, 2, 0.5}"


@pytest.mark.parametrize(("call", "becomes"), [
    ("Gemm(r, w, x)", ["Relu", "Gemm", "Add"]),
    ("Gemm<alpha = 0.5, beta = 2.0, transB = 1>(r, w, x)", ["Relu", "Gemm", "Mul", "Add"]),
    ("Gemm(r, w, b)", ["Relu", "Gemm"]),
    ("Gemm(r, w)", ["Relu", "Gemm"]),
])  # fmt: skip
def test_what_is_split(call: str, becomes: list[str]) -> None:
    text = f"g (float[N,4] x) => (float[N,4] y) <{WEIGHTS}> {{ r = Relu(x) y = {call} }}"
    model = typed(text)
    assert refusals(model, SplitGemm())[0] == (len(becomes) > 2)
    assert operators(model) == becomes
    assert_unchanged(model, text, [(1, 4), (3, 4)])


@pytest.mark.parametrize("method", ["lrp-eps", "lrp-zplus", "lrp-gamma", "lrp-alphabeta", "lrp-epsilon-plus"])
def test_relevance_is_that_of_a_product_and_a_sum(method: str) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    texts = ["y = Gemm<beta = 0.5>(r, w, x)", "half = Constant<value_float = 0.5>() c = Mul(x, half) "
             "p = Gemm(r, w) y = Add(p, c)"]  # fmt: skip
    one, other = (
        explained(net(f"g (float[N,4] x) => (float[N,4] y) <{WEIGHTS}> {{ r = Relu(x) {text} }}"), x, method)
        for text in texts
    )
    assert np.abs(one["attribution"]).max() > 0.1
    np.testing.assert_allclose(one["attribution"], other["attribution"], rtol=1e-5, atol=1e-6)
