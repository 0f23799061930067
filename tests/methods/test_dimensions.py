"""Signals, pictures and volumes: every method on one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onnxplain.compiler import compile_model
from tests.catalogue import Floats
from tests.models.nets import Pooled, ready, seeded
from tests.oracle import guided_relu
from tests.parity.fem import paper
from tests.running import assert_near, run

SHAPES = {1: (2, 33), 2: (2, 10, 14), 3: (2, 6, 8, 10)}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}

dimensions = pytest.mark.parametrize("d", SHAPES)


def build(d: int) -> Callable[[], nn.Module]:
    """One and the same function for each number, so that its export is kept."""
    return BUILDERS[d]


BUILDERS: dict[int, Callable[[], nn.Module]] = {1: lambda: Pooled(1), 2: lambda: Pooled(2), 3: lambda: Pooled(3)}


def network(d: int) -> Pooled:
    net = seeded(build(d)()).double()
    assert isinstance(net, Pooled)
    return net


def inputs(d: int) -> Floats:
    return np.random.default_rng(d).standard_normal((3, *SHAPES[d])).astype(np.float32)


def returned(d: int, method: str, **settings: object) -> dict[str, Floats]:
    return run(compile_model(ready(build(d), *SHAPES[d], exporter="torchscript"), method, **settings), inputs(d))


def of_the_best(scores: Tensor) -> Tensor:
    best: Tensor = scores.max(1).values.sum()
    return best


def upsampled(maps: Tensor, d: int) -> Tensor:
    """Stretched to the input and scaled to [0, 1], each sample by itself."""
    fine = F.interpolate(maps[:, None], size=SHAPES[d][1:], mode=LINEAR[d], align_corners=False).flatten(1)
    low, high = fine.amin(1, keepdim=True), fine.amax(1, keepdim=True)
    scaled: Tensor = ((fine - low) / (high - low)).reshape(-1, *SHAPES[d][1:])
    return scaled


@dimensions
def test_gradient_and_guided_backprop(d: int) -> None:
    net, x = network(d), torch.from_numpy(inputs(d)).double().requires_grad_()
    (gradient,) = torch.autograd.grad(of_the_best(net(x)), x)
    maps = returned(d, "gradient,guided-backprop")
    assert_near(maps["attribution_gradient"], gradient, 1e-5)
    size = gradient.abs().amax(1)
    np.testing.assert_allclose(
        maps["heatmap_gradient"], size / size.flatten(1).amax(1).reshape(-1, *[1] * d), atol=1e-5
    )
    for k in (1, 5):
        net.features[k] = _Guided()
    (guided,) = torch.autograd.grad(of_the_best(net(x)), x)
    assert_near(maps["attribution_guided-backprop"], guided, 1e-5)


class _Guided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return guided_relu(x)


@dimensions
def test_activation_maps(d: int) -> None:
    net, x = network(d), torch.from_numpy(inputs(d)).double()
    features = net.features(x).detach().requires_grad_()
    scores = net.linear(features.flatten(2).mean(2))
    (slopes,) = torch.autograd.grad(of_the_best(scores), features)
    weights = slopes.flatten(2).mean(2).reshape(*slopes.shape[:2], *[1] * d)
    grad_cam = torch.relu((weights * features).sum(1)).detach()
    rows = net.linear.weight[scores.argmax(1)].reshape(*slopes.shape[:2], *[1] * d)
    maps = returned(d, "cam,grad-cam,fem")
    assert_near(maps["attribution_cam"], (rows * features).sum(1).detach(), 1e-5)
    assert_near(maps["attribution_grad-cam"], grad_cam, 1e-5)
    fem = torch.from_numpy(np.stack([paper(each, 1.0) for each in features.detach().numpy()]))
    assert_near(maps["attribution_fem"], fem, 1e-5)
    np.testing.assert_allclose(maps["heatmap_grad-cam"], upsampled(grad_cam, d), atol=1e-5)
    np.testing.assert_allclose(maps["heatmap_fem"], upsampled(fem, d), atol=1e-5)


@dimensions
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_guided_grad_cam_is_the_product_of_the_two(d: int, mode: str) -> None:
    maps = returned(d, "guided-grad-cam,guided-backprop,grad-cam", interpolation=mode)
    coarse = torch.from_numpy(maps["attribution_grad-cam"])[:, None]
    how = {"mode": "nearest"} if mode == "nearest" else {"mode": LINEAR[d], "align_corners": False}
    fine = F.interpolate(coarse, size=SHAPES[d][1:], **how)  # type: ignore[arg-type]
    assert_near(maps["attribution_guided-grad-cam"], fine.numpy() * maps["attribution_guided-backprop"], 1e-5)


@dimensions
def test_integrated_gradients_and_smoothgrad(d: int) -> None:
    net, x = network(d), torch.from_numpy(inputs(d)).double()
    classes = net(x).argmax(1)[:, None]
    nodes, weights = np.polynomial.legendre.leggauss(6)
    total = torch.zeros_like(x)
    for node, weight in zip(nodes, weights, strict=True):
        point = (x * (node + 1) / 2).requires_grad_()
        total += weight / 2 * torch.autograd.grad(net(point).gather(1, classes).sum(), point)[0]
    found = returned(d, "integrated-gradients", steps=6)
    assert_near(found["attribution"], total * x, 1e-5)
    zero = net(torch.zeros_like(x))
    residual = (net(x) - zero).gather(1, classes)[:, 0] - (total * x).flatten(1).sum(1)
    np.testing.assert_allclose(found["residual"], residual.detach(), atol=1e-4)

    noise = np.random.default_rng(5).standard_normal((4, *x.shape)).astype(np.float32)
    model = compile_model(ready(build(d), *SHAPES[d], exporter="torchscript"), "smoothgrad", samples=4, noise="input")
    smooth = run(model, {"x": inputs(d), "noise": noise})["attribution"]
    spread = (x.flatten(1).amax(1) - x.flatten(1).amin(1)).reshape(-1, *[1] * (d + 1))
    points = [(x + 0.15 * spread * torch.from_numpy(each)).requires_grad_() for each in noise]
    gradients = [torch.autograd.grad(net(point).gather(1, classes).sum(), point)[0] for point in points]
    assert_near(smooth, torch.stack(gradients).mean(0), 1e-5)
