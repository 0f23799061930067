"""Grad-CAM and FEM where places are tokens, windows or channels-last maps, against hooks in torch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from onnxplain import UsageError
from onnxplain.ir.load import load
from onnxplain.opening import Opened, Request, open_model
from onnxplain.passes.canonical import canonicalise
from onnxplain.passes.explain.tap import Candidate, candidates, find_tap
from tests.catalogue import SHARED
from tests.running import Array, assert_near, explained, net
from tests.tokens.networks import NETWORKS, exported, features_and_gradient, made, pictures

EXPORTS = [("torchscript", True), ("torchscript", False), ("dynamo", True), ("dynamo", False)]


def opened(model: onnx.ModelProto) -> Opened:
    subject, _ = canonicalise(load(model))
    return open_model(subject, Request())


def listed(model: onnx.ModelProto) -> dict[str, Candidate]:
    each = opened(model)
    return {c.value.name: c for c in candidates(each.forward, each.layout)}


def grad_cam(features: Tensor, d: Tensor) -> Array:
    cam: Array = (d.mean((2, 3), keepdim=True) * features).sum(1).relu().numpy()
    return cam


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("exporter", "dynamic"), EXPORTS)
def test_grad_cam_weighs_the_last_layer_whose_places_count(name: str, exporter: str, dynamic: bool) -> None:
    network, x = made(name), pictures()
    found = explained(exported(network, exporter, dynamic=dynamic), x.numpy(), "grad-cam")
    expected = grad_cam(*features_and_gradient(network, x))
    assert expected.any(axis=(1, 2)).all(), "a map of zeros would show nothing"
    assert_near(found["attribution"], expected, 1e-4, name)
    assert found["heatmap"].shape == (2, 16, 24)


@pytest.mark.parametrize("name", NETWORKS)
def test_fem_looks_at_the_same_layer(name: str) -> None:
    network, x = made(name), pictures()
    features, _ = features_and_gradient(network, x)
    mean = features.mean((2, 3), keepdim=True)
    deviation = features.std((2, 3), keepdim=True, correction=0)
    expected = (mean * (features >= mean + deviation)).sum(1).numpy()
    assert_near(explained(exported(network), x.numpy(), "fem")["attribution"], expected, 1e-4, name)


def test_a_batch_other_than_the_exported_one_runs() -> None:
    network, x = made("class token"), pictures(5)
    found = explained(exported(network), x.numpy(), "grad-cam")
    assert_near(found["attribution"], grad_cam(*features_and_gradient(network, x)), 1e-4)


def test_a_layer_of_which_the_class_token_alone_is_read_is_refused_by_grad_cam_and_taken_by_fem() -> None:
    network, x = made("class token"), pictures()
    model = exported(network)
    last = [n.output[0] for n in model.graph.node if n.op_type == "LayerNormalization"][-1]
    with pytest.raises(UsageError, match="only on its class token"):
        explained(model, x.numpy(), "grad-cam", layer=last)
    assert explained(model, x.numpy(), "fem", layer=last)["attribution"].any()


def test_an_earlier_block_can_be_named() -> None:
    network, x = made("class token"), pictures()
    model = exported(network)
    first = next(n.output[0] for n in model.graph.node if n.op_type == "LayerNormalization")
    network.looked_at = network.blocks[0].norm1  # type: ignore[union-attr,index]
    found = explained(model, x.numpy(), "grad-cam", layer=first)
    assert_near(found["attribution"], grad_cam(*features_and_gradient(network, x)), 1e-4)


def test_a_tensor_whose_places_were_mixed_is_refused_by_name() -> None:
    model = exported(made("class token"))
    weights = next(n.output[0] for n in model.graph.node if n.op_type == "Softmax")
    with pytest.raises(UsageError, match="which of its axes are places of the picture is not known"):
        explained(model, pictures().numpy(), "grad-cam", layer=weights)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_plan_lists_has_the_shape_of_maps_and_no_attention_matrix(name: str) -> None:
    found = listed(exported(made(name), dynamic=False))
    assert found
    for candidate in found.values():
        assert len(candidate.shape) == 4
        assert candidate.shape[2] in (4, 8), candidate
        assert candidate.shape[3] in (6, 12), candidate
        assert candidate.op != "Softmax"


def test_every_layer_that_is_listed_can_be_tapped() -> None:
    model, x = exported(made("windows")), pictures().numpy()
    for name, candidate in listed(model).items():
        shape = explained(model, x, "grad-cam", layer=name)["attribution"].shape
        assert shape == (2, *candidate.shape[2:]), name


def test_a_layer_named_gives_maps_whose_places_are_where_they_are_in_the_picture() -> None:
    """One patch is brightened: whatever layer is looked at, its map changes there and nowhere else."""
    torch.manual_seed(0)
    text = """
      g (float[N,3,8,12] x) => (float[N,2] y)
      <float[4,3,2,2] w, float[4,2] h, int64[3] flat = {0, 4, 24}, int64[4] square = {0, 4, 6, 4}, int64[1] one = {1}>
      {
        c = Conv <strides = [2, 2]> (x, w)
        f = Reshape(c, flat)
        t = Transpose <perm = [0, 2, 1]> (f)
        l = Reshape(t, square)
        back = Reshape(l, r)
        m = ReduceMean <keepdims = 0> (back, one)
        y = MatMul(m, h)
      }
    """.replace("int64[1] one", "int64[3] r = {0, 24, 4}, int64[1] one")
    rng = np.random.default_rng(0)
    model = net(text)
    for weight, shape in (("w", (4, 3, 2, 2)), ("h", (4, 2))):
        values = rng.uniform(0.5, 1, shape).astype(np.float32)
        kept = [i for i in model.graph.initializer if i.name != weight]
        del model.graph.initializer[:]
        model.graph.initializer.extend([*kept, onnx.numpy_helper.from_array(values, weight)])
    x = np.zeros((1, 3, 8, 12), np.float32)
    x[:, :, 2:4, 8:10] = 1
    where = np.zeros((4, 6), bool)
    where[1, 4] = True
    for layer in "cftl":
        found = explained(model, x, "grad-cam", layer=layer)["attribution"][0]
        np.testing.assert_array_equal(found > 0, where, err_msg=layer)


@pytest.mark.skipif(not (SHARED / "models/cifar10_vit.onnx").exists(), reason="../shared is not there")
def test_the_real_vision_transformer_is_looked_at_before_its_mean_over_tokens() -> None:
    model = onnx.load(SHARED / "models/cifar10_vit.onnx")
    each = opened(model)
    tap = find_tap(each.forward, each.layout)
    assert tap.value.name == "/1/1.2/1.2.1/Add_output_0"
    assert (tap.grid.before, tap.grid.shape) == (1, (4, 4))
