"""Which class is explained, and what its score is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxplain.compiler import compile_model
from tests.catalogue import SPECIMENS, Specimen, parameters, with_batch
from tests.models.nets import Plain, ready
from tests.oracle import gradient
from tests.running import assert_near, net, run, session

X = 3 * np.random.default_rng(3).standard_normal((4, 3, 16, 16)).astype(np.float32)
METHODS = ("gradient", "guided-backprop", "grad-cam", "guided-grad-cam", "integrated-gradients", "smoothgrad", "fem")


def plain() -> Any:
    return ready(Plain, 3, 16, 16, exporter="torchscript")


def test_by_default_each_samples_best_class() -> None:
    returned = run(compile_model(plain()), X)
    np.testing.assert_array_equal(returned["explained_class"], returned["y"].argmax(1))
    np.testing.assert_array_equal(returned["explained_score"], returned["y"].max(1))
    assert len(set(returned["explained_class"])) > 1
    assert_near(returned["attribution"], gradient(plain(), X, returned["y"].argmax(1)).numpy(), 1e-5)


@pytest.mark.parametrize("target", [0, 3, "4"])
def test_a_fixed_class_for_every_sample(target: int | str) -> None:
    returned = run(compile_model(plain(), target=target), X)
    np.testing.assert_array_equal(returned["explained_class"], [int(target)] * 4)
    np.testing.assert_array_equal(returned["explained_score"], returned["y"][:, int(target)])
    assert_near(returned["attribution"], gradient(plain(), X, [int(target)] * 4).numpy(), 1e-5)


def test_a_class_for_each_sample_given_when_the_graph_runs() -> None:
    wanted = np.array([3, 0, 4, 3])
    returned = run(compile_model(plain(), target="input"), {"x": X, "target": wanted})
    np.testing.assert_array_equal(returned["explained_class"], wanted)
    np.testing.assert_array_equal(returned["explained_score"], returned["y"][np.arange(4), wanted])
    assert_near(returned["attribution"], gradient(plain(), X, wanted).numpy(), 1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_class_that_does_not_exist_is_answered_by_nan_everywhere_and_only_for_its_sample(method: str) -> None:
    how = {"integrated-gradients": {"steps": 2}, "smoothgrad": {"samples": 2}}.get(method, {})
    opened = session(compile_model(plain(), method, target="input", **how))
    good = run(opened, {"x": X, "target": np.array([1, 2, 0, 4])})
    bad = run(opened, {"x": X, "target": np.array([1, 5, -1, 4])})
    assert not any(np.isnan(value).any() for value in good.values())
    for name in ("attribution", "heatmap", "explained_score", *(["residual"] if "residual" in bad else [])):
        assert np.isnan(bad[name][1:3]).all(), name
        np.testing.assert_array_equal(bad[name][[0, 3]], good[name][[0, 3]])
    np.testing.assert_array_equal(bad["explained_class"], [1, 5, -1, 4])
    np.testing.assert_array_equal(bad["y"], good["y"])


def test_an_integer_far_out_of_range_is_no_different() -> None:
    opened = session(compile_model(plain(), target="input"))
    for wrong in (2**62, -(2**62), -5, 100):
        assert np.isnan(run(opened, {"x": X[:1], "target": np.array([wrong])})["attribution"]).all()


TAILS = [
    ("y = Softmax(s)", "s"),
    ("y = LogSoftmax(s)", "s"),
    ("y = Sigmoid(s)", "s"),
    ("t = Softmax(s) y = Identity(t)", "s"),
    ("t = Flatten(s) y = Softmax(t)", "t"),
    ("y = Neg(s)", "y"),
]


@pytest.mark.parametrize(("tail", "score"), TAILS)
def test_the_score_is_the_one_before_the_softmax_and_the_output_stays(tail: str, score: str) -> None:
    model = net(f"g (float[N,3] x) => (float[N,2] y) <float[3,2] w = {{1,2,3,-4,5,6}}> {{ s = MatMul(x, w) {tail} }}")
    x = np.array([[1, 2, 3], [-1, 0.5, -2]], np.float32)
    returned = run(compile_model(model, target=1), x)
    np.testing.assert_allclose(returned["y"], run(model, x)["y"])
    sign = -1 if tail == "y = Neg(s)" else 1
    w = np.array([2, -4, 6])
    np.testing.assert_allclose(returned["explained_score"], sign * x @ w, rtol=1e-6)
    np.testing.assert_allclose(returned["attribution"], np.broadcast_to(sign * w, (2, 3)), rtol=1e-6)


@pytest.mark.parametrize("method", ["gradient", "guided-backprop", "grad-cam", "cam", "fem", "integrated-gradients"])
def test_scores_of_shape_n_c_1_1(method: str) -> None:
    """As SqueezeNet and DenseNet have them; outputs are as if the ones were not there."""
    body = "c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) s = Conv(p, v)"
    text = """g (float[N,2,5,6] x) => ({output} y) <float[3,2,1,1] w = {{1,-2,3,1,-1,2}}, float[4,3,1,1] v =
        {{1,0,-1,2,1,0,-1,-2,1,0,1,1}}> {{ {body} {tail} }}"""
    maps = net(text.format(output="float[N,4,1,1]", body=body, tail="y = Softmax<axis = 1>(s)"))
    flat = net(text.format(output="float[N,4]", body=body, tail="f = Flatten(s) y = Softmax(f)"))
    x = np.random.default_rng(1).standard_normal((3, 2, 5, 6)).astype(np.float32)
    how = {"layout": "channels-first"} | ({"steps": 3} if method == "integrated-gradients" else {})
    for target in ("top1", 2, "topk:2"):
        first, second = (run(compile_model(m, method, target=target, **how), x) for m in (maps, flat))
        assert first["y"].shape == (3, 4, 1, 1)
        for name in second:
            if name != "y":
                np.testing.assert_allclose(first[name], second[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "specimen", parameters(s for s in SPECIMENS if s.name in ("vww_96", "mnist_zero_one", "shapes"))
)
def test_trained_models_explain_what_they_predict(specimen: Specimen) -> None:
    model, x = with_batch(specimen.load(), "N"), specimen.images(4, 1)
    returned = run(compile_model(model), x)
    name = model.graph.output[0].name
    np.testing.assert_array_equal(returned["explained_class"], returned[name].argmax(1))
