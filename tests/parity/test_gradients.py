"""The gradient family against Captum 0.9.0."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onnxplain.compiler import compile_model
from tests.catalogue import Floats, Specimen, with_batch
from tests.models.nets import EXPORTERS, Plain, ready, seeded
from tests.models.samples import for_parity, sample
from tests.parity.module import OracleModule
from tests.running import assert_near, run

BY_CAPTUM: dict[str, Callable[[nn.Module], Any]] = {
    "gradient": captum.attr.Saliency,
    "guided-backprop": captum.attr.GuidedBackprop,
    "deconvnet": captum.attr.Deconvolution,
}


def by_captum(method: str, module: nn.Module, x: Floats) -> tuple[NDArray[np.int64], Tensor]:
    """Each picture's class and attribution, in float64."""
    given = torch.from_numpy(x).double().requires_grad_()
    module.double().eval()
    classes = module(given).argmax(1)
    how = {"abs": False} if method == "gradient" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that ReLUs get hooks
        attribution: Tensor = BY_CAPTUM[method](module).attribute(given, target=classes, **how)
    return classes.numpy(), attribution.detach()


@pytest.mark.parametrize("method", BY_CAPTUM)
@pytest.mark.parametrize("specimen", for_parity())
def test_whole_models_give_what_captum_gives(specimen: Specimen, method: str) -> None:
    given = sample(specimen)
    classes, expected = by_captum(method, OracleModule(given.model), given.pictures)
    returned = run(compile_model(with_batch(given.model, "N"), method), given.pictures)
    np.testing.assert_array_equal(returned["explained_class"], classes)
    assert_near(returned["attribution"], expected, 1e-4, f"{method} of {specimen}")


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("method", BY_CAPTUM)
def test_exported_networks_give_what_captum_gives_for_the_torch_module(method: str, exporter: str) -> None:
    """Nothing between Captum and the module: the graph is what the exporter made of it."""
    x = np.random.default_rng(0).standard_normal((3, 3, 16, 16)).astype(np.float32)
    classes, expected = by_captum(method, seeded(Plain()), x)
    returned = run(compile_model(ready(Plain, 3, 16, 16, exporter=exporter), method), x)
    np.testing.assert_array_equal(returned["explained_class"], classes)
    assert_near(returned["attribution"], expected, 1e-5, method)
