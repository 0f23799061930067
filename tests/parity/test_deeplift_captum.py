"""Rescale against Captum 0.9.0, where Captum is right.

That is: one sample at a time, modules that are used once, pools that do not overlap, scores and no softmax, and no pool
right behind an activation: Captum hooks the tensor between the two twice, and the activation then sees the pool's
gradient in the place of its multiplier. A copy of the tensor keeps them apart. In float64 on Captum's side.

What it gets wrong is shown too, so that nobody takes a difference for a fault of this project.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from captum.attr import DeepLift
from numpy.typing import NDArray
from torch import Tensor, nn

from onnxplain.compiler import compile_model
from tests.running import Results, assert_near, run
from tests.zoo.architectures import ZOO, exact, samples, trained
from tests.zoo.exporting import exported

Array = NDArray[Any]


class Copy(nn.Module):
    """The same numbers in another tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0


def apart(module: nn.Sequential) -> nn.Sequential:
    """The network with a copy in front of every pool, and no activation that writes over its input."""
    layers: list[nn.Module] = []
    for layer in module:
        layers += [Copy(), layer] if isinstance(layer, nn.MaxPool2d) else [layer]
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    return nn.Sequential(*layers).eval()


def small(activation: type[nn.Module], pool: int = 2) -> nn.Sequential:
    """Convolutions, pools of both kinds, linear layers, and a function of one number."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), activation(), nn.MaxPool2d(pool, 2),
        nn.Conv2d(8, 12, 3), activation(), nn.AvgPool2d(2),
        nn.Flatten(), nn.LazyLinear(16), activation(), nn.Linear(16, 5),
    )  # fmt: skip
    module(torch.zeros(1, 3, 12, 12))
    return module.eval()


def as_onnx(module: nn.Module) -> onnx.ModelProto:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.zeros(2, 3, 12, 12),), file, dynamo=False, input_names=["pixels"],
            dynamic_axes={"pixels": {0: "N"}},
        )  # fmt: skip
    return onnx.load_model_from_string(file.getvalue())


def captum(module: nn.Module, x: Array, baseline: Array, target: int) -> Array:
    """One sample at a time, in float64."""
    explainer = DeepLift(module.double())
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(len(x)):
            given = torch.from_numpy(x[i : i + 1]).double()
            against = torch.from_numpy(baseline[min(i, len(baseline) - 1)][None]).double()
            found.append(explainer.attribute(given, against, target=target).detach().numpy())
    return np.concatenate(found)


def ours(model: onnx.ModelProto, x: Array, baseline: Array, target: int) -> Results:
    compiled = compile_model(model, "deeplift-rescale", baseline="input", target=target)
    return run(compiled, {"pixels": x, "baseline": baseline})


def pictures(seed: int, n: int = 3) -> Array:
    return np.random.default_rng(seed).standard_normal((n, 3, 12, 12)).astype(np.float32)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.Softplus])
@pytest.mark.parametrize("against", ["zeros", "samples"])
def test_rescale_is_captums(activation: type[nn.Module], against: str) -> None:
    module = small(activation)
    model, x = as_onnx(module), pictures(1)
    baseline = np.zeros_like(x[:1]) if against == "zeros" else pictures(2)
    for target in (0, 3):
        want = captum(apart(module), x, baseline, target)
        assert_near(ours(model, x, baseline, target)["attribution"], want, 1e-4, f"class {target}")


def test_rescale_is_captums_on_a_vgg() -> None:
    each = next(a for a in ZOO if a.name == "vgg")
    model = onnx.load_model_from_string(exported(each, "torchscript", "dynamic"))
    module, x = exact(trained(each), each), samples(each, 2, 9)[0].numpy()
    assert isinstance(module, nn.Sequential)
    baseline = np.zeros_like(x[:1])
    assert_near(ours(model, x, baseline, 4)["attribution"], captum(apart(module), x, baseline, 4), 1e-4)


@pytest.mark.parametrize(("pool", "separate"), [(3, True), (2, False)], ids=["overlap", "behind an activation"])
def test_where_captum_loses_the_sum_ours_is_kept(pool: int, separate: bool) -> None:
    """Pools that overlap, of which Captum writes one window over another; and a pool right behind an activation."""
    module = small(nn.ReLU, pool)
    model, x = as_onnx(module), pictures(1)
    baseline = pictures(2)
    found = ours(model, x, baseline, 0)["attribution"].sum((1, 2, 3), dtype=np.float64)
    theirs = captum(apart(module) if separate else module, x, baseline, 0).sum((1, 2, 3))
    with torch.no_grad():
        scores, before = (module.double()(torch.from_numpy(v).double())[:, 0].numpy() for v in (x, baseline))
    difference = scores - before
    assert (np.abs(found - difference) <= 1e-4 * np.abs(difference)).all()
    assert (np.abs(theirs - difference) > 0.1 * np.abs(difference)).sum() > 1
