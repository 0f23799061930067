"""Bookkeeping of relevance: what arrives at each node and what it passes on, sample by sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from onnxplain.compiler import compile_model
from onnxplain.errors import UsageError
from onnxplain.interface import Metadata
from tests.running import run

Floats = NDArray[np.float32]
Row = tuple[str, str, str]


def drawn(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def model(body: str, x: str, weights: dict[str, Floats]) -> onnx.ModelProto:
    proto = parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]> net (float[{x}] x) => (float[] y) {{ {body} }}'
    )
    proto.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in weights.items())
    for node in proto.graph.node:
        node.name = f"/{node.output[0]}"
    return proto


def explained(proto: onnx.ModelProto, x: Floats, method: str, **how: Any) -> tuple[dict[str, Row], NDArray[Any], dict]:  # type: ignore[type-arg]
    """The rows by the name of their node, their sums (N, rows, 2) in the same order, and all outputs."""
    compiled = compile_model(proto, method, diagnostics=True, **how)
    metadata = Metadata.read({e.key: e.value for e in compiled.metadata_props})
    assert metadata is not None
    assert metadata.diagnostics is not None
    results = run(compiled, x)
    return {row[0]: row for row in metadata.diagnostics}, results["diagnostics"].astype(np.float64), results


WEIGHTS = {
    "w": drawn(6, 3, 3, 3), "wb": np.zeros(6, np.float32), "v": drawn(4, 6, 3, 3), "vb": 9 * np.abs(drawn(4)),
    "m": drawn(16, 5), "mb": np.zeros(5, np.float32), "s": np.asarray([-1, 16], np.int64),
}  # fmt: skip
CHAIN = """
    a = Conv<pads = [1, 1, 1, 1]>(x, w, wb) b = Relu(a) c = Conv<strides = [2, 2]>(b, v, vb) d = Relu(c)
    e = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(d) f = Reshape(e, s) y = Gemm(f, m, mb)"""


@pytest.mark.parametrize("batch", ["N", "2"])
def test_a_chain(batch: str) -> None:
    """From the score down, each node gets what the one above passed on; only the layer with a bias keeps something."""
    x = drawn(2, 3, 9, 10, seed=1)
    rows, sums, results = explained(model(CHAIN, f"{batch}, 3, 9, 10", WEIGHTS), x, "lrp-eps", epsilon=0)
    assert list(rows.values()) == [
        ("/y", "Gemm", "epsilon 0"),
        ("/f", "Reshape", "route"),
        ("/e", "MaxPool", "winner"),
        ("/d", "Relu", "pass"),
        ("/c", "Conv", "epsilon 0"),
        ("/b", "Relu", "pass"),
        ("/a", "Conv", "epsilon 0"),
    ]
    assert sums.shape == (2, 7, 2)
    score = results["explained_score"]
    assert np.allclose(sums[:, 0, 0], score, rtol=1e-5)
    assert np.allclose(sums[:, 1:, 0], sums[:, :-1, 1], rtol=1e-5)
    assert np.allclose(sums[:, -1, 1], results["attribution"].sum(axis=(1, 2, 3)), rtol=1e-4)
    lost = np.abs(sums[..., 0] - sums[..., 1]) > 1e-4 * np.abs(score)[:, None]
    assert lost.tolist() == [[name == "/c" for name in rows]] * 2
    assert np.allclose(results["residual"], (sums[..., 0] - sums[..., 1]).sum(axis=1), rtol=2e-5)


def test_branches_add_up() -> None:
    """Around a sum, what its operands get is what it passes on; the losses of all nodes are the residual."""
    body = """
        a = Conv<pads = [1, 1, 1, 1]>(x, w, wb) b = Relu(a) c = Conv<pads = [1, 1, 1, 1]>(b, u, ub) d = Add(b, c)
        e = Relu(d) g = GlobalAveragePool(e) f = Flatten(g) y = Gemm(f, n, nb)"""
    weights = WEIGHTS | {"u": drawn(6, 6, 3, 3), "ub": drawn(6), "n": drawn(6, 4), "nb": drawn(4)}
    rows, sums, results = explained(model(body, "N, 3, 6, 6", weights), drawn(3, 3, 6, 6, seed=2), "lrp-zplus")
    at = {name: k for k, name in enumerate(rows)}
    arrived, passed = sums[..., 0], sums[..., 1]
    assert np.allclose(passed[:, at["/d"]], arrived[:, at["/d"]], rtol=1e-4)
    assert np.allclose(
        arrived[:, at["/b"]], passed[:, at["/d"]] - arrived[:, at["/c"]] + passed[:, at["/c"]], rtol=1e-4
    )
    score = results["explained_score"]
    total = score - (arrived - passed).sum(axis=1)
    assert np.abs(total - results["attribution"].sum(axis=(1, 2, 3))).max() <= 1e-5 * np.abs(score).max()
    assert np.abs(results["residual"] - (score - total)).max() <= 1e-5 * np.abs(score).max()


def test_samples_that_do_not_lie_in_front() -> None:
    """A sequence turned to (T, N, C) and folded to (N heads, T, C) is summed sample by sample all the same."""
    body = """
        a = Transpose<perm = [1, 0, 2]>(x) b = MatMul(a, p) c = Transpose<perm = [1, 0, 2]>(b)
        d = Reshape(c, heads) e = Transpose<perm = [0, 2, 1, 3]>(d) f = Reshape(e, beside) g = Relu(f)
        h = Reshape(g, whole) y = MatMul(h, q)"""
    weights = {
        "p": drawn(4, 6), "q": drawn(18, 5), "heads": np.asarray([0, 3, 2, 3], np.int64),
        "beside": np.asarray([-1, 3, 3], np.int64), "whole": np.asarray([-1, 18], np.int64),
    }  # fmt: skip
    x = drawn(4, 3, 4, seed=3)
    proto = model(body, "N, 3, 4", weights)
    rows, sums, results = explained(proto, x, "lrp-0", layout="channels-last")
    assert sums.shape == (4, len(rows), 2)
    assert np.allclose(sums, results["explained_score"][:, None, None], rtol=2e-5)
    alone = np.concatenate([explained(proto, x[n : n + 1], "lrp-0", layout="channels-last")[1] for n in range(4)])
    assert np.allclose(sums, alone, rtol=1e-4)


@pytest.mark.parametrize("how", [{"method": "lrp-eps,lrp-gamma"}, {"method": "gradient"},
                                 {"method": "lrp-eps", "target": "topk:2"}])  # fmt: skip
def test_diagnostics_of_what_is_not_one_walk_of_relevance(how: dict[str, str]) -> None:
    with pytest.raises(UsageError) as error:
        compile_model(model(CHAIN, "N, 3, 9, 10", WEIGHTS), diagnostics=True, **how)
    assert str(error.value) == (
        "diagnostics are for one method that propagates relevance, and one class.\n"
        "  Such are lrp-*, excitation-backprop and deep-taylor*."
    )
