"""Where samples lie: each sample's own numbers, whatever else is in the batch and wherever the batch is."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedOp
from tests.passes.graphs import seeded
from tests.running import net, run

TURN = "Transpose<perm = [1, 0, 2]>"
CHAIN = "m = MatMul({x}, w) p = Relu(m) q = MatMul(p, v) r = Relu(q)"
FORMS = {
    "samples first": CHAIN.format(x="x") + " e = Identity(r)",
    "rows first": f"t = {TURN}(x) {CHAIN.format(x='t')} e = {TURN}(r)",
    "rows beside each other": f"t = Reshape(x, flat) {CHAIN.format(x='t')} e = Reshape(r, apart)",
    "rows first, side by side": f"n = {TURN}(x) t = Reshape(n, flat) {CHAIN.format(x='t')} s = Reshape(r, four) "
    f"e = {TURN}(s)",
    "samples last": """t = Transpose<perm = [1, 2, 0]>(x) m = MatMul(wt, t) p = Relu(m) q = MatMul(vt, p) r = Relu(q)
        e = Transpose<perm = [2, 0, 1]>(r)""",
    "Einsum": """m = Einsum<equation = "ntd,dk->tnk">(x, w) p = Relu(m) q = Einsum<equation = "kl,tnk->ltn">(v, p)
        r = Relu(q) e = Transpose<perm = [2, 1, 0]>(r)""",
    "turned by Gemm": """t = Reshape(x, flat) o = Transpose(t) m = Gemm<transA = 1>(o, w) p = Relu(m)
        q = Gemm<transA = 1, transB = 1>(v, p) k = Relu(q) r = Transpose(k) e = Reshape(r, apart)""",
}


def numbers(*shape: int, seed: int) -> str:
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return ", ".join(f"{value:.4f}" for value in drawn.ravel())


def text(body: str, batch: str) -> str:
    w, v, u = (np.random.default_rng(seed).standard_normal((5, 5)) for seed in (1, 2, 3))
    given = {"w": w, "wt": w.T, "v": v, "vt": v.T, "u": u}
    stored = ", ".join(f"float[5,5] {k} = {{{', '.join(f'{n:.4f}' for n in a.ravel())}}}" for k, a in given.items())
    return f"""g (float[{batch},4,5] x) => (float[{batch},5] y)
        <{stored}, int64[2] flat = {{-1, 5}}, int64[3] apart = {{-1, 4, 5}}, int64[3] four = {{4, -1, 5}},
         int64[1] front = {{0}}, int64[1] second = {{1}}>
        {{ {body} z = ReduceMean<keepdims = 0>(e, second) y = MatMul(z, u) }}"""


def relevance(body: str, batch: str, x: np.ndarray, rows: str = "4") -> np.ndarray:
    model = net(text(body, batch).replace(f"float[{batch},4,5]", f"float[{batch},{rows},5]"))
    compiled = compile_model(model, "lrp-composite", target=1, low=-60, high=60, layout="channels-last")
    return np.asarray(run(compiled, x)["attribution"])


X = seeded(3, 4, 5) * np.array([1, 10, 0.1], np.float32).reshape(3, 1, 1)


@pytest.mark.parametrize("batch", ["N", "3"])
@pytest.mark.parametrize("form", FORMS)
def test_epsilon_is_of_each_sample(form: str, batch: str) -> None:
    """The middle layer's epsilon goes by its root mean square: that of the sample alone, and of all its rows."""
    together = relevance(FORMS[form], batch, X)
    assert np.isfinite(together).all()
    for n in range(3):
        alone = relevance(FORMS["samples first"], "1", X[n : n + 1])
        np.testing.assert_allclose(together[n : n + 1], alone, rtol=1e-4, atol=1e-5 * np.abs(alone).max())


def test_rows_of_any_number() -> None:
    """How many of them are a sample's is known only at run time."""
    body = f"""f = Reshape(x, flat) h = Unsqueeze(f, second) t = {TURN}(h) {CHAIN.format(x="t")} k = Squeeze(r, front)
        s = Shape(x) e = Reshape(k, s)"""
    found = relevance(body, "N", X, rows="T")
    for n in range(3):
        alone = relevance(FORMS["samples first"], "1", X[n : n + 1])
        np.testing.assert_allclose(found[n : n + 1], alone, rtol=1e-4, atol=1e-5 * np.abs(alone).max())


@pytest.mark.parametrize("form", FORMS)
def test_one_sample_is_all_there_is(form: str) -> None:
    np.testing.assert_allclose(
        relevance(FORMS[form], "1", X[:1]), relevance(FORMS["samples first"], "1", X[:1]), rtol=1e-4, atol=1e-6
    )


def test_samples_that_cannot_be_told_apart_are_refused() -> None:
    """Where the batch is there twice over, nothing says which rows are whose."""
    body = (
        "t = Concat<axis = 0>(x, x) "
        + CHAIN.format(x="t")
        + " a, b = Split<axis = 0, num_outputs = 2>(r) e = Add(a, b)"
    )
    with pytest.raises(UnsupportedOp) as error:
        relevance(body, "3", X)
    assert str(error.value) == (
        "the epsilon rule with a share of each sample's root mean square cannot take 'MatMul' (node 'q'): where the "
        "samples of a batch lie in its output 'q' of shape (6, 4, 5) cannot be told.\n"
        "  Export the model for one sample at a time, or choose another method, such as lrp-epsilon-gamma-box."
    )
    assert np.isfinite(relevance(body, "1", X[:1])).all()
