"""DeepLIFT of whole networks against the plain one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxplain.compiler import compile_model
from tests.catalogue import OWN_SPECIMENS, SHARED_SPECIMENS, Specimen, parameters
from tests.methods.plain_deeplift import Array, Dense, rescale
from tests.running import Results, assert_near, run
from tests.zoo.architectures import ZOO, samples
from tests.zoo.exporting import exported

SMALL = ("cifar10_resnet2b", "cifar10_conv", "mnist_cntk", "digits")
NETWORKS = (
    "resnet-basic",
    "mobilenet-v2",
    "mobilenet-v3",
    "googlenet",
    "densenet",
    "efficientnet-v1",
    "regnet",
)
"""Overlapping pools, residual sums, gates by hard sigmoid and sigmoid, hard swish, SiLU, joined branches."""


def on(model: onnx.ModelProto, method: str, x: Array, baseline: Array, target: int) -> Results:
    compiled = compile_model(model, method, baseline="input", target=target)
    names = [i.name for i in compiled.graph.input]
    stored = {i.name for i in compiled.graph.initializer}
    (name,) = [n for n in names if n not in stored and n != "baseline"]
    return run(compiled, {name: x, "baseline": baseline})


@pytest.mark.parametrize("specimen", parameters(s for s in [*SHARED_SPECIMENS, *OWN_SPECIMENS] if s.name in SMALL))
def test_rescale_on_trained_models(specimen: Specimen) -> None:
    model, (x, baseline) = specimen.load(), specimen.images(2, 3)[:, None]
    found = on(model, "deeplift-rescale", x, baseline, 1)
    assert_near(found["attribution"], rescale(model, x, baseline, 1), 1e-4, specimen.name)


@pytest.mark.parametrize("name", NETWORKS)
def test_rescale_on_the_zoo(name: str) -> None:
    each = next(a for a in ZOO if a.name == name)
    model = onnx.load_model_from_string(exported(each, "torchscript", "dynamic"))
    x, baseline = samples(each, 2, 9)[0].numpy()[:, None]
    found = on(model, "deeplift-rescale", x, baseline, 3)
    assert_near(found["attribution"], rescale(model, x, baseline, 3), 1e-4, name)


@pytest.mark.parametrize("name", ["digits", "cifar10_conv"])
@pytest.mark.parametrize("method", ["deeplift", "deeplift-revealcancel", "deeplift-rescale"])
@pytest.mark.parametrize("against", ["zeros", "sample"])
def test_reveal_cancel_on_a_trained_network_weight_by_weight(name: str, method: str, against: str) -> None:
    specimen = next(s for s in [*SHARED_SPECIMENS, *OWN_SPECIMENS] if s.name == name)
    if specimen.missing:
        pytest.skip(specimen.missing)
    model, (x, other) = specimen.load(), specimen.images(2, 3)[:, None]
    baseline = np.zeros_like(other) if against == "zeros" else other
    layers = Dense(model, x.shape[1:])
    linear = [k for k, layer in enumerate(layers.layers) if layer[0] == "linear"]
    dense = linear[-2:]
    revealed = {"deeplift": dense, "deeplift-revealcancel": linear, "deeplift-rescale": []}[method]
    for target in (1, 4):
        want = layers.attribution(x[0], baseline[0], target, lambda k: k - 1 in revealed)
        assert_near(on(model, method, x, baseline, target)["attribution"][0], want, 1e-4, f"class {target}")
