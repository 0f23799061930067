"""Which models with a fixed batch take several batches at once, and that the others are computed one by one."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedModel, UsageError
from onnxplain.ir.builder import Builder
from onnxplain.passes.explain.stacking import across, mixing
from onnxplain.passes.explain.trace import trace
from onnxplain.passes.explain.twin import twin
from tests.passes.graphs import canonical
from tests.running import Array, net, run

CONSTANTS = """<float[4,4] w = {1,2,3,4, -1,0.5,2,1, 0.25,1,-2,3, 1,1,-1,2}, float[4,4,1] k = {1,2,3,4, -1,0.5,2,1,
    0.25,1,-2,3, 1,1,-1,2}, float[4,1] b = {1,2,3,4}, float[1,4,3] row = {1,2,3, 4,5,6, 7,8,9, 1,0,2},
    int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64 first = {0}, int64[2] flat = {0,-1},
    int64[1,1] at = {0}, int64[1,4,1] places = {0,1,2,0}>"""

APART = [
    "c = Conv(x, k) r = Relu(c) y = ReduceMean<keepdims=0>(r, two)",
    "t = Transpose<perm=[0,2,1]>(x) m = MatMul(t, w) s = Softmax<axis=-1>(m) y = ReduceMax<keepdims=0>(s, one)",
    "t = Transpose<perm=[2,0,1]>(x) m = MatMul(t, w) y = ReduceSum<keepdims=0>(m, zero)",
    "a = Add(x, row) p = Concat<axis=1>(a, x) f = Reshape(p, flat) y = Tanh(f)",
    "m = MatMul(w, x) t = Transpose<perm=[0,2,1]>(m) q = MatMul(t, m) y = ReduceMean<keepdims=0>(q, two)",
    'e = Einsum<equation="nct,cd->nd">(x, w) y = Tanh(e)',
    "u = Unsqueeze(x, zero) q = Squeeze(u, zero) m = ReduceL2<keepdims=1>(q, one) d = Div(q, m) y = Flatten(d)",
    "c, d = Split<axis=1, num_outputs=2>(x) m = Mul(c, d) y = Flatten(m)",
    "p = Greater(x, b) q = Where(p, x, row) g = Gather<axis=2>(q, first) y = Gemm(g, w)",
    "f = Flatten(x) c = CumSum(f, one) v, i = TopK<axis=1>(c, two) y = Tanh(v)",
]  # fmt: skip

MIXED = {
    "ReduceMax": "a = Abs(x) m = ReduceMax<keepdims=0>(a) d = Div(x, m) y = ReduceMean<keepdims=0>(d, two)",
    "ReduceMean": "m = ReduceMean<keepdims=1>(x, zero) d = Sub(x, m) e = Add(d, x) y = Flatten(e)",
    "CumSum": "c = CumSum(x, first) y = Flatten(c)",
    "Softmax": "s = Softmax<axis=0>(x) m = Mul(s, x) y = Flatten(m)",
    "ScatterND": "u = Gather(row, zero) s = ScatterND(x, at, u) m = Mul(s, x) y = Flatten(m)",
    "ScatterElements": "u = ReduceMax(x, two) v = Mul(u, u) s = ScatterElements<axis=2>(x, places, v) y = Flatten(s)",
    "MeanVarianceNormalization": "m = MeanVarianceNormalization<axes=[0,2]>(x) p = Mul(m, x) y = Flatten(p)",
    "LayerNormalization": "m = LayerNormalization<axis=0>(x, row) p = Mul(m, x) y = Flatten(p)",
    "TopK": "v, i = TopK<axis=0>(x, one) p = Mul(v, x) y = Flatten(p)",
    "Concat": "r = Mul(row, row) c = Concat<axis=1>(x, r) y = Flatten(c)",
    "Gemm": "f = Reshape(x, flat) g = Gemm<transA=1>(f, f) t = ReduceSum<keepdims=1>(g, zero) y = Tanh(t)",
    "MatMul": "s = Squeeze(x, zero) t = Transpose(s) m = MatMul(s, t) u = Unsqueeze(m, zero) y = Flatten(u)",
    "MatMul of each with each": "f = Flatten(x) t = Transpose(f) m = MatMul(f, t) s = Softmax(m) y = MatMul(s, f)",
    "Gemm over all": "f = Flatten(x) g = Gemm<transA=1>(f, f) r = Tanh(g) y = MatMul(f, r)",
    "Gemm of each with each": "f = Flatten(x) g = Gemm<transB=1>(f, f) r = Tanh(g) y = MatMul(r, f)",
    "MatMul over all": "f = Flatten(x) t = Transpose(f) m = MatMul(t, f) r = Tanh(m) y = MatMul(f, r)",
}


def model(body: str) -> str:
    return f"g (float[1,4,3] x) => (float[1,classes] y) {CONSTANTS} {{ {body} }}"


def why_not(body: str, times: int = 5) -> str | None:
    subject, _ = canonical(model(body))
    g = Builder(subject)
    x, y = g.wrap(subject.graph.inputs[0]), g.wrap(subject.graph.outputs[0])
    original = trace(g, list(subject.graph.nodes), x, y)
    with g.body():
        return mixing(g, original, twin(g, original, g.concat([x] * times, axis=0), "trial").values, times)


def explained(body: str, runtime: str, **how: object) -> Array:
    x = np.random.default_rng(0).standard_normal((1, 4, 3)).astype(np.float32)
    noise = np.random.default_rng(1).standard_normal((10, 1, 4, 3)).astype(np.float32)
    graph = compile_model(net(model(body)), "smoothgrad", samples=10, noise="input", target=0, runtime=runtime, **how)
    return run(graph, {"x": x, "noise": noise})["attribution"]


@pytest.mark.parametrize("body", APART)
def test_what_keeps_batches_apart_is_stacked(body: str) -> None:
    assert why_not(body) is None
    want = explained(body, "portable")
    for how in ({"runtime": "cuda"}, {"runtime": "portable", "chunk": 5}):
        np.testing.assert_allclose(explained(body, **how), want, rtol=1e-4, atol=1e-5 * np.abs(want).max())  # type: ignore[arg-type]


@pytest.mark.parametrize("operator", MIXED)
def test_what_may_mix_them_is_computed_one_by_one(operator: str) -> None:
    """One sample does not show it: its own row is all there is along the batch's axis."""
    body = MIXED[operator]
    want = explained(body, "portable")
    np.testing.assert_allclose(explained(body, "cuda"), want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
    with pytest.raises(UsageError, match=r"chunk=5 needs a model .*: (.* may mix them|it is fixed to)"):
        explained(body, "portable", chunk=5)


@pytest.mark.parametrize("operator", ["ReduceMax", "CumSum", "Softmax", "ScatterND", "ScatterElements", "TopK"])
def test_the_node_that_may_mix_them_is_named(operator: str) -> None:
    said = why_not(MIXED[operator])
    assert said is not None
    assert said.startswith(f"{operator} (node ")
    assert said.endswith(" may mix them")


SEEN = (
    "ReduceMax", "ReduceMean", "CumSum", "Softmax", "MeanVarianceNormalization", "LayerNormalization",
    "MatMul of each with each", "MatMul over all", "Gemm over all", "Gemm of each with each",
    "TopK",
)  # fmt: skip
"""Of these it is sure that they mix, whatever the sizes are."""


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("body", [*(MIXED[op] for op in SEEN), *APART])
def test_models_whose_samples_change_each_other_are_refused(body: str, batch: int | str) -> None:
    """Their derivatives would be those of all the scores together. With one sample there is none to change."""
    text = (
        model(body).replace("float[1,4,3] x", f"float[{batch},4,3] x").replace("float[1,classes]", "float[M,classes]")
    )
    op = next((op.split()[0] for op in SEEN if body == MIXED[op]), None)
    subject, _ = canonical(text)
    g = Builder(subject)
    source, score = g.wrap(subject.graph.inputs[0]), g.wrap(subject.graph.outputs[0])
    why = across(g, trace(g, list(subject.graph.nodes), source, score))
    if op is None:
        assert why is None
        return
    name = next(n.name for n in subject.graph.nodes if n.op == op)
    assert why == f"{op} (node {name!r})"
    with pytest.raises(UnsupportedModel) as caught:
        compile_model(net(text))
    assert str(caught.value) == (
        f"{why} works along the batch, so that one sample's scores depend on the others: none can be explained by "
        "itself.\n"
        "  Export the model with a batch of one; of several samples each is then explained alone."
    )
    compile_model(net(model(body)))
