"""The start of a walk takes one row of the last weights, and means of repeats are what was repeated."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx import ModelProto

from onnxplain.compiler import compile_model
from tests.running import net, run

DENSE = """g (float[N,6] x) => (float[N,5] y)
    <float[6,5] w = {{{w}}}, float[5,6] v = {{{w}}}, float[5] b = {{1,2,3,4,5}}> {{
    h = Tanh(x) y = {head} }}"""
HEADS = ["MatMul(h, w)", "Gemm(h, w, b)", "Gemm<transB = 1, alpha = 0.5>(h, v, b)"]
POOLED = """g (float[N,3,4,4] x) => (float[N,2] y) <float[2,3,1,1] k = {1,-2,3,2,1,-1}, float[2,2] w = {1,2,-3,4}> {
    c = Conv(x, k) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, w) }"""


def classifier(head: str) -> ModelProto:
    w = ",".join(f"{v:.3f}" for v in np.random.default_rng(0).standard_normal(30))
    return net(DENSE.format(w=w, head=head))


def operators(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("target", ["top1", "3", "input"])
def test_the_row_of_the_class_is_picked_and_not_multiplied(head: str, target: str) -> None:
    x = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)
    classes = np.array([0, 4, 2, 2])
    model = compile_model(classifier(head), "gradient", target=target)
    assert operators(model)["Gemm"] + operators(model)["MatMul"] == 1, "the forward pass's own"
    results = run(model, {"x": x, "target": classes} if target == "input" else x)
    chosen = {"top1": results["y"].argmax(1), "3": np.full(4, 3), "input": classes}[target]
    w = np.random.default_rng(0).standard_normal(30).round(3)
    rows = 0.5 * w.reshape(5, 6) if "transB" in head else w.reshape(6, 5).T
    want = rows[chosen] * (1 - np.tanh(x.astype(np.float64)) ** 2)
    np.testing.assert_allclose(results["attribution"], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_a_row_that_was_divided_keeps_its_number(head: str) -> None:
    x = np.random.default_rng(2).standard_normal((4, 6)).astype(np.float32)
    model = compile_model(classifier(head), "lrp-0", target="1")
    assert operators(model)["Gemm"] + operators(model)["MatMul"] == 1
    results = run(model, x)
    w = np.random.default_rng(0).standard_normal(30).round(3)
    row = 0.5 * w.reshape(5, 6)[1] if "transB" in head else w.reshape(6, 5).T[1]
    contributions = np.tanh(x.astype(np.float64)) * row
    score = contributions.sum(1) + (2 if "b)" in head else 0)
    np.testing.assert_allclose(results["y"][:, 1], score, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(results["attribution"], contributions, rtol=1e-4, atol=1e-5)


def test_grad_cam_behind_a_global_pool_repeats_nothing() -> None:
    model = compile_model(net(POOLED), "grad-cam", target="0")
    assert not operators(model)["Expand"]
    assert not operators(model)["ReduceMean"]
    x = np.random.default_rng(3).standard_normal((2, 3, 4, 4)).astype(np.float32)
    maps = np.maximum(np.einsum("nchw,kc->nkhw", x, [[1, -2, 3], [2, 1, -1]]), 0)
    want = np.maximum((maps * np.array([1.0, -3.0])[:, None, None] / 16).sum(1), 0)
    np.testing.assert_allclose(run(model, x)["attribution"], want, rtol=1e-5, atol=1e-6)
