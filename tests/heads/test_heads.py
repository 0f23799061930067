"""Several inputs and outputs, and scores that are not (N, classes)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from onnxplain import OnnxplainError, UsageError, compile_model
from tests.running import Array, assert_near, explained, net, run

RNG = np.random.default_rng(0)
PIXELS = RNG.standard_normal((2, 3, 6, 8)).astype(np.float32)
METHODS = ("gradient", "gradient-x-input", "integrated-gradients", "lrp-eps", "deeplift-rescale")


def made(text: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """A network in ONNX's text, with seeded weights of the given shapes."""
    model, rng = net(text), np.random.default_rng(1)
    for name, shape in weights.items():
        values = rng.standard_normal(shape).astype(np.float32) * 0.5
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def pixelwise(tail: str = "y = Identity(z)") -> onnx.ModelProto:
    """A score of each of five classes for every pixel of half the size."""
    return made(
        "g (float[N,3,6,8] x) => (float[N,5,3,4] y) { c = Conv <strides = [2, 2], pads = [1, 1, 0, 0]> (x, w)"
        f" r = Relu(c) z = Conv(r, v) {tail} }}",
        w=(4, 3, 3, 3),
        v=(5, 4, 1, 1),
    )


def tokenwise() -> onnx.ModelProto:
    """A score of each of five classes for each of seven tokens of six numbers, each token mixed with the others."""
    return made(
        "g (float[N,7,6] x) => (float[N,7,5] y) { a = MatMul(m, x) s = Tanh(a) z = MatMul(s, h) y = Softmax(z) }",
        m=(7, 7),
        h=(6, 5),
    )


def weights_of(model: onnx.ModelProto) -> dict[str, torch.Tensor]:
    return {w.name: torch.tensor(numpy_helper.to_array(w)) for w in model.graph.initializer}


def slope(function: Any, x: Array) -> tuple[Array, Array]:
    """The best score and its derivative by x, of scores (N, classes)."""
    given = torch.tensor(x, requires_grad=True)
    scores = function(given)
    best = scores.amax(1)
    (d,) = torch.autograd.grad(best.sum(), given)
    return best.detach().numpy(), d.numpy()


def pixel_scores(model: onnx.ModelProto, x: torch.Tensor) -> torch.Tensor:
    w = weights_of(model)
    padded = torch.nn.functional.pad(x, (1, 0, 1, 0))
    return torch.conv2d(torch.conv2d(padded, w["w"], stride=2).relu(), w["v"])


@pytest.mark.parametrize(
    ("at", "choose"),
    [
        ("1,2", lambda s: s[:, :, 1, 2]),
        ("0, 3", lambda s: s[:, :, 0, 3]),
        ("mean", lambda s: s.mean((2, 3))),
    ],
)
@pytest.mark.parametrize("tail", ["y = Identity(z)", "y = Softmax <axis = 1> (z)"])
def test_a_pixel_or_the_mean_over_pixels_is_explained(at: str, choose: Any, tail: str) -> None:
    model = pixelwise(tail)
    score, d = slope(lambda x: choose(pixel_scores(model, x)), PIXELS)
    found = explained(model, PIXELS, "gradient", at=at)
    assert_near(found["explained_score"], score, 1e-5)
    assert_near(found["attribution"], d, 1e-5)


def test_a_pixel_s_explanation_ends_where_it_sees_nothing() -> None:
    found = explained(pixelwise(), PIXELS, "gradient", at="0,0")["attribution"]
    assert found[:, :, :2, :2].any()
    assert not found[:, :, 2:].any()
    assert not found[:, :, :, 2:].any()


@pytest.mark.parametrize(("at", "choose"), [("3", lambda s: s[:, 3]), ("mean", lambda s: s.mean(1))])
def test_of_tokens_the_softmax_tells_the_axis_of_the_classes(at: str, choose: Any) -> None:
    model, x = tokenwise(), RNG.standard_normal((2, 7, 6)).astype(np.float32)
    w = weights_of(model)
    score, d = slope(lambda t: choose((w["m"] @ t).tanh() @ w["h"]), x)
    found = explained(model, x, "gradient", at=at)
    assert_near(found["explained_score"], score, 1e-5)
    assert_near(found["attribution"], d, 1e-5)


def test_channels_last_scores_are_told_by_where_channels_went() -> None:
    model = pixelwise("y = Transpose <perm = [0, 2, 3, 1]> (z)")
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    for size in ("N", 3, 4, 5):
        dim = model.graph.output[0].type.tensor_type.shape.dim.add()
        if isinstance(size, str):
            dim.dim_param = size
        else:
            dim.dim_value = size
    score, d = slope(lambda x: pixel_scores(model, x)[:, :, 2, 1], PIXELS)
    found = explained(model, PIXELS, "gradient", at="2,1")
    assert_near(found["explained_score"], score, 1e-5)
    assert_near(found["attribution"], d, 1e-5)


def test_the_axis_of_the_classes_can_be_said() -> None:
    model = pixelwise()
    score, d = slope(lambda x: pixel_scores(model, x)[:, 4, :, 1], PIXELS)
    found = explained(model, PIXELS, "gradient", at="4,1", class_axis=2)
    assert_near(found["explained_score"], score, 1e-5)
    assert_near(found["attribution"], d, 1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_family_explains_a_pixel(method: str) -> None:
    found = explained(pixelwise(), PIXELS, method, at="1,1")
    assert found["attribution"].shape == PIXELS.shape
    assert np.isfinite(found["attribution"]).all()
    assert found["attribution"].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--at 0,0"),
        ({"at": "1"}, "2 numbers from 0"),
        ({"at": "1,x"}, "2 numbers from 0"),
        ({"at": "1,\u0662"}, "2 numbers from 0"),
        ({"at": "3,0"}, "place 3 is out of range: there are 3"),
        ({"at": "0,0", "class_axis": 0}, "one of axes 1 to 3"),
        ({"at": "0,0", "class_axis": 4}, "one of axes 1 to 3"),
    ],
)
def test_a_place_that_is_not_there_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compile_model(pixelwise(), "gradient", **options)


def dense(shape: str, tail: str, classes: int = 5) -> onnx.ModelProto:
    return made(
        f"g (float[N,6] x) => (float[{shape}] y) {{ z = MatMul(x, w) {tail} }}",
        w=(6, classes),
    )


ROWS = RNG.standard_normal((3, 6)).astype(np.float32)


def test_at_without_places_is_refused() -> None:
    with pytest.raises(UsageError, match="no places to choose from"):
        compile_model(dense("N,5", "y = Softmax(z)"), "gradient", at="0")


@pytest.mark.parametrize(("shape", "axes"), [("N,5,1,1", "2, 3"), ("N,1,5", "1"), ("N,1,1,5", "1, 2"), ("N,5,1", "2")])
def test_axes_of_one_around_the_classes_need_no_place(shape: str, axes: str) -> None:
    count = len(axes.split(","))
    model = dense(shape, f"a = Constant <value = int64[{count}] {{{axes}}}> () y = Unsqueeze(z, a)")
    found = explained(model, ROWS, "gradient", target=2)
    np.testing.assert_allclose(found["attribution"], np.tile(weights_of(model)["w"][:, 2], (3, 1)), rtol=1e-6)


@pytest.mark.parametrize(("shape", "squeeze"), [("N,1", "y = Sigmoid(z)"), ("N", "s = Squeeze(z, one) y = Sigmoid(s)")])
def test_a_binary_head_has_one_class_whose_score_is_before_the_sigmoid(shape: str, squeeze: str) -> None:
    body = squeeze.replace("s = Squeeze", "one = Constant <value = int64[1] {1}> () s = Squeeze")
    model = dense(shape, body, classes=1)
    w = weights_of(model)["w"].numpy()
    for target in ("top1", 0):
        found = explained(model, ROWS, "gradient", target=target)
        np.testing.assert_array_equal(found["explained_class"], [0, 0, 0])
        assert_near(found["explained_score"], (ROWS @ w)[:, 0], 1e-5)
        np.testing.assert_allclose(found["attribution"], np.tile(w[:, 0], (3, 1)), rtol=1e-6)
    with pytest.raises(UsageError, match="one score, whose class is 0"):
        compile_model(model, "gradient", target=1)


LARGEST = "largest = ReduceMax<keepdims = 1>(z, one) shifted = Sub(z, largest)"
PROBABILITIES = {
    "clamped": "p = Softmax(z) low = Constant<value = float {0.0}>() high = Constant<value = float {1.0}>()"
    " y = Clip(p, low, high)",
    "percent": "p = Softmax(z) y = Mul(p, hundred)",
    "percent, doubled": "p = Softmax(z) q = Div(p, small) r = Add(q, hundred) y = Sub(r, small)",
    "bounded": "p = Softmax(z) q = Max(p, small) y = Min(q, hundred)",
    "logarithm": "p = Softmax(z) y = Log(p)",
    "guarded logarithm": "p = Softmax(z) q = Add(p, small) y = Log(q)",
    "of a logarithm": "p = LogSoftmax(z) y = Exp(p)",
    "spelled out": "e = Exp(z) t = ReduceSum<keepdims = 1>(e, one) y = Div(e, t)",
    "shifted": LARGEST + " e = Exp(shifted) t = ReduceSum<keepdims = 1>(e, one) y = Div(e, t)",
    "guarded": LARGEST + " e = Exp(shifted) t = ReduceSum<keepdims = 1>(e, one) u = Add(t, small) y = Div(e, u)",
    "times the reciprocal": LARGEST
    + " e = Exp(shifted) t = ReduceSum<keepdims = 1>(e, one) u = Reciprocal(t) y = Mul(u, e)",
    "normalised": "e = Exp(z) t = ReduceL1<keepdims = 1>(e, one) u = Clip(t, small) s = Shape(z) v = Expand(u, s)"
    " y = Div(e, v)",
    "less its logsumexp": "t = ReduceLogSumExp<keepdims = 1>(z, one) y = Sub(z, t)",
    "as jax has it": "largest = ReduceMax<keepdims = 0>(z, one) some = Max(largest, low) l = Unsqueeze(some, one)"
    " k = Identity(l) shifted = Sub(z, k) e = Exp(shifted) t = ReduceSum<keepdims = 0>(e, one) u = Log(t)"
    " v = Unsqueeze(u, one) y = Sub(shifted, v)",
    "as torch has it": LARGEST + " e = Exp(shifted) t = ReduceSum<keepdims = 1>(e, one) u = Log(t)"
    " v = Add(u, largest) y = Sub(z, v)",
    "sigmoid": "n = Neg(z) e = Exp(n) u = Add(e, unit) y = Div(unit, u)",
    "reciprocal sigmoid": "n = Neg(z) e = Exp(n) u = Add(unit, e) y = Reciprocal(u)",
    "risen sigmoid": "e = Exp(z) u = Add(unit, e) y = Div(e, u)",
    "quantised": "p = Softmax(z) q = QuantizeLinear(p, small) y = DequantizeLinear(q, small)",
}
NUMBERS = (
    "one = Constant<value_ints = [1]>() hundred = Constant<value = float {100.0}>()"
    " unit = Constant<value = float {1.0}>() small = Constant<value = float {0.001}>()"
    " below = Constant<value = float {-1.0}>()"
    " low = Constant<value = float {-1000.0}>() "
)


@pytest.mark.parametrize("tail", PROBABILITIES.values(), ids=PROBABILITIES)
def test_the_scores_before_probabilities_are_explained_however_these_are_spelled(tail: str) -> None:
    """They are linear here: the best score and its row of weights, by hand."""
    model = dense("N,5", NUMBERS + tail)
    w = weights_of(model)["w"].numpy()
    found = explained(model, ROWS, "gradient")
    scores = ROWS @ w
    np.testing.assert_array_equal(found["explained_class"], scores.argmax(1))
    assert_near(found["explained_score"], scores.max(1), 1e-5)
    np.testing.assert_allclose(found["attribution"], w.T[scores.argmax(1)], rtol=1e-6)
    np.testing.assert_array_equal(found["y"], run(model, ROWS)["y"])


@pytest.mark.parametrize(
    "tail",
    [
        "p = Softmax(z) y = Neg(p)",  # the other order
        "p = Softmax(z) y = Mul(p, below)",
        "p = Softmax(z) y = Mul(p, weights)",  # another number for each class
        "p = Softmax(z) y = Add(p, weights)",
        "e = Exp(z) t = ReduceSum<keepdims = 1>(e, zero) y = Div(e, t)",  # along the batch of one
        "e = Exp(z) w2 = Add(e, weights) t = ReduceSum<keepdims = 1>(w2, one) y = Div(e, t)",
        "t = ReduceLogSumExp<keepdims = 1>(z, one) u = Add(t, z) y = Sub(z, u)",
        "t = ReduceMean<keepdims = 1>(z, one) y = Sub(z, t)",  # no probability at all
        "y = Mul(z, hundred)",
        "y = Exp(z)",
    ],
)
def test_what_may_change_the_order_of_the_classes_or_makes_no_probabilities_is_explained_itself(tail: str) -> None:
    model = dense("1,5", NUMBERS + " zero = Constant<value_ints = [0]>() " + tail)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    weights = np.array([[1, -2, 3, 0.5, 2]], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    found = explained(model, ROWS[:1], "gradient")
    np.testing.assert_allclose(found["explained_score"], found["y"].max(1), rtol=1e-6)
    np.testing.assert_array_equal(found["explained_class"], found["y"].argmax(1))


def test_each_label_of_a_multi_label_head_is_explained_by_itself() -> None:
    model = dense("N,5", "y = Sigmoid(z)")
    w = weights_of(model)["w"].numpy()
    found = explained(model, ROWS, "gradient", target="topk:3")
    best = np.argsort(-(ROWS @ w), axis=1)[:, :3]
    np.testing.assert_array_equal(found["explained_class"], best)
    np.testing.assert_allclose(found["attribution"], w.T[best], rtol=1e-6)


def two_inputs() -> onnx.ModelProto:
    return made(
        "g (float[N,3,6,8] pixels, float[N,4] facts) => (float[N,5] y) {"
        " c = Conv(pixels, w) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) h = MatMul(facts, m) t = Tanh(h)"
        " b = Mul(f, t) y = MatMul(b, o) }",
        w=(4, 3, 3, 3),
        m=(4, 4),
        o=(4, 5),
    )


FACTS = RNG.standard_normal((2, 4)).astype(np.float32)


@pytest.mark.parametrize("name", ["pixels", "facts"])
@pytest.mark.parametrize("method", METHODS)
def test_of_several_inputs_the_one_named_is_explained_and_the_others_stay_inputs(name: str, method: str) -> None:
    model, feeds = two_inputs(), {"pixels": PIXELS, "facts": FACTS}
    found = run(compile_model(model, method, input=name), feeds)
    assert found["attribution"].shape == feeds[name].shape
    assert found["attribution"].any()
    if method == "gradient":
        w = weights_of(model)
        given = {key: torch.tensor(value, requires_grad=True) for key, value in feeds.items()}
        features = torch.conv2d(given["pixels"], w["w"]).relu().mean((2, 3))
        scores = (features * (given["facts"] @ w["m"]).tanh()) @ w["o"]
        (d,) = torch.autograd.grad(scores.amax(1).sum(), given[name])
        assert_near(found["attribution"], d.numpy(), 1e-5)


def test_several_inputs_and_none_named_is_refused_with_their_names() -> None:
    with pytest.raises(UsageError, match=r"pixels float32, facts float32.*\n.*--input NAME"):
        compile_model(two_inputs(), "gradient")


def two_outputs() -> onnx.ModelProto:
    return made(
        "g (float[N,6] x) => (float[N,5] first, float[N,2] second) { first = MatMul(x, w) second = MatMul(x, v) }",
        w=(6, 5),
        v=(6, 2),
    )


@pytest.mark.parametrize("options", [{"output": "second"}, {"output_index": 1}])
def test_of_several_outputs_the_one_named_or_numbered_is_explained(options: dict[str, Any]) -> None:
    model = two_outputs()
    v = weights_of(model)["v"].numpy()
    found = explained(model, ROWS, "gradient", **options)
    np.testing.assert_allclose(found["attribution"], v.T[(ROWS @ v).argmax(1)], rtol=1e-6)
    assert found["first"].shape == (3, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--output NAME"),
        ({"output_index": 2}, "no output number 2: it has 2"),
        ({"output_index": -1}, "no output number -1"),
        (
            {"output": "first", "output_index": 0},
            "--output first and --output-index 0 both name the output: give one of them",
        ),
    ],
)
def test_an_output_that_is_not_there_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OnnxplainError, match=message):
        compile_model(two_outputs(), "gradient", **options)


def deep_pixelwise() -> onnx.ModelProto:
    """As many scores, of pixels that are mixed twice, then computed one by one and enlarged."""
    return made(
        "g (float[N,3,6,8] x) => (float[N,5,6,8] y) { c = Conv<pads = [1, 1, 1, 1]>(x, w) r = Relu(c)"
        " d = Conv<strides = [2, 2], pads = [1, 1, 0, 0]>(r, u) s = Relu(d) z = Conv(s, v)"
        ' y = Resize<mode = "linear", axes = [2, 3]>(z, , , sizes) }',
        w=(4, 3, 3, 3),
        u=(6, 4, 3, 3),
        v=(5, 6, 1, 1),
    )


@pytest.mark.parametrize("at", ["0,0", "4,5"])
def test_the_map_of_one_place_is_of_a_layer_before_places_are_mixed_for_the_last_time(at: str) -> None:
    """Behind it every gradient is the same but for where it is, and so would be the map of every place."""
    model = deep_pixelwise()
    model.graph.initializer.append(numpy_helper.from_array(np.array([6, 8]), "sizes"))
    found = explained(model, PIXELS, "grad-cam", target=2, at=at)["attribution"]
    w = weights_of(model)
    features = torch.relu(torch.conv2d(torch.tensor(PIXELS), w["w"], padding=1)).requires_grad_()
    low = torch.conv2d(torch.nn.functional.pad(features, (1, 0, 1, 0)), w["u"], stride=2).relu()
    scores = torch.nn.functional.interpolate(torch.conv2d(low, w["v"]), (6, 8), mode="bilinear")
    row, column = (int(i) for i in at.split(","))
    (d,) = torch.autograd.grad(scores[:, 2, row, column].sum(), features)
    want = torch.relu((d.mean((2, 3), keepdim=True) * features).sum(1)).detach().numpy()
    assert_near(found, want, 1e-5)
    mean = explained(model, PIXELS, "grad-cam", target=2, at="mean")["attribution"]
    assert mean.shape == (2, 3, 4), "the last layer of all counts where all places do"


def test_places_that_are_computed_one_by_one_have_no_map() -> None:
    model = made(
        "g (float[N,3,6,8] x) => (float[N,5,6,8] y) { c = Conv(x, w) r = Relu(c) y = Conv(r, v) }",
        w=(4, 3, 1, 1), v=(5, 4, 1, 1),
    )  # fmt: skip
    with pytest.raises(OnnxplainError) as caught:
        compile_model(model, "grad-cam", at="1,1")
    assert str(caught.value) == (
        "between 'x' and 'onnxplain/score/Squeeze' no layer with spatial extent lies on all paths, before places are "
        "mixed for the last time: behind that each is computed by itself, and the map would be the same whatever place "
        "the score is read at.\n"
        "  Name the layer to tap with --layer; `onnxplain plan` lists what there is."
    )
    named = compile_model(model, "grad-cam", at="1,1", layer="r")
    assert run(named, PIXELS)["attribution"].shape == (2, 6, 8)
