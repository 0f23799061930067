"""Integrated Gradients and SmoothGrad against Captum 0.9.0, with the same points and the same noise."""

from __future__ import annotations

from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from onnxplain.compiler import compile_model
from onnxplain.methods.paths import quadrature
from tests.catalogue import Array, Floats, Specimen, with_batch
from tests.models.margins import apart
from tests.models.nets import EXPORTERS, Plain, ready, seeded
from tests.models.samples import for_parity
from tests.parity.module import OracleModule
from tests.parity.points import gradients_as_decided
from tests.running import assert_near, relative_error, run

QUADRATURES = {
    "gauss-legendre": "gausslegendre",
    "left": "riemann_left",
    "right": "riemann_right",
    "middle": "riemann_middle",
    "trapezoid": "riemann_trapezoid",
}
VARIANTS = {"mean": "smoothgrad", "squared": "smoothgrad_sq", "vargrad": "vargrad"}


def is_deep(specimen: Specimen) -> bool:
    """So deep that at many points a flip of a ReLU is likely, and in layers so small that one matters."""
    return not specimen.trained or specimen.name == "vww_96"


def captums_integral(module: nn.Module, x: Floats, name: str, steps: int) -> tuple[NDArray[np.int64], Tensor]:
    """By Captum, whose trapezoid's weights sum to 1 - 1/n, brought to a sum of one."""
    given = torch.from_numpy(x).double()
    module.double().eval()
    classes = module(given).argmax(1)
    method = captum.attr.IntegratedGradients(module)
    found: Tensor = method.attribute(given, target=classes, n_steps=steps, method=QUADRATURES[name])
    return classes.numpy(), found.detach() * (steps / (steps - 1) if name == "trapezoid" else 1)


def along_the_path(x: Floats, name: str, steps: int) -> Floats:
    """Every point at which a gradient is taken, from a baseline of zeros."""
    nodes = quadrature(name, steps)[0].astype(np.float32)
    return np.concatenate([node * x for node in nodes])


@pytest.mark.parametrize("name", ["gauss-legendre", "trapezoid"])
@pytest.mark.parametrize("specimen", for_parity())
def test_integrated_gradients_of_whole_models(specimen: Specimen, name: str) -> None:
    x, steps = (specimen.images(2, 4), 20) if specimen.trained else (specimen.images(1, 4), 3)
    model = specimen.load()
    model = apart(model, along_the_path(x, name, steps)) if is_deep(specimen) else model
    classes, expected = captums_integral(OracleModule(model), x, name, steps)
    settings = {"steps": steps, "quadrature": name}
    returned = run(compile_model(with_batch(model, "N"), "integrated-gradients", **settings), x)
    np.testing.assert_array_equal(returned["explained_class"], classes)
    if relative_error(returned["attribution"], expected) > 1e-4:
        # Rounding flips a ReLU at one of the many points, and nothing else differs. A trapezoid begins at the baseline,
        # a picture all of zeros, in which whole windows of a pool are equal and rounding chooses among them; of the
        # three points that untrained networks get, it weighs a quarter.
        if name != "trapezoid" or specimen.trained:
            assert_near(returned["attribution"], expected, 1e-3, f"{name} on {specimen}")
        assert_near(*integrals_as_decided(with_batch(model, "N"), x, classes, settings), 1e-4, f"{name} on {specimen}")


def integrals_as_decided(
    model: ModelProto, x: Floats, classes: Array, settings: dict[str, Any]
) -> tuple[Array, Tensor]:
    """The unrolled graph's result, and autograd's with every ReLU and pool decided as that graph decided it."""
    nodes, weights = quadrature(settings["quadrature"], settings["steps"])
    unrolled = compile_model(model, "integrated-gradients", construction="unroll", chunk=1, **settings)
    feeds = {unrolled.graph.input[0].name: x}
    points = [np.float32(node) * x for node in nodes]
    found = gradients_as_decided(unrolled, model, feeds, points, classes)
    mean = torch.stack([weight * each for weight, each in zip(weights, found, strict=True)]).sum(0)
    return run(unrolled, feeds)["attribution"], torch.from_numpy(x) * mean


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", QUADRATURES)
def test_integrated_gradients_of_exported_networks(name: str, exporter: str) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 16, 16)).astype(np.float32)
    classes, expected = captums_integral(seeded(Plain()), x, name, 20)
    model = ready(Plain, 3, 16, 16, exporter=exporter)
    returned = run(compile_model(model, "integrated-gradients", steps=20, quadrature=name), x)
    np.testing.assert_array_equal(returned["explained_class"], classes)
    assert_near(returned["attribution"], expected, 1e-4, name)


def test_the_residual_is_what_captum_calls_the_convergence_delta() -> None:
    """With the sign turned: what is missing from the sum, and not what is too much in it."""
    x = np.random.default_rng(1).standard_normal((2, 3, 16, 16)).astype(np.float32)
    method = captum.attr.IntegratedGradients(seeded(Plain()).double())
    given = torch.from_numpy(x).double()
    _, delta = method.attribute(given, target=1, n_steps=7, return_convergence_delta=True)
    model = ready(Plain, 3, 16, 16, exporter="torchscript")
    residual = run(compile_model(model, "integrated-gradients", steps=7, target=1), x)["residual"]
    assert np.abs(residual).min() > 1e-3
    np.testing.assert_allclose(residual, -delta.numpy(), atol=1e-5)


def test_captums_trapezoid_falls_short_of_one_and_ours_does_not() -> None:
    """On a linear model the gradient is the same everywhere, so that only the weights' sum matters."""
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double()
    x = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    difference = linear(x)[0, 1] - linear(torch.zeros_like(x))[0, 1]
    for n in (2, 5, 50):
        theirs = captum.attr.IntegratedGradients(linear).attribute(x, target=1, n_steps=n, method="riemann_trapezoid")
        assert float((theirs.sum() / difference).detach()) == pytest.approx(1 - 1 / n)
        assert quadrature("trapezoid", n)[1].sum() == pytest.approx(1, abs=1e-12)


class Recorded:
    """Captum's noise, the same at every draw, and kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drawn = torch.empty(0)
        original = torch.normal

        def normal(mean: Any, deviation: Any) -> Tensor:
            self.drawn = original(mean, deviation, generator=torch.Generator().manual_seed(3))
            return self.drawn

        monkeypatch.setattr(torch, "normal", normal)

    def unit(self, samples: int, deviation: float, x: Floats) -> Floats:
        """(samples, N, ...) in standard deviations."""
        rows = self.drawn.reshape(len(x), samples, *x.shape[1:]).transpose(0, 1) / deviation
        return rows.numpy().astype(np.float32)


def captums_smoothgrad(
    module: nn.Module, x: Floats, variant: str, samples: int, deviation: float
) -> tuple[Any, Tensor]:
    given = torch.from_numpy(x).double()
    module.double().eval()
    classes = module(given).argmax(1)
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(module))
    found = tunnel.attribute(
        given, target=classes, abs=False, nt_type=VARIANTS[variant], nt_samples=samples, stdevs=deviation
    )
    return classes.numpy(), found.detach()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("specimen", for_parity())
def test_smoothgrad_of_whole_models(specimen: Specimen, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captum's sigma is absolute and ours a share of each sample's range: one number of Captum's serves all samples
    when the noise of each is scaled by what its range lacks to the largest."""
    x, samples = (specimen.images(2, 6), 12) if specimen.trained else (specimen.images(1, 6), 3)
    ranges = np.ptp(x.reshape(len(x), -1), axis=1)
    absolute = 0.15 * float(ranges.max())
    model, recorded = specimen.load(), Recorded(monkeypatch)
    if is_deep(specimen):
        captums_smoothgrad(nn.Flatten(), x, variant, samples, absolute)
        model = apart(model, np.concatenate([x + absolute * each for each in recorded.unit(samples, absolute, x)]))
    classes, expected = captums_smoothgrad(OracleModule(model), x, variant, samples, absolute)
    noise = recorded.unit(samples, absolute, x) * (ranges.max() / ranges).reshape(1, -1, *[1] * (x.ndim - 1))
    settings = {"samples": samples, "sigma": 0.15, "variant": variant, "noise": "input"}
    compiled = compile_model(with_batch(model, "N"), "smoothgrad", **settings)
    feeds = {compiled.graph.input[0].name: x, "noise": noise.astype(np.float32)}
    returned = run(compiled, feeds)
    np.testing.assert_array_equal(returned["explained_class"], classes)
    if relative_error(returned["attribution"], expected) > 1e-4:
        # rounding flips a ReLU on one of the noisy copies, and nothing else differs
        assert_near(returned["attribution"], expected, 1e-3, f"{variant} on {specimen}")
        unrolled = compile_model(with_batch(model, "N"), "smoothgrad", construction="unroll", chunk=1, **settings)
        points = [x + 0.15 * ranges.reshape(-1, *[1] * (x.ndim - 1)) * each for each in feeds["noise"]]
        found = torch.stack(gradients_as_decided(unrolled, with_batch(model, "N"), feeds, points, classes))
        wanted = {"mean": found.mean(0), "squared": (found**2).mean(0), "vargrad": found.var(0, correction=0)}
        assert_near(run(unrolled, feeds)["attribution"], wanted[variant], 1e-4, f"{variant} on {specimen}")
