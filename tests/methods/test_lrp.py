"""LRP's methods by their parameters: what each one does, what it refuses, where the bounds of the input come from."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnxplain
from onnxplain.compiler import compile_model
from onnxplain.errors import UsageError
from tests.rules.lrp import dense
from tests.rules.lrp.dense import Dense
from tests.rules.lrp.small import small
from tests.running import net, relative_error, run

Floats = NDArray[np.float64]

LAYERS = {"w": (6, 8), "b": (6,), "v": (4, 6), "c": (4,)}


def weights() -> dict[str, Floats]:
    rng = np.random.default_rng(1)
    return {k: rng.standard_normal(s).astype(np.float32).astype(np.float64) for k, s in LAYERS.items()}


@cache
def mlp() -> onnx.ModelProto:
    """Two dense layers with biases of both signs and a ReLU between."""
    return small("a = Gemm<transB = 1>(x, w, b) h = Relu(a) y = Gemm<transB = 1>(h, v, c)", (3, 8), weights())


X = np.float32(3) * np.random.default_rng(2).standard_normal((3, 8)).astype(np.float32)


def explained(method: str, model: onnx.ModelProto | None = None, x: Any = X, **how: Any) -> dict[str, Any]:
    return run(compile_model(mlp() if model is None else model, method, **how), x)


def by_hand(lower: dense.Rule, upper: dense.Rule, x: Floats, *, rectify: bool = False) -> Floats:
    """Relevance of the highest score of the two-layer network, layer by layer, in float64."""
    p = weights()
    found = []
    for sample in x.astype(np.float64):
        first = Dense(p["w"], p["b"], sample, np.full(8, -9.0), np.full(8, 10.0))
        second = Dense(p["v"], p["c"], np.maximum(first.y, 0), np.zeros(6), np.zeros(6))
        start = np.where(second.y == second.y.max(), second.y, 0)
        found.append(lower(first, upper(second, np.maximum(start, 0) if rectify else start)))
    return np.stack(found)


E6 = 1e-6
EVERY: dict[str, tuple[str, dict[str, Any], dense.Rule, dense.Rule]] = {
    "lrp-0": ("lrp-0", {}, dense.epsilon(0), dense.epsilon(0)),
    "lrp-0, no bias": ("lrp-0", {"bias": False}, dense.epsilon(0, False), dense.epsilon(0, False)),
    "lrp-eps": ("lrp-eps", {"epsilon": 0.3}, dense.epsilon(0.3), dense.epsilon(0.3)),
    "lrp-eps, no bias": (
        "lrp-eps", {"epsilon": 0.3, "bias": "false"}, dense.epsilon(0.3, False), dense.epsilon(0.3, False)),
    "lrp-gamma": ("lrp-gamma", {"gamma": 0.5}, dense.gamma(0.5, E6), dense.gamma(0.5, E6)),
    "lrp-gamma 0 is lrp-0": ("lrp-gamma", {"gamma": 0, "stabiliser": 0}, dense.epsilon(0), dense.epsilon(0)),
    "lrp-alphabeta": ("lrp-alphabeta", {}, dense.alpha_beta(2, 1, E6), dense.alpha_beta(2, 1, E6)),
    "lrp-alphabeta 3, 2": (
        "lrp-alphabeta", {"alpha": 3, "beta": 2}, dense.alpha_beta(3, 2, E6), dense.alpha_beta(3, 2, E6)),
    "lrp-alphabeta, alpha 3": ("lrp-alphabeta", {"alpha": 3}, dense.alpha_beta(3, 2, E6), dense.alpha_beta(3, 2, E6)),
    "lrp-alphabeta, beta 0": ("lrp-alphabeta", {"beta": "0"}, dense.alpha_beta(1, 0, E6), dense.alpha_beta(1, 0, E6)),
    "lrp-alphabeta 1, 0, no bias": (
        "lrp-alphabeta", {"alpha": 1, "beta": 0, "bias": False},
        dense.alpha_beta(1, 0, E6, False), dense.alpha_beta(1, 0, E6, False)),
    "lrp-alphabeta of iNNvestigate": (
        "lrp-alphabeta", {"compat": "innvestigate"},
        dense.alpha_beta_whole_bias(2, 1, E6), dense.alpha_beta_whole_bias(2, 1, E6)),
    "lrp-zplus": ("lrp-zplus", {}, dense.alpha_beta(1, 0, E6), dense.alpha_beta(1, 0, E6)),
    "lrp-zplus of iNNvestigate": (
        "lrp-zplus", {"compat": "innvestigate"}, dense.alpha_beta(1, 0, E6, False), dense.alpha_beta(1, 0, E6, False)),
    "lrp-zplus of Captum": (
        "lrp-zplus", {"compat": "captum"}, dense.captum_alpha1_beta0(), dense.captum_alpha1_beta0()),
    "lrp-epsilon-plus": ("lrp-epsilon-plus", {"epsilon": 0.2}, dense.epsilon(0.2), dense.epsilon(0.2)),
    "lrp-epsilon-plus-flat": ("lrp-epsilon-plus-flat", {}, dense.flat(E6, np.ones((6, 8))), dense.epsilon(E6)),
    "excitation-backprop": (
        "excitation-backprop", {}, dense.alpha_beta(1, 0, E6, False), dense.alpha_beta(1, 0, E6, False)),
    "excitation-backprop of zennit": (
        "excitation-backprop", {"compat": "zennit"}, dense.alpha_beta(1, 0, E6), dense.alpha_beta(1, 0, E6)),
    "lrp-composite": ("lrp-composite", {"low": "-9", "high": "10"}, dense.box(E6), dense.epsilon(0)),
}  # fmt: skip


@pytest.mark.parametrize(("method", "how", "lower", "upper"), EVERY.values(), ids=EVERY)
def test_two_layers_by_hand(method: str, how: dict[str, Any], lower: dense.Rule, upper: dense.Rule) -> None:
    found = explained(method, **how)
    assert relative_error(found["attribution"], by_hand(lower, upper, X)) <= 1e-5
    scores = found["y"].max(axis=1)
    assert np.array_equal(found["explained_score"], scores)
    assert np.abs(found["residual"] - (scores - found["attribution"].sum(axis=1))).max() <= 1e-5


@pytest.mark.parametrize(("method", "how", "lower"), [
    ("deep-taylor", {}, dense.w_square(E6)),
    ("deep-taylor-bounded", {"low": "-9", "high": "10"}, dense.box(E6)),
])  # fmt: skip
def test_deep_taylor_by_hand(method: str, how: dict[str, Any], lower: dense.Rule) -> None:
    """Survey eq. 16 to 18: w^2 or the box at the input, z+ without bias above, and only evidence for the class."""
    upper = dense.alpha_beta(1, 0, E6, False)
    found = explained(method, **how)
    assert relative_error(found["attribution"], by_hand(lower, upper, X, rectify=True)) <= 1e-5


def refusal(method: str, model: onnx.ModelProto | None = None, **how: Any) -> str:
    with pytest.raises(UsageError) as error:
        compile_model(mlp() if model is None else model, method, **how)
    return str(error.value)


@pytest.mark.parametrize(("alpha", "beta", "said"), [(2, 0.5, "alpha=2, beta=0.5"), (0.5, -0.5, "alpha=0.5, beta=-0.5"),
                                                     (1, 1, "alpha=1, beta=1")])  # fmt: skip
def test_alpha_and_beta_that_do_not_conserve(alpha: float, beta: float, said: str) -> None:
    want = f"{said}: relevance is conserved only for alpha = beta + 1 and beta >= 0."
    assert refusal("lrp-alphabeta", alpha=alpha, beta=beta) == want


def test_of_alpha_and_beta_one_follows_from_the_other() -> None:
    """Both are recorded. What follows may still be what there is not."""
    compiled = compile_model(mlp(), "lrp-alphabeta,lrp-eps", beta=0)
    entries = {e.key: e.value for e in compiled.metadata_props}
    recorded = json.loads(entries["onnxplain.parameters"])["lrp-alphabeta"]
    assert (recorded["alpha"], recorded["beta"]) == (1, 0)
    assert refusal("lrp-alphabeta", alpha=0.5) == (
        "alpha=0.5, beta=-0.5: relevance is conserved only for alpha = beta + 1 and beta >= 0."
    )


def test_parameters_that_there_are_not() -> None:
    assert refusal("lrp-gamma", gamma=-0.25) == (
        "parameter 'gamma' of lrp-gamma must be at least 0, not -0.25.\n"
        "  gamma: how much more positive contributions count."
    )
    assert refusal("lrp-eps", epsilon="tiny") == (
        "parameter 'epsilon' of lrp-eps must be of kind float, not 'tiny'.\n  epsilon: of the epsilon rule."
    )
    assert refusal("lrp-eps", epsilon=float("nan")).startswith("parameter 'epsilon' of lrp-eps must be at least 0")
    for name, value in (("alpha", "nan"), ("alpha", "inf"), ("beta", "-inf")):
        assert refusal("lrp-alphabeta", **{name: value}).startswith(
            f"parameter '{name}' of lrp-alphabeta must be finite, not '{value}'.\n"
        )
    assert refusal("lrp-gamma", gamma=float("inf")).startswith("parameter 'gamma' of lrp-gamma must be finite, not inf")
    assert refusal("lrp-eps", compat="captun") == (
        "parameter 'compat' of lrp-eps cannot be 'captun'. Did you mean 'captum'? "
        "The choices are: none, captum, zennit."
    )
    assert refusal("lrp-epsilon-plus", compat="captum") == (
        "parameter 'compat' of lrp-epsilon-plus cannot be 'captum'. The choices are: none, zennit."
    )
    assert refusal("lrp-eps", compat="innvestigate") == (
        "parameter 'compat' of lrp-eps cannot be 'innvestigate'. The choices are: none, captum, zennit."
    )
    assert refusal("lrp-alphabeta", compat="captum") == (
        "compat=captum has alpha=1, beta=0 alone, as Captum does: --set alpha=1 --set beta=0."
    )
    assert refusal("lrp-0", epsilon=1).startswith("lrp-0 has no parameter 'epsilon'. The parameters are: bias, compat,")


CONVENTIONS = [
    (method.name, choice)
    for method in onnxplain.methods()
    for parameter in method.parameters
    if parameter.name == "compat"
    for choice in parameter.choices
    if choice != "none"
]


@pytest.mark.parametrize(("method", "library"), CONVENTIONS)
def test_every_convention_that_there_is_changes_something(method: str, library: str) -> None:
    """On signed values, with biases, a batch norm that is folded and one that stands alone.

    Under LRP-0 a layer and its batch norm share alike apart and as one: Captum's stabiliser alone makes a difference.
    """
    rng = np.random.default_rng(5)
    given = {"w": rng.standard_normal((4, 3, 3, 3)), "b": rng.standard_normal(4), "v": rng.standard_normal((16, 5)),
             "a": rng.standard_normal(5), "m": np.zeros(4), "s": np.ones(4)}  # fmt: skip
    given |= {"k": rng.uniform(0.5, 2, 4), "c": rng.standard_normal(4), "l": rng.uniform(0.5, 2, 4), "d": np.ones(4)}
    body = """<int64[2] flat = {-1, 16}> e = Conv(x, w, b) n = BatchNormalization(e, k, c, m, s) r = Relu(n)
        p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r) o = BatchNormalization(p, l, d, m, s)
        f = Reshape(o, flat) y = Gemm(f, v, a)"""
    model = small(" ".join(body.split()), (2, 3, 6, 6), given)
    how: dict[str, Any] = {"alpha": 1, "beta": 0} if method == "lrp-alphabeta" else {}
    how |= {"low": "-2", "high": "2"} if "box" in method else {}
    how |= {"stabiliser": 0.1}
    plain = explained(method, model, PICTURE, **how)
    other = explained(method, model, PICTURE, compat=library, **how)
    assert relative_error(other["y"], plain["y"]) <= 1e-5
    assert relative_error(other["attribution"], plain["attribution"]) > 1e-2


# The bounds of the box rule


@cache
def picture_model() -> onnx.ModelProto:
    """A convolution of a colour picture behind a scaling, and a dense layer."""
    rng = np.random.default_rng(3)
    given = {"k": np.asarray([2.0, -1.0, 0.5]).reshape(3, 1, 1), "w": rng.standard_normal((4, 3, 3, 3)),
             "b": rng.standard_normal(4), "v": rng.standard_normal((64, 5))}  # fmt: skip
    body = "<int64[2] s = {-1, 64}> a = Mul(x, k) c = Conv(a, w, b) h = Relu(c) f = Reshape(h, s) y = MatMul(f, v)"
    return small(body, (2, 3, 6, 6), given)


PREPROCESS = {"scale": 1 / 255, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5]}
PICTURE = np.random.default_rng(4).uniform(-1.5, 2, (2, 3, 6, 6)).astype(np.float32)


@pytest.mark.parametrize("method", ["lrp-epsilon-gamma-box", "lrp-composite", "deep-taylor-bounded"])
def test_bounds_come_from_the_preprocessing(method: str) -> None:
    auto = explained(method, picture_model(), PICTURE, preprocess=PREPROCESS)
    low = ",".join(str(-m / s) for m, s in zip(PREPROCESS["mean"], PREPROCESS["std"], strict=True))  # type: ignore[call-overload]
    high = ",".join(str((1 - m) / s) for m, s in zip(PREPROCESS["mean"], PREPROCESS["std"], strict=True))  # type: ignore[call-overload]
    given = explained(method, picture_model(), PICTURE, low=low, high=high)
    assert relative_error(auto["attribution"], given["attribution"]) <= 1e-6
    other = explained(method, picture_model(), PICTURE, low="-9", high="9")
    assert relative_error(auto["attribution"], other["attribution"]) > 1e-2


def test_bounds_pass_what_lies_in_front_of_the_first_layer() -> None:
    """The same network without its scaling, on a picture and bounds that are scaled, the negative factor's turned."""
    scaled = picture_model()
    plain = onnx.ModelProto()
    plain.CopyFrom(scaled)
    plain.graph.node.remove(plain.graph.node[0])
    plain.graph.node[0].input[0] = "x"
    k = np.asarray([2.0, -1.0, 0.5], np.float32).reshape(3, 1, 1)
    inside = explained("lrp-epsilon-gamma-box", scaled, PICTURE, low="-2", high="3")
    outside = explained("lrp-epsilon-gamma-box", plain, PICTURE * k, low="-4,-3,-1", high="6,2,1.5")
    assert relative_error(inside["attribution"], outside["attribution"]) <= 1e-5


@pytest.mark.parametrize(("body", "shape"), [
    ("h = MatMul(x, m) a = Add(h, b) r = Relu(a) q = ReduceMean<keepdims = 0>(r, one) y = MatMul(q, v)", (4, 3)),
    ("""f = Reshape(x, frames) c = Conv(f, k) r = Relu(c) p = ReduceMean<keepdims = 0>(r, space)
        q = Reshape(p, videos) z = ReduceMean<keepdims = 0>(q, one) y = MatMul(z, v)""", (2, 3, 5, 5)),
], ids=["tokens", "frames"])  # fmt: skip
@pytest.mark.parametrize("method", ["lrp-composite", "deep-taylor-bounded", "lrp-epsilon-gamma-box"])
def test_bounds_where_samples_lie_along_an_axis_with_others(method: str, body: str, shape: tuple[int, ...]) -> None:
    """Tokens and frames become rows of one layer: the bounds are then those of as many samples."""
    sizes = ",".join(map(str, shape))
    model = net(f"""g (float[N,{sizes}] x) => (float[N,3] y)
        <int64[4] frames = {{-1, 3, 5, 5}}, int64[3] videos = {{-1, 2, 6}},
         int64[1] one = {{1}}, int64[2] space = {{2, 3}}>
        {{ {body} }}""")
    rng = np.random.default_rng(7)
    for name, size in {"m": (3, 6), "b": (6,), "k": (6, 3, 3, 3), "v": (6, 3)}.items():
        weights = rng.standard_normal(size).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    x = rng.uniform(-2, 2, (3, *shape)).astype(np.float32)
    found = explained(method, model, x, low="-2", high="2", target=0)
    for i in range(len(x)):
        alone = explained(method, model, x[i : i + 1], low="-2", high="2", target=0)
        assert relative_error(found["attribution"][i : i + 1], alone["attribution"]) <= 1e-5


def test_nothing_is_clamped() -> None:
    """A picture outside the bounds is explained as it is: contributions then have the wrong sign. The docs say so."""
    narrow = explained("lrp-epsilon-gamma-box", picture_model(), PICTURE, low="-0.5", high="0.5")
    within = explained("lrp-epsilon-gamma-box", picture_model(), PICTURE.clip(-0.5, 0.5), low="-0.5", high="0.5")
    assert relative_error(narrow["y"], within["y"]) > 1e-2
    assert relative_error(narrow["attribution"], within["attribution"]) > 1e-2


def test_bounds_that_are_not_known_or_make_no_sense() -> None:
    box = "lrp-epsilon-gamma-box"
    assert refusal(box, picture_model()) == (
        "the box rule needs the lowest input value, which is not known.\n"
        "  Say how pictures become the input (--preprocess), or give it: --set low=NUMBER."
    )
    assert refusal(box, picture_model(), low="0").startswith("the box rule needs the highest input value")
    assert refusal(box, picture_model(), low="0,0", high="1") == (
        "low has 2 numbers, and the input has 3 channels: one, or one for each, is needed."
    )
    assert refusal(box, picture_model(), low="black", high="1") == (
        "low='black' is not a number, nor numbers separated by commas."
    )
    for low in ("nan", "-inf,0,0"):
        assert refusal(box, picture_model(), low=low, high="1") == f"low={low!r} must be finite."
    assert refusal(box, picture_model(), low="1", high="0") == "low=1 is not below high=0 in every channel."
    assert (
        refusal(box, picture_model(), low="0,0,0", high="1,0,1")
        == "low=0,0,0 is not below high=1,0,1 in every channel."
    )


def test_pixels_that_are_only_scaled_are_not_negative() -> None:
    """Then the first layer needs no terms for negative operands; the result is the same."""
    scaled = {"scale": 1 / 255, "mean": [0.0], "std": [1.0]}
    pixels = np.abs(PICTURE)
    for method in ("lrp-zplus", "lrp-gamma", "lrp-alphabeta"):
        known = compile_model(picture_model(), method, preprocess=scaled)
        unknown = compile_model(picture_model(), method)
        shifted = compile_model(picture_model(), method, preprocess=PREPROCESS)
        assert len(shifted.graph.node) == len(unknown.graph.node)
        assert relative_error(run(known, pixels)["attribution"], run(unknown, pixels)["attribution"]) <= 1e-5


def test_options_of_pools_gates_and_norms_reach_the_table() -> None:
    """What they do is tested rule by rule; here, that a method hands them on."""
    given = {"k": np.ones(3), "b": np.full(3, 0.5), "m": np.zeros(3), "s": np.ones(3), "v": np.ones((27, 2))}
    body = """<int64[2] flat = {-1, 27}> p = MaxPool<kernel_shape = [2, 2]>(x) n = BatchNormalization(p, k, b, m, s)
        g = Sigmoid(n) h = Mul(n, g) f = Reshape(h, flat) y = MatMul(f, v)"""
    model, x = small(" ".join(body.split()), (2, 3, 4, 4), given), np.abs(PICTURE[:, :, :4, :4])
    found = {
        name: explained("lrp-eps", model, x, **how)["attribution"]
        for name, how in {
            "default": {}, "pool": {"pool": "proportional"}, "gate": {"gate": "share"}, "norm": {"norm": "pass"},
            "zennit": {"compat": "zennit"},
        }.items()
    }  # fmt: skip
    assert all(relative_error(found[name], found["default"]) > 1e-2 for name in ("pool", "norm"))
    assert relative_error(found["gate"], found["default"]) <= 1e-5  # both halves come back to the same tensor
    assert np.array_equal(found["zennit"], found["norm"])
