"""int8 models whose activations are quantised by the range they happen to have: `quantize_dynamic`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from onnxplain import compile_model
from onnxplain.errors import UnsupportedOp
from tests.oracle import gradient
from tests.precision.networks import NETWORKS, exported, pictures
from tests.running import Array, assert_near, explained, exposing, net, run

X = pictures(4)
FORMS = {"uint8": (QuantType.QUInt8, False), "int8": (QuantType.QInt8, False), "by channel": (QuantType.QInt8, True)}
METHODS = (
    "gradient",
    "guided-backprop",
    "integrated-gradients",
    "grad-cam",
    "fem",
    "lrp-eps",
    "lrp-epsilon-plus",
    "deeplift-rescale",
)


@cache
def int8(name: str, form: str) -> onnx.ModelProto:
    kind, per_channel = FORMS[form]
    with TemporaryDirectory() as folder:
        source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(exported(name), source)
        quantize_dynamic(source, result, weight_type=kind, per_channel=per_channel)
        return onnx.load(result)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_the_quantised_model_s_own_bit_for_bit(name: str, form: str, method: str) -> None:
    model = int8(name, form)
    found = explained(model, X, method)
    np.testing.assert_array_equal(found["scores"], run(model, X)["scores"])
    assert np.isfinite(found["attribution"]).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_is_the_straight_through_one_s(name: str, form: str) -> None:
    """The oracle is given the integers and scales of the same run."""
    model = compile_model(int8(name, form), "gradient", target=1)
    quantisers = [n for n in model.graph.node if n.op_type == "DynamicQuantizeLinear"]
    seen = [*(name for n in quantisers for name in n.output[:2])]
    seen += [n.output[0] for n in model.graph.node if n.op_type == "Relu"]
    found = run(exposing(model, seen), X)
    pinned = {key: torch.tensor(found[key].astype(np.float64)) for key in seen}
    expected = gradient(model, torch.tensor(X), np.ones(len(X), np.int64), score="scores", pinned=pinned)
    assert quantisers
    assert_near(found["attribution"], expected.numpy(), 1e-4, name)


def cosine(a: Array, b: Array) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", ["integrated-gradients", "lrp-eps", "deeplift-rescale"])
def test_methods_that_average_or_share_agree_with_the_float_model(name: str, method: str) -> None:
    """Measured: 0.980 to 1.000. A ReLU near zero that eight bits put on the other side moves single pictures."""
    quantised_map = explained(int8(name, "int8"), X, method, target=1)["attribution"]
    float_map = explained(exported(name), X, method, target=1)["attribution"]
    assert min(map(cosine, quantised_map, float_map)) > 0.97


INTEGERS = "i = MatMulInteger(q, w, z, wz) f = Cast<to = 1>(i) c = Mul(s, ws) y = Mul(f, c)"
WHOLE = "d = DequantizeLinear(q, s, z) e = DequantizeLinear<axis = 1>(w, ws, wz) y = MatMul(d, e)"


def linear_model(width: int, body: str = INTEGERS) -> onnx.ModelProto:
    """Scores that are linear but for the quantiser in front of them."""
    model = net(f"g (float[N,{width}] x) => (float[N,2] y) {{ q, s, z = DynamicQuantizeLinear(x) {body} }}")
    w = np.random.default_rng(1).integers(-127, 128, (width, 2)).astype(np.int8)
    for key, value in (("w", w), ("ws", np.asarray([0.02, 0.03], np.float32)), ("wz", np.asarray([3, -5], np.int8))):
        model.graph.initializer.append(numpy_helper.from_array(value, key))
    return model


@pytest.mark.parametrize("body", [INTEGERS, WHOLE], ids=["integers", "dequantised"])
@pytest.mark.parametrize("baseline", ["zeros", "input"])
def test_deeplift_leaves_to_the_residual_no_more_than_what_is_rounded(baseline: str, body: str) -> None:
    """Half a step at the sample and half a step at the baseline, each of its own size, times what the value weighs."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-20, 20, (8, 40)).astype(np.float32)
    given = rng.uniform(-2, 6, (1, 40)).astype(np.float32) if baseline == "input" else np.zeros((1, 40), np.float32)
    feeds = {"x": x, "baseline": given} if baseline == "input" else {"x": x}
    found = explained(linear_model(40, body), feeds, "deeplift-rescale", target=1, baseline=baseline)
    weights = numpy_helper.to_array(linear_model(40).graph.initializer[0])[:, 1].astype(np.float64) + 5
    steps = [(v.max() - min(v.min(), 0)) / 255 for v in (x, given)]
    bound = 0.5 * sum(steps) * 0.03 * np.abs(weights).sum()
    assert 0 < np.abs(found["residual"]).max() <= bound
    np.testing.assert_allclose(found["attribution"], (x - given) * weights * 0.03, rtol=1e-4, atol=1e-4)


def test_a_sum_of_integers_that_is_read_as_integers_is_refused() -> None:
    model = linear_model(4)
    model.graph.node.insert(2, helper.make_node("Add", ["i", "b"], ["j"], "sum"))
    model.graph.node[3].input[0] = "j"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray([7, -7], np.int32), "b"))
    with pytest.raises(UnsupportedOp, match=r"gradient has no rule for 'MatMulInteger' \(node 'i'\)"):
        compile_model(model)


def test_weights_stay_integers() -> None:
    model = compile_model(int8("residual", "int8"), "gradient")
    stored = {t.name: t.data_type for t in model.graph.initializer}
    filters = [n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored]
    assert filters
    assert {stored[name] for name in filters} == {TensorProto.INT8}
