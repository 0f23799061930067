"""Products of two tensors that both depend on the input: who is the signal, and what becomes of its relevance."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxplain.rules.composite import Composite
from onnxplain.rules.lrp.composites import Options, base
from tests.rules.lrp.plain import Flow, shared
from tests.rules.lrp.small import output, relevance, small

Floats = NDArray[np.float64]
SHAPE = (2, 4, 3, 3)
WEIGHTS = {
    "half": np.asarray(0.5), "one": np.asarray(1.0), "three": np.asarray(3.0), "six": np.asarray(6.0),
    "zero": np.asarray(0.0), "root": np.asarray(2**0.5), "cube": np.asarray(0.044715), "p": np.asarray(3.0),
    "a": np.asarray(0.7978845608), "two": np.asarray(2.0), "k": np.linspace(0.5, 2, 4).reshape(1, 4, 1, 1),
    "tiny": np.asarray(1e-5),
}  # fmt: skip

SIGNAL_TAKES_ALL = {
    "SiLU": "s = Sigmoid(x) y = Mul(x, s)",
    "SiLU, the gate first": "s = Sigmoid(x) y = Mul(s, x)",
    "Mish": "s = Softplus(x) t = Tanh(s) y = Mul(x, t)",
    "HardSwish by HardSigmoid": "s = HardSigmoid<alpha = 0.1666667>(x) y = Mul(x, s)",
    "HardSwish by Clip, divided last": "s = Add(x, three) t = Clip(s, zero, six) u = Mul(x, t) y = Div(u, six)",
    "HardSwish by Clip, divided first": "s = Add(x, three) t = Clip(s, zero, six) u = Div(t, six) y = Mul(x, u)",
    "GELU by Erf": "s = Div(x, root) t = Erf(s) u = Add(t, one) v = Mul(x, u) y = Mul(v, half)",
    "GELU by Erf, halved first": "h = Mul(x, half) s = Div(x, root) t = Erf(s) u = Add(one, t) y = Mul(h, u)",
    "GELU by Tanh": """
        h = Mul(half, x) c = Pow(x, p) d = Mul(cube, c) e = Add(x, d) f = Mul(a, e) t = Tanh(f) u = Add(one, t)
        y = Mul(h, u)""",
    "squeeze and excitation": "m = GlobalAveragePool(x) w = Mul(m, k) s = Sigmoid(w) y = Mul(x, s)",
    "squeeze and excitation behind a scale": "b = Mul(x, k) m = GlobalAveragePool(b) s = Sigmoid(m) y = Mul(b, s)",
    "over its own norm": "n = ReduceL2<keepdims = 1>(x) y = Div(x, n)",
    "a square": "y = Mul(x, x)",
    "a square of scaled versions": "h = Mul(half, x) t = Mul(two, x) y = Mul(h, t)",
}


def arrives_as(body: str, want_of: Flow, *, share: bool = False) -> None:
    x = np.random.default_rng(0).standard_normal(SHAPE)
    model = small(body, SHAPE, WEIGHTS, np.float64)
    r = np.random.default_rng(1).standard_normal(SHAPE) * output(model, x)
    have = relevance(model, x, r, Composite("shared", base(Options(share_gate=share))))
    want = want_of(x, r)
    assert np.linalg.norm(have - want) <= 1e-10 * np.linalg.norm(want)


@pytest.mark.parametrize("body", SIGNAL_TAKES_ALL.values(), ids=SIGNAL_TAKES_ALL)
def test_the_signal_takes_all(body: str) -> None:
    arrives_as(body, lambda x, r: r)


def test_a_sigmoid_of_something_else_is_a_gate() -> None:
    """As in gated linear units and in the cells of an LSTM."""
    body = """<int64[2] parts = {2, 2}>
        u, v = Split<axis = 1>(x, parts) s = Sigmoid(v) w = Mul(u, s) y = Concat<axis = 1>(w, w)"""

    def want(x: Floats, r: Floats) -> Floats:
        flow = r[:, :2] + r[:, 2:]
        return np.concatenate([flow, np.zeros_like(flow)], axis=1)

    arrives_as(" ".join(body.split()), want)


def test_unrelated_factors_take_half_each() -> None:
    body = "<int64[2] parts = {2, 2}> u, v = Split<axis = 1>(x, parts) w = Mul(u, v) y = Concat<axis = 1>(w, w)"
    arrives_as(body, lambda x, r: np.tile(0.5 * (r[:, :2] + r[:, 2:]), (1, 2, 1, 1)))


def test_a_quotient_of_unrelated_tensors_is_halved() -> None:
    body = "<int64[2] parts = {2, 2}> u, v = Split<axis = 1>(x, parts) w = Div(u, v) y = Concat<axis = 1>(w, w)"
    arrives_as(body, lambda x, r: np.tile(0.5 * (r[:, :2] + r[:, 2:]), (1, 2, 1, 1)))


def test_on_request_the_gate_takes_half() -> None:
    """And passes it to the channel mean, in proportion."""

    def want(x: Floats, r: Floats) -> Floats:
        return 0.5 * r + _of_mean(x, 0.5 * r.sum(axis=(2, 3), keepdims=True))

    arrives_as("m = GlobalAveragePool(x) s = Sigmoid(m) y = Mul(x, s)", want, share=True)


def _of_mean(x: Floats, r: Floats, axes: int | tuple[int, ...] = (2, 3)) -> Floats:
    """Relevance of a mean, among its elements in proportion."""
    mean = x.mean(axis=axes, keepdims=True)
    return x / (x.size / mean.size) / (mean + np.copysign(1e-6, mean)) * r


NORMS = {
    "its own deviation": """<int64[1] last = {3}>
        m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last) e = Add(v, tiny) s = Sqrt(e)
        y = Div(d, s)""",
    "the deviation from squares of x": """<int64[1] last = {3}>
        m = ReduceMean(x, last) d = Sub(x, m) q = Mul(x, x) w = ReduceMean(q, last) n = Mul(m, m) v = Sub(w, n)
        e = Add(v, tiny) s = Sqrt(e) y = Div(d, s)""",
    "a reciprocal": """<int64[1] last = {3}>
        m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last) e = Add(v, tiny) s = Sqrt(e)
        i = Reciprocal(s) y = Mul(d, i)""",
}


@pytest.mark.parametrize("body", NORMS.values(), ids=NORMS)
def test_a_layer_norm_in_parts_is_a_centring_and_a_gate(body: str) -> None:
    """The division passes everything to what is divided; x and its mean share in proportion."""

    def want(x: Floats, r: Floats) -> Floats:
        mean = x.mean(axis=3, keepdims=True)
        of_x, of_mean = shared(x, -np.broadcast_to(mean, x.shape), r=r)
        return of_x + _of_mean(x, of_mean.sum(axis=3, keepdims=True), axes=3)

    arrives_as(" ".join(body.split()), want)
