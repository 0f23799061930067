"""A model's own nodes may look like what the compiler emits. Lowering leaves them as they are, and explains them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from onnx import ModelProto

from onnxplain.compiler import compile_model
from tests.running import Array, net, run

RUNTIMES = ("portable", "cpu", "cuda")
ROW = np.array([[0.3, -1.2, 0.7, 0.1], [-0.4, 0.5, 1.5, -0.9]], np.float32)
PICTURE = np.random.default_rng(5).standard_normal((2, 3, 4, 4)).astype(np.float32)
DENSE = "float[4,3] w = {1,2,-3, 0.5,1,2, -1,0.25,3, 2,-2,1}"
OFFSETS = "int64[2,3,1] off = {0,16,32, 48,64,80}"
POINTS = "float[3,3,1,1] k = {1,2,-3, 0.5,1,2, -1,0.25,3}"
PLANES = "int64[3] planes = {0,0,-1}"


@dataclass(frozen=True)
class Lookalike:
    """A classifier whose own nodes one of the passes would take, and what it is run on."""

    text: str
    x: Array
    others: Mapping[str, Array] = field(default_factory=dict)

    @property
    def model(self) -> ModelProto:
        model = net(self.text)
        for i, node in enumerate(model.graph.node):
            node.name = f"own/{i}"
        return model

    @property
    def feeds(self) -> dict[str, Array]:
        return {"x": self.x, **self.others}


def labelled(*labels: int) -> Lookalike:
    """Conditional on a label: a row of zeros where there is no such label."""
    return Lookalike(f"""
        g (float[N,4] x, int64[N] label) => (float[N,3] y)
        <{DENSE}, float[3,3] e = {{1,2,3, 4,5,6, 7,8,9}}, int64[3] all = {{0,1,2}}, int64[1] one = {{1}}> {{
            h = MatMul(x, w)  l = Unsqueeze(label, one)  q = Equal(l, all)  c = Cast<to=1>(q)
            r = Gemm(c, e)  t = Tanh(h)  y = Add(t, r) }}
    """, ROW, {"label": np.array(labels)})  # fmt: skip


LOOKALIKES = {
    "a label below zero": labelled(1, -1),
    "a label beyond the last": labelled(7, 2),
    "what is put into a picture at a pool's winners": Lookalike(f"""
        g (float[N,3,4,4] x) => (float[N,3] y) <{POINTS}, int64[1] flat = {{-1}}> {{
            p, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)  h = Tanh(p)  c = Conv(x, k)
            a = Reshape(c, flat)  b = Reshape(i, flat)  u = Reshape(h, flat)
            s = ScatterElements<axis=0>(a, b, u)  sh = Shape(c)  r = Reshape(s, sh)
            q = Mul(r, r)  m = GlobalAveragePool(q)  y = Flatten(m) }}
    """, PICTURE),
    "what is read plane by plane at a pool's winners": Lookalike(f"""
        g (float[2,3,4,4] x) => (float[2,3] y) <{POINTS}, {PLANES}, {OFFSETS}, int64[1] last = {{2}}> {{
            p, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)  a = Reshape(i, planes)  b = Sub(a, off)
            c = Conv(x, k)  f = Reshape(c, planes)  s = GatherElements<axis=2>(f, b)  q = Mul(s, s)
            y = ReduceMean<keepdims=0>(q, last) }}
    """, PICTURE),
    "what is read one before a pool's winners": Lookalike(f"""
        g (float[2,3,4,4] x) => (float[2,3] y)
        <{POINTS}, int64[1] flat = {{-1}}, int64[1] one = {{1}}, int64[3] planes = {{2,3,-1}}, int64[1] last = {{2}}> {{
            p, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)  a = Reshape(i, flat)  b = Sub(a, one)
            c = Conv(x, k)  f = Reshape(c, flat)  s = GatherElements<axis=0>(f, b)  q = Mul(s, s)
            r = Reshape(q, planes)  y = ReduceMean<keepdims=0>(r, last) }}
    """, PICTURE),
    "a transposed convolution that says how large its output is": Lookalike(f"""
        g (float[N,3,H,W] x) => (float[N,3] y, float[N,2,U,V] z) <{POINTS}, float[3,2,2,2] t = {{{",".join("123")},
            4,-5,6,7,8, 9,1,-2,3, 4,5,6,-7, 1,1,2,3, 5,8,1,3}}> {{
            c = Conv(x, k)  z = ConvTranspose<output_shape=[3,3]>(c, t)
            h = Tanh(c)  m = GlobalAveragePool(h)  y = Flatten(m) }}
    """, PICTURE),
    "a sum of transposed convolutions that repeats one": Lookalike(f"""
        g (float[2,3,4,4] x, float[1,3,4,4] v) => (float[2,3] y) <{POINTS}> {{
            a = ConvTranspose<strides=[2,2]>(x, k)  b = ConvTranspose<strides=[2,2]>(v, k)
            s = Add(a, b)  h = Tanh(s)  m = GlobalAveragePool(h)  y = Flatten(m) }}
    """, PICTURE, {"v": PICTURE[:1] + 1}),
    "a mean over dilated windows as far apart as they are wide": Lookalike(f"""
        g (float[N,3,4,4] x) => (float[N,3] y) <{POINTS}> {{
            c = Conv(x, k)  h = Tanh(c)  p = AveragePool<kernel_shape=[2,2], strides=[2,2], dilations=[2,2]>(h)
            m = GlobalAveragePool(p)  y = Flatten(m) }}
    """, PICTURE),
    "the larger of a number and its square": Lookalike(f"""
        g (float[N,4] x) => (float[N,3] y) <{DENSE}> {{ q = Mul(x, x)  m = Max(x, q)  y = MatMul(m, w) }}
    """, ROW),
    "a product of numbers from outside": Lookalike(f"""
        g (float[N,4] x, int64[N,2] n) => (float[N,3] y) <{DENSE}, int64[1] last = {{1}}> {{
            p = ReduceProd<keepdims=0>(n, last)  c = Cast<to=1>(p)  u = Unsqueeze(c, last)
            h = MatMul(x, w)  y = Mul(h, u) }}
    """, ROW, {"n": np.array([[2, 3], [4, -5]])}),
    "choices by what is not a number": Lookalike(f"""
        g (float[N,4] x, float[3] v) => (float[N,3] y, float[3] z, float[3] s, float[3] p)
        <{DENSE}, float o = {{0}}, float a = {{1}}> {{
            b = Greater(v, o)  z = Where(b, a, o)  c = Cast<to=1>(b)  s = Sign(v)  p = Mul(v, c)
            h = MatMul(x, w)  y = Tanh(h) }}
    """, ROW, {"v": np.array([np.nan, -np.inf, np.inf], np.float32)}),
    "a LeakyRelu and a ReLU6 in parts": Lookalike(f"""
        g (float[N,4] x) => (float[N,3] y) <{DENSE}, float c = {{0.1}}, float o = {{0}}, float six = {{6}}> {{
            h = MatMul(x, w)  m = Mul(h, c)  l = Max(h, m)
            b = Greater(l, o)  d = Less(l, six)  e = And(b, d)  f = Cast<to=1>(e)  y = Mul(l, f) }}
    """, ROW),
}  # fmt: skip


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", LOOKALIKES)
def test_they_stay(name: str, runtime: str) -> None:
    """The same outputs, from nodes of the same names."""
    case = LOOKALIKES[name]
    compiled = compile_model(case.model, "gradient", runtime=runtime, input="x", output="y")
    found, want = run(compiled, case.feeds), run(case.model, case.feeds)
    for output, value in want.items():
        np.testing.assert_array_equal(found[output], value, output)
    own = {n.name for n in case.model.graph.node if n.op_type != "Shape"}  # known sizes are no nodes
    assert own <= {n.name for n in compiled.graph.node}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", LOOKALIKES)
def test_they_are_explained(name: str, runtime: str) -> None:
    """The gradient is the slope along some direction; Integrated Gradients with one step are the gradient halfway."""
    case = LOOKALIKES[name]
    compiled = compile_model(
        case.model, "gradient,integrated-gradients", runtime=runtime, input="x", output="y", target=1, steps=1
    )
    found = run(compiled, case.feeds)
    direction = np.random.default_rng(6).standard_normal(case.x.shape).astype(np.float32)
    for attribution, at in (
        (found["attribution_gradient"], case.x),
        (found["attribution_integrated-gradients"] / case.x, case.x / 2),
    ):
        ahead, behind = (run(case.model, case.feeds | {"x": at + s * direction})["y"][:, 1] for s in (1e-3, -1e-3))
        slope = (ahead - behind) / 2e-3
        along = (attribution * direction).reshape(len(at), -1).sum(1)
        np.testing.assert_allclose(along, slope, rtol=5e-3, atol=5e-3 * np.abs(slope).max())
