"""float16, mixed, bfloat16 and double: the model computes as before, what explains it in single precision at least."""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from onnxplain import compile_model
from onnxplain.errors import UnsupportedModel
from tests.oracle import gradient
from tests.precision.networks import NETWORKS, exported, pictures
from tests.running import Array, assert_near, explained, exposing, kinks, net, relative_error, run

METHODS = (
    "gradient",
    "guided-backprop",
    "integrated-gradients",
    "smoothgrad",
    "grad-cam",
    "fem",
    "lrp-eps",
    "lrp-epsilon-plus",
    "lrp-epsilon-alpha2-beta1",
    "deeplift-rescale",
)
SHARING = ("integrated-gradients", "lrp-epsilon-plus", "deeplift-rescale")
X = pictures(4)
ROUNDING = 2.0**-11
"""Half precision's: of every weight, input and activation."""


@cache
def half(name: str, mixed: bool) -> onnx.ModelProto:
    """mixed: float32 at the inputs and outputs."""
    model: onnx.ModelProto = convert_float_to_float16(exported(name), keep_io_types=mixed)
    return model


def given(mixed: bool) -> Array:
    return X if mixed else X.astype(np.float16)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_runs_and_returns_single_precision(name: str, method: str, mixed: bool) -> None:
    model, x = half(name, mixed), given(mixed)
    found = explained(model, x, method)
    for role in ("attribution", "heatmap", "explained_score"):
        assert found[role].dtype == np.float32, role
        assert np.isfinite(found[role]).all()
    original = run(model, x)["scores"]
    assert found["scores"].dtype == original.dtype
    # Runtimes fuse other nodes where a tensor is also read by the explanation: one rounding of the largest score.
    assert np.abs(found["scores"].astype(np.float64) - original).max() <= 2 * ROUNDING * np.abs(original).max()


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_is_exact_for_the_half_precision_weights(name: str, mixed: bool) -> None:
    """These networks are linear between kinks: with the kinks of the same run, nothing of half precision is left.

    Compared in float64 with what the float16 weights are; the tolerance is float32's.
    """
    model = compile_model(half(name, mixed), "gradient", target=1)
    seen = kinks(model)
    found = run(exposing(model, seen), given(mixed))
    pinned = {key: torch.tensor(found[key].astype(np.float64)) for key in seen}
    classes = np.ones(len(X), np.int64)
    x = torch.tensor(given(mixed).astype(np.float64))
    expected = gradient(model, x, classes, score="scores", pinned=pinned)
    assert_near(found["attribution"], expected.numpy(), 1e-5, name)


@pytest.mark.parametrize("method", SHARING)
@pytest.mark.parametrize("name", NETWORKS)
def test_methods_that_average_or_share_agree_with_the_single_precision_model(name: str, method: str) -> None:
    """Within 20 roundings: some eight layers round weights and activations once each, and a ReLU near zero may flip.

    Measured: 0.05 to 0.8 percent.
    """
    found = explained(half(name, False), given(False), method, target=1)["attribution"]
    expected = explained(exported(name), X, method, target=1)["attribution"]
    assert relative_error(found, expected) <= 20 * ROUNDING


def test_relevance_divided_by_a_sum_near_zero_does_not_overflow() -> None:
    """A sum of 0.005 takes a relevance of 440: their quotient is beyond half precision's largest number."""
    model = net(
        "g (float16[N,2] x) => (float16[N,1] y) { h = MatMul(x, w) r = Relu(h) t = MatMul(r, v) y = MatMul(t, v) }"
    )
    w = np.asarray([1.0, -0.99951171875])
    for key, value in (("w", w[:, None]), ("v", [[300.0]])):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float16), key))
    x = np.asarray([[10, 10]], np.float16)
    found = explained(model, x, "lrp-eps")
    score = found["explained_score"][0]
    assert score / (x[0] @ w) > np.finfo(np.float16).max
    assert_near(found["attribution"], (x[0] * w * score / (x[0] @ w))[None], 1e-2)


def test_the_sum_over_a_large_picture_is_not_cut_off() -> None:
    """Of 224 by 224 values of one, half precision sums no more than 2048 one after the other."""
    model = net(
        "g (float16[1,1,224,224] x) => (float16[1,2] y) { m = GlobalAveragePool(x) f = Flatten(m) y = Gemm(f, w) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(np.asarray([[1.0, 2.0]], np.float16), "w"))
    found = explained(model, np.ones((1, 1, 224, 224), np.float16), "lrp-eps")
    assert abs(found["attribution"].sum() - 2) < 1e-3
    assert abs(found["residual"]).max() < 1e-3


def test_double_stays_double() -> None:
    model = net("g (double[N,6] x) => (double[N,3] y) { h = MatMul(x, w) r = Tanh(h) y = MatMul(r, v) }")
    rng = np.random.default_rng(0)
    w, v, x = rng.standard_normal((6, 5)), rng.standard_normal((5, 3)), rng.standard_normal((4, 6))
    model.graph.initializer.extend([numpy_helper.from_array(w, "w"), numpy_helper.from_array(v, "v")])
    for method in ("gradient", "integrated-gradients", "lrp-eps", "deeplift-rescale"):
        found = explained(model, x, method, target=1)
        assert found["attribution"].dtype == np.float64, method
        if method == "gradient":
            expected = ((1 - np.tanh(x @ w) ** 2) * v[:, 1]) @ w.T
            assert_near(found["attribution"], expected, 1e-12)
        if method in ("integrated-gradients", "deeplift-rescale"):
            assert np.abs(found["residual"]).max() < 1e-10, method


@pytest.mark.parametrize("scale", [1e-60, 1e60])
@pytest.mark.parametrize("method", ["gradient", "lrp-eps", "grad-cam"])
def test_heatmaps_of_doubles_that_are_no_floats(method: str, scale: float) -> None:
    """Divided by the largest they are numbers like any other's."""
    model = net(
        """g (double[N,3,4,4] x) => (double[N,2] y) { r = Abs(x) p = ReduceMean<keepdims = 0>(r, space)
        m = MatMul(p, w) y = Mul(m, scale) }"""
    )
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 4, 4)), np.abs(rng.standard_normal((3, 2)))
    for key, value in (("w", w), ("space", np.array([2, 3])), ("scale", np.asarray(1.0))):
        model.graph.initializer.append(numpy_helper.from_array(value, key))
    how = {"layer": "r"} if method == "grad-cam" else {}
    expected = explained(model, x, method, target=1, **how)["heatmap"]
    model.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.asarray(scale), "scale"))
    found = explained(model, x, method, target=1, **how)["heatmap"]
    assert found.dtype == np.float32
    assert expected.max() == 1
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_blurred_baseline_of_doubles() -> None:
    model = net("g (double[N,3,6,6] x) => (double[N,2] y) { f = Flatten(x) t = Tanh(f) y = MatMul(t, w) }")
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((108, 2)), rng.standard_normal((2, 3, 6, 6))
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    found = explained(model, x, "integrated-gradients", target=1, baseline="blur", steps=100)
    single = net("g (float[N,3,6,6] x) => (float[N,2] y) { f = Flatten(x) t = Tanh(f) y = MatMul(t, w) }")
    single.graph.initializer.append(numpy_helper.from_array(w.astype(np.float32), "w"))
    other = explained(single, x.astype(np.float32), "integrated-gradients", target=1, baseline="blur", steps=100)
    assert np.abs(found["residual"]).max() < 1e-9
    assert_near(found["attribution"], other["attribution"], 1e-5)


@pytest.mark.parametrize("body", ["c = Clip<min = 0.0, max = 6.0>(x)", "c = Pad<pads = [0, 0, 0, 1], value = 2.0>(x)"])
@pytest.mark.parametrize(("kind", "dtype"), [("float16", np.float16), ("double", np.float64)])
def test_bounds_that_were_attributes(kind: str, dtype: type, body: str) -> None:
    """ONNX's converter makes them float32 operands, which such an operator does not take."""
    model = net(f"g ({kind}[N,5] x) => ({kind}[N,3] y) {{ {body} y = MatMul(c, w) }}", 7, 9)
    size = 6 if "Pad" in body else 5
    w = np.random.default_rng(0).standard_normal((size, 3)).astype(dtype)
    model.graph.initializer.append(numpy_helper.from_array(w, "w"))
    x = np.array([[1, 2, 3, 4, 5], [0.5, 1.5, 2.5, 3.5, 4.5]], dtype)
    found = explained(model, x, "gradient", target=1)
    np.testing.assert_allclose(found["attribution"], np.tile(w[:5, 1], (2, 1)), rtol=1e-3)
    seen = x if size == 5 else np.concatenate([x, np.full((2, 1), 2, dtype)], 1)
    np.testing.assert_allclose(found["y"], seen @ w, rtol=2e-2, atol=1e-2)


def bfloat16() -> onnx.ModelProto:
    model = net("g (bfloat16[N,6] x) => (bfloat16[N,3] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }")
    rng = np.random.default_rng(0)
    for key, shape in (("w", (6, 5)), ("v", (5, 3))):
        values = rng.standard_normal(shape).astype(ml_dtypes.bfloat16)
        model.graph.initializer.append(numpy_helper.from_array(values, key))
    return model


MOVING = frozenset({"Cast", "Shape", "Constant", "Reshape", "Gather", "Unsqueeze", "Identity"})
EXPLAINING = (
    ("gradient", {}), ("guided-backprop", {}), ("lrp-eps", {}), ("lrp-epsilon-plus-flat", {}), ("deeplift-rescale", {}),
    ("deeplift", {}), ("integrated-gradients", {"construction": "unroll", "steps": 2}),
    ("smoothgrad", {"construction": "unroll", "samples": 2}),
)  # fmt: skip


@pytest.mark.parametrize(("method", "settings"), EXPLAINING, ids=[method for method, _ in EXPLAINING])
def test_bfloat16_is_explained_in_single_precision(method: str, settings: dict[str, object]) -> None:
    """ONNX Runtime's CPU has no kernels for it, so the graph is checked and not run.

    In bfloat16 it computes nothing but what the model itself does, on other inputs too: where there are kernels for the
    model there are kernels for this.
    """
    original = bfloat16()
    model = compile_model(original, method, **settings)
    onnx.checker.check_model(model, full_check=True)
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    types |= {t.name: t.data_type for t in graph.initializer}
    assert types["y"] == TensorProto.BFLOAT16
    assert types["attribution"] == TensorProto.FLOAT
    within = {n.op_type for n in graph.node if TensorProto.BFLOAT16 in {types.get(t) for t in (*n.input, *n.output)}}
    assert within <= {n.op_type for n in original.graph.node} | MOVING
    assert all(t in types for n in graph.node for t in n.output), "a tensor whose type nobody knows"


def test_the_runtime_s_cpu_has_no_kernels_for_bfloat16() -> None:
    """What docs/design.md says of it; when this fails, the models can be run."""
    with pytest.raises(Exception, match=r"NOT_IMPLEMENTED.*MatMul"):
        run(bfloat16(), np.zeros((1, 6), ml_dtypes.bfloat16))


def test_what_takes_bfloat16_only_in_newer_opsets_is_refused() -> None:
    model = net(
        "g (bfloat16[N,3,8,8] x) => (bfloat16[N,4] y) { c = Conv(x, w) p = GlobalMaxPool(c) y = Flatten(p) }", 22
    )
    weights = np.ones((4, 3, 3, 3), ml_dtypes.bfloat16)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    with pytest.raises(
        UnsupportedModel,
        match=r"opset 21: node 'c' is 'Conv' of bfloat16, node 'p' is 'GlobalMaxPool' of "
        r"bfloat16, which was not allowed then.\n  Export the model in float32",
    ):
        compile_model(model)


def numbers(*shape: int, seed: int) -> str:
    return ",".join(f"{v:.3f}" for v in np.random.default_rng(seed).standard_normal(shape).ravel())


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """All of it in half precision: the runtime's own converter leaves Max and Min in single."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in half.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor.name))
    return half


@pytest.mark.parametrize("runtime", ["portable", "cpu", "cuda"])
@pytest.mark.parametrize("method", ["gradient", "guided-backprop", "lrp-eps", "deeplift-rescale"])
@pytest.mark.parametrize(
    ("extreme", "width"),
    [
        ("Max(a, b)", 12),
        ("Min(b, a)", 12),
        ("Max(a, b, c)", 12),
        ("ReduceMax(p, two)", 3),
        ("ReduceMin<keepdims=0>(p, two)", 3),
        ("GlobalMaxPool(p)", 3),
        ("MaxPool<kernel_shape=[2]>(p)", 9),
    ],
)
def test_extremes_of_what_the_runtime_rounds_or_not(extreme: str, width: int, method: str, runtime: str) -> None:
    """A widened operand need not be what the forward node compared: nothing would equal the largest, and 0/0 is NaN."""
    single = net(f"""
        g (float[N,6] x) => (float[N,2] y) <float[6,12] w = {{{numbers(6, 12, seed=0)}}},
            float[6,12] u = {{{numbers(6, 12, seed=3)}}}, float[{width},2] v = {{{numbers(width, 2, seed=1)}}},
            int64[1] two = {{2}}, int64[3] planes = {{0,3,4}}> {{
            a = Gemm(x, w)  b = Gemm(x, u)  c = Mul(a, b)  p = Reshape(a, planes)
            k = {extreme}  f = Flatten(k)  y = MatMul(f, v) }}
    """)
    x = np.random.default_rng(2).standard_normal((3, 6)).astype(np.float16)
    found = explained(rounded(single), x, method, target=1, runtime=runtime)
    want = explained(single, x.astype(np.float32), method, target=1, runtime=runtime)
    assert_near(found["attribution"], want["attribution"], 8 * ROUNDING)
    if "residual" in found:
        np.testing.assert_allclose(found["residual"], want["residual"], atol=8 * ROUNDING * np.abs(want["y"]).max())
