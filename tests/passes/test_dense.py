"""A matrix product of a stack and its bias as one layer, which rules of signs need."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnxplain.compiler import compile_model
from onnxplain.ir.load import load
from onnxplain.ir.save import to_proto
from onnxplain.passes.canonical import canonicalise
from onnxplain.passes.canonical.dense import JoinBias
from tests.rules.lrp import dense
from tests.rules.lrp.dense import Dense
from tests.rules.lrp.small import small
from tests.running import run

Floats = NDArray[np.float64]


def drawn(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32).astype(np.float64)


W = {"w": drawn(4, 5), "b": drawn(5), "row": drawn(1, 1, 5), "place": drawn(3, 5), "left": drawn(3, 3)}
NET = """<int64[2] flat = {-1, 15}>
    a = MatMul(x, w) c = Add(a, b) h = Relu(c) f = Reshape(h, flat) y = MatMul(f, v)"""


def joined(proto: onnx.ModelProto) -> tuple[list[str], list[str], onnx.ModelProto]:
    """The operators afterwards, why it was declined, and the result."""
    subject, _ = canonicalise(load(proto))
    report = JoinBias().run(subject)
    return [n.op for n in subject.graph.nodes], [r.why for r in report.refusals], to_proto(subject)


@pytest.mark.parametrize("body", ["a = MatMul(x, w) y = Add(a, b)", "a = MatMul(x, w) y = Add(b, a)",
                                  "a = MatMul(x, w) y = Add(a, row)"])  # fmt: skip
@pytest.mark.parametrize("batch", [2, "N"])
def test_one_layer_that_computes_the_same(body: str, batch: int | str) -> None:
    proto = small(body, (2, 3, 4), W)
    if isinstance(batch, str):
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = batch
    operators, declined, after = joined(proto)
    assert operators == ["Reshape", "Gemm", "Reshape"]
    assert not declined
    x = drawn(2, 3, 4, seed=1).astype(np.float32)
    want = run(proto, x)["y"]
    assert np.abs(run(after, x)["y"] - want).max() <= 1e-6 * np.abs(want).max()


@pytest.mark.parametrize(("body", "declined"), [
    ("a = MatMul(x, w) y = Add(a, place)", []),  # one for each place: a position embedding
    ("a = MatMul(left, x) y = Relu(a)", []),
    ("a = MatMul(x, w) c = Add(a, b) y = Add(a, c)", ["'a' is read elsewhere too"]),
])  # fmt: skip
def test_what_is_no_such_layer_stays(body: str, declined: list[str]) -> None:
    operators, why, _ = joined(small(body, (2, 3, 4), W))
    assert "Gemm" not in operators
    assert why == declined


def test_unknown_sizes_are_declined() -> None:
    proto = small("a = MatMul(x, w) y = Add(a, b)", (2, 3, 4), W)
    for axis, name in enumerate(("N", "T")):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    operators, why, _ = joined(proto)
    assert operators == ["MatMul", "Add"]
    assert why == ["more than one size of the stack is known only at run time"]


@pytest.mark.parametrize(("method", "rule"), [
    ("lrp-zplus", dense.alpha_beta(1, 0, 1e-6)),
    ("lrp-gamma", dense.gamma(0.25, 1e-6)),
    ("lrp-alphabeta", dense.alpha_beta(2, 1, 1e-6)),
    ("lrp-eps", dense.epsilon(1e-6)),
])  # fmt: skip
def test_its_bias_takes_part_by_its_sign(method: str, rule: dense.Rule) -> None:
    """A dense layer on each of three places, and one on all of them, by hand."""
    v = drawn(15, 2)
    proto = small(" ".join(NET.split()), (2, 3, 4), {"w": W["w"], "b": W["b"], "v": v})
    x = 2 * drawn(2, 3, 4, seed=6)
    have = run(compile_model(proto, method), x.astype(np.float32))["attribution"]
    want = np.zeros_like(x)
    nothing = np.zeros(1)
    for n in range(2):
        layers = [Dense(W["w"].T, W["b"], x[n, t], nothing, nothing) for t in range(3)]
        head = Dense(v.T, np.zeros(2), np.maximum(np.concatenate([d.y for d in layers]), 0), nothing, nothing)
        relevance = rule(head, np.where(head.y == head.y.max(), head.y, 0)).reshape(3, 5)
        want[n] = [rule(layers[t], relevance[t]) for t in range(3)]
    assert np.linalg.norm(have - want) <= 1e-5 * np.linalg.norm(want)
