"""Activation maps against Captum 0.9.0, and by hand."""

from __future__ import annotations

import warnings

import captum.attr
import numpy as np
import pytest
import torch
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from onnxplain.compiler import compile_model
from onnxplain.ir.load import load
from onnxplain.opening import Request, open_model
from onnxplain.passes.canonical import canonicalise
from onnxplain.passes.explain.tap import find_tap
from tests.catalogue import SPECIMENS, Floats, Specimen, with_batch
from tests.models.nets import EXPORTERS, Plain, ready, seeded
from tests.models.samples import for_parity, sample, specimens
from tests.oracle import Oracle
from tests.parity.fem import paper
from tests.parity.module import OracleModule
from tests.running import assert_near, run

MODELS = [p for p in for_parity() if p.id != "cifar10_vit"]
"""Those with a last convolution; the transformer has tokens."""


def tap_of(model: ModelProto) -> str:
    """The tensor that is tapped when no layer is named."""
    opened = open_model(canonicalise(load(model))[0], Request())
    return find_tap(opened.forward, opened.layout).value.name


def captums_grad_cam(module: nn.Module, layer: nn.Module, x: Floats) -> tuple[Tensor, Tensor]:
    """Each picture's class and rectified map (N, h, w), in float64."""
    given = torch.from_numpy(x).double().requires_grad_()
    classes = module.double().eval()(given).argmax(1)
    found = captum.attr.LayerGradCam(module, layer).attribute(given, target=classes, relu_attributions=True)
    return classes, found.detach()[:, 0]


def captums_guided_grad_cam(module: nn.Module, layer: nn.Module, x: Floats) -> Tensor:
    given = torch.from_numpy(x).double().requires_grad_()
    classes = module.double().eval()(given).argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ReLUs get hooks
        method = captum.attr.GuidedGradCam(module, layer)
        found: Tensor = method.attribute(given, target=classes, interpolate_mode="nearest")
    return found.detach()


@pytest.mark.parametrize("specimen", MODELS)
def test_grad_cam_of_whole_models(specimen: Specimen) -> None:
    given = sample(specimen)
    module = OracleModule(given.model, tap_of(given.model))
    classes, expected = captums_grad_cam(module, module.tap, given.pictures)
    returned = run(compile_model(with_batch(given.model, "N"), "grad-cam"), given.pictures)
    np.testing.assert_array_equal(returned["explained_class"], classes)
    assert_near(returned["attribution"], expected, 1e-4, str(specimen))
    channel = 3 if specimen.name == "vww_96" else 1
    spatial = [size for axis, size in enumerate(given.pictures.shape) if axis not in (0, channel)]
    coarse = torch.from_numpy(returned["attribution"]).double()
    fine = F.interpolate(coarse[:, None], size=spatial, mode="bilinear", align_corners=False)[:, 0].flatten(1)
    low, high = fine.amin(1, keepdim=True), fine.amax(1, keepdim=True)
    scaled = torch.where(high > low, (fine - low) / (high - low), 0)
    np.testing.assert_allclose(returned["heatmap"].reshape(len(scaled), -1), scaled, atol=1e-5)


@pytest.mark.parametrize("specimen", [p for p in MODELS if p.id != "vww_96"])
def test_guided_grad_cam_of_whole_models(specimen: Specimen) -> None:
    """Captum stretches the map to axes 2 and 3 of the input, which must be space."""
    given = sample(specimen)
    module = OracleModule(given.model, tap_of(given.model))
    expected = captums_guided_grad_cam(module, module.tap, given.pictures)
    compiled = compile_model(with_batch(given.model, "N"), "guided-grad-cam", interpolation="nearest")
    assert_near(run(compiled, given.pictures)["attribution"], expected, 1e-4, str(specimen))


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_maps_of_exported_networks(exporter: str) -> None:
    x = np.random.default_rng(2).standard_normal((3, 3, 16, 16)).astype(np.float32)
    net, model = seeded(Plain()), ready(Plain, 3, 16, 16, exporter=exporter)
    classes, expected = captums_grad_cam(net, net.features[-1], x)
    returned = run(compile_model(model, "grad-cam"), x)
    np.testing.assert_array_equal(returned["explained_class"], classes)
    assert_near(returned["attribution"], expected, 1e-5)
    guided = run(compile_model(model, "guided-grad-cam", interpolation="nearest"), x)
    assert_near(guided["attribution"], captums_guided_grad_cam(net, net.features[-1], x), 1e-5)


@pytest.mark.parametrize("specimen", [p for p in for_parity() if p.id == "cifar10_vit"])
def test_grad_cam_and_fem_of_a_transformer_by_hand(specimen: Specimen) -> None:
    """The tokens in the order of their patches, the class token left out, are a map."""
    x, model = specimen.images(3, 11), with_batch(specimen.load(), "N")
    module = OracleModule(model, tap_of(model))
    kept: list[Tensor] = []
    module.tap.register_forward_hook(lambda layer, given, tokens: kept.append(tokens))
    scores = module(torch.from_numpy(x).double().requires_grad_())
    classes = scores.argmax(1)
    (slopes,) = torch.autograd.grad(scores.gather(1, classes[:, None]).sum(), kept)
    tokens, slopes = (t.transpose(1, 2)[:, :, 1:].unflatten(2, (4, 4)).detach() for t in (kept[0], slopes))
    expected = torch.relu((tokens * slopes.mean((2, 3), keepdim=True)).sum(1))
    returned = run(compile_model(model, "grad-cam,fem"), x)
    np.testing.assert_array_equal(returned["explained_class"], classes)
    assert_near(returned["attribution_grad-cam"], expected, 1e-4)
    fem = np.stack([paper(maps, 1.0) for maps in tokens.numpy()])
    assert_near(returned["attribution_fem"], fem, 1e-4)


POOLED = {"shapes": "Gemm", "cleverhans": "Gemm", "light_resnet50": "Gemm", "light_densenet121": "Conv"}
"""Networks that end in global average pooling and one linear layer, and what that is."""


@pytest.mark.parametrize("specimen", specimens(quick=[], among=[s for s in SPECIMENS if s.name in POOLED]))
def test_cam_by_hand(specimen: Specimen) -> None:
    """The class's row of the last layer's weights, channel by channel, over the last activations."""
    given = sample(specimen)
    model = with_batch(given.model, "N")
    last = next(node for node in reversed(model.graph.node) if node.op_type == POOLED[specimen.name])
    weights = next(numpy_helper.to_array(w) for w in model.graph.initializer if w.name == last.input[1]).astype(float)
    features = tap_of(given.model)
    with torch.no_grad():
        found = Oracle(model).run(
            {model.graph.input[0].name: torch.from_numpy(given.pictures)}, outputs=[features, last.output[0]]
        )
    classes = found[last.output[0]].flatten(1).argmax(1)
    rows = torch.from_numpy(weights.reshape(weights.shape[0], -1))[classes]
    expected = torch.einsum("nchw,nc->nhw", found[features], rows)
    returned = run(compile_model(model, "cam"), given.pictures)
    np.testing.assert_array_equal(returned["explained_class"], classes)
    assert_near(returned["attribution"], expected, 1e-4, str(specimen))


@pytest.mark.parametrize("specimen", specimens(quick=[], among=[s for s in SPECIMENS if s.name in POOLED]))
def test_grad_cam_is_cam_rectified_up_to_the_mean_where_cam_applies(specimen: Specimen) -> None:
    given = sample(specimen)
    model = with_batch(given.model, "N")
    maps = run(compile_model(model, "cam,grad-cam"), given.pictures)
    cam, grad_cam = maps["attribution_cam"], maps["attribution_grad-cam"]
    assert_near(grad_cam, np.maximum(cam, 0) / np.prod(cam.shape[1:]), 1e-5, str(specimen))
