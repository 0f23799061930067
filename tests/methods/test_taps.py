"""Which layer is tapped: the one that a person would choose, or the one that is named."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, numpy_helper

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedModel, UsageError
from onnxplain.ir.load import load
from onnxplain.opening import Request, open_model
from onnxplain.passes.canonical import canonicalise
from onnxplain.passes.explain.tap import candidates, find_tap
from tests.catalogue import LIGHT, SPECIMENS, Specimen, parameters
from tests.models.nets import Plain, ready
from tests.running import assert_near, net, run

EXPECTED: dict[str, tuple[str, str, tuple[int, ...]]] = {
    "mnist_cntk": ("Relu", "ReLU114_Output_0", (14, 14)),  # before the last pooling
    "mnist_zero_one": ("Relu", "14", (7, 7)),  # the pooling stands between convolution and ReLU
    "vww_96": ("Relu", "Relu__83:0", (3, 3)),
    "cifar10_resnet2b": ("Relu", "29", (8, 8)),  # after the last residual sum
    "cifar10_conv": ("Relu", "12", (8, 8)),
    "cifar10_vit": ("Add", "/1/1.2/1.2.1/Add_output_0", (4, 4)),  # no convolution: the tokens of 4 by 4 patches
    "light_bvlc_alexnet": ("Relu", "r13", (12, 12)),
    "light_densenet121": ("Relu", "r907", (7, 7)),  # after the last concatenation and its batch norm
    "light_inception_v1": ("Concat", "r137", (6, 6)),  # where the branches join
    "light_inception_v2": ("Concat", "r504", (7, 7)),
    "light_resnet50": ("Relu", "r171", (7, 7)),
    "light_shufflenet": ("Relu", "r198", (7, 7)),
    "light_squeezenet": ("Relu", "r64", (13, 13)),
    "light_vgg19": ("Relu", "r35", (14, 14)),
    "light_zfnet512": ("Relu", "r13", (12, 12)),
    "digits": ("Relu", "/features/features.6/Relu_output_0", (4, 4)),
    "shapes": ("Relu", "relu_7", (16, 16)),
    "cleverhans": ("Relu", "/features/features.8/Relu_output_0", (16, 16)),
}


RNG = np.random.default_rng(0)


def opened(model: ModelProto) -> Any:
    return open_model(canonicalise(load(model))[0], Request())


@pytest.mark.parametrize("specimen", parameters(replace(s, heavy=False) for s in SPECIMENS))
def test_the_last_activated_maps_that_all_paths_pass(specimen: Specimen) -> None:
    found = opened(specimen.load() if specimen.trained else onnx.load(LIGHT / f"{specimen.name}.onnx"))
    tap = find_tap(found.forward, found.layout)
    assert (tap.value.tensor.inputs[0].op, tap.value.name, tap.grid.shape) == EXPECTED[specimen.name]


CHAINS: list[tuple[str, str]] = [
    ("c = Conv(x, w) p = GlobalAveragePool(c)", "c"),
    ("c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r)", "r"),
    ("c = Conv(x, w) r = Relu(c) m = MaxPool<kernel_shape = [2, 2]>(r) p = GlobalAveragePool(m)", "r"),
    ("c = Conv(x, w) m = MaxPool<kernel_shape = [2, 2]>(c) r = Relu(m) p = GlobalAveragePool(r)", "r"),
    ("c = Conv(x, w) s = Sigmoid(c) r = Mul(c, s) p = GlobalAveragePool(r)", "r"),
    ("c = Conv(x, w) r = Relu(c) d = Conv(r, v) a = Add(r, d) p = GlobalAveragePool(a)", "a"),
    ("c = Conv(x, w) r = Relu(c) d = Conv(r, v) a = Add(r, d) e = Relu(a) p = GlobalAveragePool(e)", "e"),
    ("c = Conv(x, w) r = Relu(c) d = Conv(r, v) e = Relu(d) a = Concat<axis = 1>(r, e) p = GlobalMaxPool(a)", "a"),
    ("c = Conv(x, w) b = ConvTranspose(c, v) r = LeakyRelu(b) p = GlobalAveragePool(r)", "r"),
    ("c = Conv(x, w) r = Relu(c) g = GlobalAveragePool(r) k = Conv(g, v) r2 = Relu(k) p = GlobalAveragePool(r2)", "r"),
]


@pytest.mark.parametrize(("chain", "expected"), CHAINS)
def test_which_of_a_chain(chain: str, expected: str) -> None:
    numbers = {name: ",".join(["0.5"] * n) for name, n in (("w", 6), ("v", 4))}
    text = f"""g (float[N,3,8,8] x) => (float[N,k] y)
        <float[2,3,1,1] w = {{{numbers["w"]}}}, float[2,2,1,1] v = {{{numbers["v"]}}}> {{ {chain} y = Flatten(p) }}"""
    found = opened(net(text))
    assert find_tap(found.forward, found.layout).value.name == expected


POOLED = "c = Conv(x, w) r = Relu(c) m = AveragePool<kernel_shape = [4, 4], strides = [4, 4]>(r) "


@pytest.mark.parametrize(
    ("chain", "size", "expected"),
    [
        (POOLED + "d = Conv(m, v) q = ReduceMean<keepdims = 1>(d, space)", "H", "r"),
        (POOLED + "d = Conv(m, v) e = Relu(d) q = ReduceMean<keepdims = 1>(e, space)", "H", "r"),
        (POOLED + "d = Conv(m, v) e = Relu(d) f = Conv(e, v) q = ReduceMean<keepdims = 1>(f, space)", "H", "r"),
        (POOLED + "d = Conv(m, v) q = ReduceMean<keepdims = 1>(d, space)", 8, "d"),
        (POOLED + "d = Conv(m, v) q = ReduceMean<keepdims = 1>(d, space)", 4, "r"),
        (POOLED + "d = Conv<pads = [1, 1, 1, 1]>(m, k) q = ReduceMean<keepdims = 1>(d, space)", "H", "d"),
    ],
)
def test_an_average_that_is_the_whole_map_for_pictures_of_the_network_s_own_size(
    chain: str, size: int | str, expected: str
) -> None:
    """Where sizes are free, what lies behind it may be one place, whose map is nothing."""
    numbers = {name: ",".join(["0.5"] * n) for name, n in (("w", 6), ("v", 4), ("k", 36))}
    text = f"""g (float[N,3,{size},{size}] x) => (float[N,2] y)
        <float[2,3,1,1] w = {{{numbers["w"]}}}, float[2,2,1,1] v = {{{numbers["v"]}}},
         float[2,2,3,3] k = {{{numbers["k"]}}}, int64[2] space = {{2, 3}}> {{ {chain} y = Flatten(q) }}"""
    found = opened(net(text))
    assert find_tap(found.forward, found.layout).value.name == expected


def test_candidates_are_listed_in_order_with_their_shapes() -> None:
    found = opened(ready(Plain, 3, 16, 16, exporter="torchscript"))
    listed = candidates(found.forward, found.layout)
    assert [(c.op, c.shape[1:], c.cut) for c in listed[:3]] == [
        ("Conv", (8, 16, 16), True),
        ("Relu", (8, 16, 16), True),
        ("MaxPool", (8, 8, 8), True),
    ]
    assert all(len(c.shape) == 4 for c in listed)
    assert find_tap(found.forward, found.layout).value.name in {c.value.name for c in listed}


X = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize(
    "layer",
    [
        "/features/features.2/MaxPool",
        "/features/features.2/MaxPool_output_0",
        "*features.2*",
        "*MaxPool*",
        "*features.?/MaxPool",
    ],
)
def test_a_layer_is_named_by_node_by_tensor_or_by_a_pattern(layer: str) -> None:
    model = ready(Plain, 3, 16, 16, exporter="torchscript")
    for method in ("grad-cam", "fem"):
        assert run(compile_model(model, method, layer=layer), X)["attribution"].shape == (2, 8, 8)
    assert run(compile_model(model, "guided-grad-cam", layer=layer), X)["attribution"].shape == X.shape


def test_of_several_matches_the_last_with_places_counts() -> None:
    """The head has a ReLU too, behind which there are no places left."""
    model = ready(Plain, 3, 16, 16, exporter="torchscript")
    by_pattern, by_itself = (run(compile_model(model, "fem", layer=name), X)["attribution"] for name in ("*Relu*", ""))
    np.testing.assert_array_equal(by_pattern, by_itself)


REFUSED: list[tuple[str, str]] = [
    (
        "/features/feature.2/MaxPool",
        "there is no layer '/features/feature.2/MaxPool' between the input and the score. "
        "Did you mean '/features/features.2/MaxPool'",
    ),
    (
        "nothing*",
        "there is no layer 'nothing*' between the input and the score. The layers are: /features/features.0/Conv,",
    ),
    ("/head/head.2/Relu", "layer '/head/head.2/Relu' has shape (N, 16): its spatial extent is gone"),
    ("y", "layer 'y' has shape (N, 5): its spatial extent is gone, and its map would be one number."),
]


@pytest.mark.parametrize(("layer", "message"), REFUSED)
def test_a_layer_that_is_not_there_or_has_no_places_is_refused(layer: str, message: str) -> None:
    for method in ("grad-cam", "guided-grad-cam", "fem"):
        with pytest.raises(UsageError, match=re.escape(message)) as caught:
            compile_model(ready(Plain, 3, 16, 16, exporter="torchscript"), method, layer=layer)
        assert "`onnxplain plan` lists" in str(caught.value)


DENSE = "g (float[N,4] x) => (float[N,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}> { r = Relu(x) y = MatMul(r, w) }"


@pytest.mark.parametrize("method", ["grad-cam", "fem", "guided-grad-cam"])
def test_a_network_without_maps_is_refused(method: str) -> None:
    with pytest.raises(UnsupportedModel, match="no layer with spatial extent lies on all paths"):
        compile_model(net(DENSE), method)


@pytest.mark.parametrize("name", ["digits", "mnist_cntk", "cifar10_resnet2b", "light_squeezenet"])
def test_cam_says_why_a_network_is_not_of_its_form(name: str) -> None:
    specimen = next(s for s in SPECIMENS if s.name == name)
    if specimen.missing:
        pytest.skip(specimen.missing)
    if name == "light_squeezenet":
        # a convolution, a ReLU, and then the mean: the pooled features are the scores themselves
        assert "attribution" in {o.name for o in compile_model(specimen.load(), "cam").graph.output}
        return
    with pytest.raises(UnsupportedModel, match="cam needs a network that ends in global average pooling") as caught:
        compile_model(specimen.load(), "cam")
    assert "Use grad-cam" in str(caught.value)


POOLS = {
    "GlobalAveragePool": True,
    "AveragePool<kernel_shape = [8, 8]>": True,
    "AveragePool<kernel_shape = [6, 6], strides = [6, 6]>": False,
    "AveragePool<kernel_shape = [10, 10], pads = [1, 1, 1, 1], count_include_pad = 1>": False,
    "AveragePool<kernel_shape = [4, 4], dilations = [2, 2], strides = [2, 2]>": False,
}


@pytest.mark.parametrize("pool", POOLS)
def test_cam_asks_for_a_mean_over_all_positions(pool: str) -> None:
    listed = [", ".join(map(str, RNG.standard_normal(n).round(3))) for n in (108, 20)]
    model = net(
        f"""g (float[N,3,8,8] x) => (float[N,5] y) <float[4,3,3,3] w = {{{listed[0]}}},
        float[5,4] v = {{{listed[1]}}}> {{ c = Conv<pads = [1, 1, 1, 1]>(x, w) r = Relu(c) p = {pool}(r)
        f = Flatten(p) y = Gemm<transB = 1>(f, v) }}""",
        opset=21,
    )
    if not POOLS[pool]:
        with pytest.raises(UnsupportedModel, match="it has no global average pooling before its last layer"):
            compile_model(model, "cam")
        return
    returned = run(compile_model(model, "cam"), RNG.standard_normal((2, 3, 8, 8)).astype(np.float32))
    np.testing.assert_allclose(returned["attribution"].mean((1, 2)), returned["explained_score"], rtol=1e-5)


ENDS = {
    "maps": "p = ReduceMean<keepdims = 0>(r, space)",
    "maps, axes kept": "q = ReduceMean(r, space) p = Flatten(q)",
    "channels last": "t = Transpose<perm = [0, 2, 3, 1]>(r) p = ReduceMean<keepdims = 0>(t, rows)",
    "channels last, axes kept": "t = Transpose<perm = [0, 2, 3, 1]>(r) q = ReduceMean(t, rows) p = Flatten(q)",
    "tokens": "f = Reshape(r, flat) t = Transpose<perm = [0, 2, 1]>(f) p = ReduceMean<keepdims = 0>(t, one)",
}


@pytest.mark.parametrize("end", ENDS)
def test_cam_finds_the_places_however_they_lie(end: str) -> None:
    x = RNG.standard_normal((2, 3, 8, 6)).astype(np.float32)
    listed = [", ".join(map(str, np.random.default_rng(1).standard_normal(n).round(3))) for n in (108, 20)]
    texts = [
        f"""g (float[N,3,8,6] x) => (float[N,5] y) <float[4,3,3,3] w = {{{listed[0]}}}, float[4,5] v = {{{listed[1]}}},
        int64[2] space = {{2, 3}}, int64[2] rows = {{1, 2}}, int64[1] one = {{1}}, int64[3] flat = {{0, 4, -1}}> {{
        c = Conv<pads = [1, 1, 1, 1]>(x, w) r = Relu(c) {how} y = MatMul(p, v) }}"""
        for how in (ENDS[end], "q = GlobalAveragePool(r) p = Flatten(q)")
    ]
    found, expected = (run(compile_model(net(text), "cam"), x) for text in texts)
    assert found["attribution"].shape == (2, 8, 6)
    np.testing.assert_allclose(found["attribution"], expected["attribution"], rtol=1e-5, atol=1e-6)


NORMED = """g (float[N,3,6,6] x) => (float[N,2] y) {
    c = Conv(x, w, b) n = BatchNormalization(c, gamma, beta, mean, variance) r = Relu(n)
    p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, v) }"""


def normed() -> tuple[ModelProto, dict[str, torch.Tensor]]:
    rng = np.random.default_rng(3)
    sizes = {"w": (4, 3, 3, 3), "b": 4, "gamma": 4, "beta": 4, "mean": 4, "variance": 4, "v": (4, 2)}
    weights = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    weights["variance"] = abs(weights["variance"]) + np.float32(0.1)
    model = net(NORMED)
    model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in weights.items())
    for node in model.graph.node:
        node.name = f"{node.op_type.lower()}"
    return model, {name: torch.tensor(a) for name, a in weights.items()}


@pytest.mark.parametrize(
    ("layer", "normalised"), [("conv", False), ("c", False), ("batchnormalization", True), ("n", True)]
)
def test_a_layer_that_is_named_is_that_layer_and_not_its_batch_norm(layer: str, normalised: bool) -> None:
    model, w = normed()
    x = X[:, :, :6, :6]
    features = torch.nn.functional.conv2d(torch.tensor(x), w["w"], w["b"])
    if normalised:
        scale = (w["gamma"] / torch.sqrt(w["variance"] + 1e-5))[:, None, None]
        features = (features - w["mean"][:, None, None]) * scale + w["beta"][:, None, None]
    features.requires_grad_()
    if normalised:
        rest = features
    else:
        scale = (w["gamma"] / torch.sqrt(w["variance"] + 1e-5))[:, None, None]
        rest = (features - w["mean"][:, None, None]) * scale + w["beta"][:, None, None]
    scores = torch.relu(rest).mean((2, 3)) @ w["v"]
    (d,) = torch.autograd.grad(scores[:, 1].sum(), features)
    want = torch.relu((d.mean((2, 3), keepdim=True) * features).sum(1)).detach().numpy()
    for names in ("grad-cam", "gradient,grad-cam"):
        compiled = compile_model(model, names, layer=layer, target=1)
        found = run(compiled, x)
        assert_near(found["attribution" if names == "grad-cam" else "attribution_grad-cam"], want, 1e-5)


def test_a_layer_whose_batch_norm_another_method_folds_is_refused() -> None:
    model, _ = normed()
    with pytest.raises(UsageError) as caught:
        compile_model(model, "lrp-eps,grad-cam", layer="conv")
    assert str(caught.value) == (
        "layer 'conv' has a scale at its side that lrp-eps folds into it, and then is no layer by itself.\n"
        "  Compile the two methods one by one."
    )
    compile_model(model, "lrp-eps,grad-cam", layer="relu")
