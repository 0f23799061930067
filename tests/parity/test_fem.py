"""FEM in both its forms, on whole models."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxplain.compiler import compile_model
from tests.catalogue import Array, Specimen, with_batch
from tests.models.samples import sample
from tests.oracle import Oracle
from tests.parity.fem import FORMS
from tests.parity.test_maps import MODELS, tap_of
from tests.running import assert_near, exposing, net, run


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("specimen", MODELS)
def test_fem_of_whole_models(specimen: Specimen, form: str) -> None:
    """By hand from the activations of the same run, and from exact ones.

    A map is binary: an activation within rounding of its threshold falls on one side or the other, and with it a whole
    channel's weight at that place. Deep networks have thousands of channels, so a few do; they are shown to be such.
    """
    given = sample(specimen)
    model, name = with_batch(given.model, "N"), given.model.graph.input[0].name
    tap = tap_of(given.model)
    by_hand, k = FORMS[form]
    returned = run(exposing(compile_model(model, "fem", variant=form), [tap]), given.pictures)
    expected = np.stack([by_hand(maps.astype(float), k) for maps in returned[tap]])
    assert_near(returned["attribution"], expected, 1e-5, f"{form} on {specimen}, same activations")
    with torch.no_grad():
        features = Oracle(model).run({name: torch.from_numpy(given.pictures)}, outputs=[tap])[tap].numpy()
    exact = np.stack([by_hand(maps, k) for maps in features])
    flips, distance = fallen_to_the_other_side(returned[tap].astype(float), features, k)
    print(f"{specimen}: {flips} of {features.size} fall to the other side, at most {distance:.1e} sigma away")
    assert distance <= 1e-4
    assert flips <= 1e-4 * features.size
    if not flips:
        assert_near(returned["attribution"], exact, 1e-4, f"{form} on {specimen}")


def fallen_to_the_other_side(found: Array, exact: Array, k: float) -> tuple[int, float]:
    """How many activations lie on the other side of their threshold, and how far from it at most, in sigmas."""
    excess = [(a - a.mean((2, 3), keepdims=True)) / (a.std((2, 3), keepdims=True) + 1e-30) - k for a in (found, exact)]
    differ = (excess[0] >= 0) != (excess[1] >= 0)
    return int(differ.sum()), float(np.abs(excess[1][differ]).max(initial=0))


@pytest.mark.parametrize("form", FORMS)
def test_k_is_a_parameter(form: str) -> None:
    """Half a sigma and three, on activations that are the input itself."""
    model = net("g (float[N,2,4,4] x) => (float[N,2] y) { h = Relu(x) p = GlobalAveragePool(h) y = Flatten(p) }")
    x = np.random.default_rng(0).uniform(0.1, 1, (3, 2, 4, 4)).astype(np.float32)
    for k in (0.0, 0.5, 1.5):
        returned = run(compile_model(model, "fem", variant=form, k=k, layer="h", layout="channels-first"), x)
        expected = np.stack([FORMS[form][0](maps.astype(float), k) for maps in x])
        assert_near(returned["attribution"], expected, 1e-5, f"{form}, k = {k}")
