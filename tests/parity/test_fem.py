"""FEM in both its forms, on whole models."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxplain.compiler import compile_model
from tests.catalogue import Specimen, with_batch
from tests.models.samples import sample
from tests.oracle import Oracle
from tests.parity.fem import FORMS
from tests.parity.test_maps import MODELS, tap_of
from tests.running import assert_near, net, run


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("specimen", MODELS)
def test_fem_of_whole_models(specimen: Specimen, form: str) -> None:
    given = sample(specimen)
    model, name = with_batch(given.model, "N"), given.model.graph.input[0].name
    tap = tap_of(given.model)
    with torch.no_grad():
        features = Oracle(model).run({name: torch.from_numpy(given.pictures)}, outputs=[tap])[tap].numpy()
    by_hand, k = FORMS[form]
    expected = np.stack([by_hand(maps, k) for maps in features])
    returned = run(compile_model(model, "fem", variant=form), given.pictures)
    assert_near(returned["attribution"], expected, 1e-4, f"{form} on {specimen}")


@pytest.mark.parametrize("form", FORMS)
def test_k_is_a_parameter(form: str) -> None:
    """Half a sigma and three, on activations that are the input itself."""
    model = net("g (float[N,2,4,4] x) => (float[N,2] y) { h = Relu(x) p = GlobalAveragePool(h) y = Flatten(p) }")
    x = np.random.default_rng(0).uniform(0.1, 1, (3, 2, 4, 4)).astype(np.float32)
    for k in (0.0, 0.5, 1.5):
        returned = run(compile_model(model, "fem", variant=form, k=k, layer="h", layout="channels-first"), x)
        expected = np.stack([FORMS[form][0](maps.astype(float), k) for maps in x])
        assert_near(returned["attribution"], expected, 1e-5, f"{form}, k = {k}")
