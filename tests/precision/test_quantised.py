"""int8 models: the outputs stay theirs, and the derivative is that of the straight-through quantiser."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from onnxplain import compile_model
from onnxplain.errors import UnsupportedModel
from tests.oracle import gradient
from tests.precision.networks import NETWORKS, exported, pictures, quantised
from tests.running import Array, assert_near, explained, exposing, net, operators, run

FORMS = ("QDQ", "QOperator")
METHODS = (
    "gradient",
    "guided-backprop",
    "integrated-gradients",
    "grad-cam",
    "fem",
    "lrp-epsilon-plus",
    "deeplift-rescale",
)
X = pictures(4)


@cache
def int8(name: str, form: str, per_channel: bool = True) -> onnx.ModelProto:
    with TemporaryDirectory() as folder:
        return quantised(name, Path(folder), form, per_channel=per_channel)


def cosine(a: Array, b: Array) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_outputs_are_the_quantised_model_s_own_bit_for_bit(name: str, form: str, method: str) -> None:
    model = int8(name, form)
    found = explained(model, X, method)
    np.testing.assert_array_equal(found["scores"], run(model, X)["scores"])
    assert np.isfinite(found["attribution"]).all()


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_is_the_straight_through_one_s(name: str, form: str, per_channel: bool) -> None:
    """The oracle is given the integers of the same run, so that both clip and rectify at the same places."""
    model = compile_model(int8(name, form, per_channel), "gradient", target=1)
    steps = [n.output[0] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    kinks = [n.output[0] for n in model.graph.node if n.op_type == "Relu"]
    found = run(exposing(model, [*steps, *kinks]), X)
    seen = {key: torch.tensor(found[key].astype(np.float64)) for key in (*steps, *kinks)}
    expected = gradient(model, torch.tensor(X), np.ones(len(X), np.int64), score="scores", pinned=seen)
    assert_near(found["attribution"], expected.numpy(), 1e-4, name)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", ["integrated-gradients", "lrp-epsilon-plus", "deeplift-rescale"])
def test_methods_that_average_or_share_agree_with_the_float_model(name: str, method: str) -> None:
    """Measured: 0.98 to 1.00. Eight bits move each activation by up to half a step of its range over 255."""
    quantised_map = explained(int8(name, "QDQ"), X, method, target=1)["attribution"]
    float_map = explained(exported(name), X, method, target=1)["attribution"]
    assert min(map(cosine, quantised_map, float_map)) > 0.97


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_agrees_with_the_float_model_but_for_kinks(name: str) -> None:
    """Measured: 0.86 to 1.00 for a single picture: a ReLU near zero that eight bits put on the other side."""
    quantised_map = explained(int8(name, "QDQ"), X, "gradient", target=1)["attribution"]
    float_map = explained(exported(name), X, "gradient", target=1)["attribution"]
    assert np.median([cosine(a, b) for a, b in zip(quantised_map, float_map, strict=True)]) > 0.97


@pytest.mark.parametrize("form", FORMS)
def test_weights_stay_integers_and_no_operator_outside_the_standard_is_left(form: str) -> None:
    model = compile_model(int8("residual", form), "gradient")
    assert {domain for domain, _ in operators(model.graph)} <= {"", "ai.onnx"}
    stored = {t.name: t.data_type for t in model.graph.initializer}
    filters = [n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored]
    assert filters
    assert {stored[name] for name in filters} <= {onnx.TensorProto.INT8, onnx.TensorProto.INT32}


@pytest.mark.parametrize(("scale", "zero"), [((0.1,), (3,)), ((0.1, 0.05, 0.2), (3, -128, 0))])
def test_clipping_is_felt_and_rounding_is_not_as_in_torch(scale: tuple[float, ...], zero: tuple[int, ...]) -> None:
    axis = "" if len(scale) == 1 else "<axis = 1>"
    model = net(
        "g (float[N,3] x) => (float[N,2] y) {"
        f" q = QuantizeLinear {axis} (x, s, z) d = DequantizeLinear {axis} (q, s, z) y = MatMul(d, w) }}"
    )
    x = np.random.default_rng(0).uniform(-20, 20, (64, 3)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((3, 2)).astype(np.float32)
    s, z = np.asarray(scale, np.float32), np.asarray(zero, np.int8)
    one = len(scale) == 1
    for key, value in (("w", w), ("s", s[0] if one else s), ("z", z[0] if one else z)):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), key))
    given = torch.tensor(x, requires_grad=True)
    faked = (
        torch.fake_quantize_per_tensor_affine(given, float(s[0]), int(z[0]), -128, 127)
        if one
        else torch.fake_quantize_per_channel_affine(given, torch.tensor(s), torch.tensor(z).int(), 1, -128, 127)
    )
    (d,) = torch.autograd.grad((faked @ torch.tensor(w))[:, 1].sum(), given)
    found = explained(model, x, "gradient", target=1)["attribution"]
    assert (d == 0).any()
    assert (d != 0).any()
    np.testing.assert_allclose(found, d.numpy(), rtol=1e-5)


def test_deeplift_leaves_to_the_residual_no_more_than_what_is_rounded() -> None:
    """Half a step for each value at the sample and at the baseline, times what the value weighs."""
    model = net(
        "g (float[N,40] x) => (float[N,2] y) {"
        " q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = MatMul(d, w) }"
    )
    w = np.random.default_rng(1).standard_normal((40, 2)).astype(np.float32)
    for key, value in (("w", w), ("s", np.float32(0.1)), ("z", np.int8(3))):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), key))
    x = np.random.default_rng(0).uniform(-20, 20, (64, 40)).astype(np.float32)
    assert (np.abs(x) > 13.2).any(), "some are clipped, which is no rounding"
    found = explained(model, x, "deeplift-rescale", target=1)
    assert np.abs(found["residual"]).max() <= 0.1 * np.abs(w[:, 1]).sum()
    assert np.abs(found["residual"]).max() > 0


@pytest.mark.parametrize("form", FORMS)
def test_what_rounds_between_pooling_and_score_is_no_part_of_cam(form: str) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        compile_model(int8("separable", form), "cam")
    first, second = str(caught.value).split("\n")
    assert re.fullmatch(
        "cam needs a network that ends in global average pooling and one linear layer, and this one does not: behind "
        r"its global average pooling '\S+' there is QuantizeLinear '\S+', which rounds\.",
        first,
    )
    assert second.startswith("  Use grad-cam: ")


@pytest.mark.parametrize("method", ["gradient", "lrp-eps", "deeplift-rescale"])
def test_a_pool_of_integers_keeps_its_second_output(method: str) -> None:
    """Against the pool of the same numbers dequantised, of which the winners are the same."""
    text = """g (float[N,2,4,4] x) => (float[N,8] y, int64[N,2,2,2] places) <float s = {{0.05}}, uint8 z = {{100}}> {{
        q = QuantizeLinear(x, s, z) {middle} t = Mul(p, p) y = Flatten(t) }}"""
    pool = "MaxPool<kernel_shape = [2,2], strides = [2,2]>"
    integers = net(text.format(middle=f"m, places = {pool}(q) p = DequantizeLinear(m, s, z)"))
    reals = net(text.format(middle=f"d = DequantizeLinear(q, s, z) p, places = {pool}(d)"))
    x = np.random.default_rng(0).standard_normal((2, 2, 4, 4)).astype(np.float32)
    found, wanted = (explained(model, x, method, target=1, output="y") for model in (integers, reals))
    np.testing.assert_array_equal(found["places"], run(integers, x)["places"])
    np.testing.assert_array_equal(found["y"], wanted["y"])
    np.testing.assert_allclose(found["attribution"], wanted["attribution"], rtol=1e-5)
