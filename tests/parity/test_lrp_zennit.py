"""LRP's six composites against zennit 0.5.1, in the runtime's float32 and in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from onnxplain.compiler import compile_model
from tests.catalogue import OWN_SPECIMENS
from tests.oracle import Oracle
from tests.parity import zennit_library
from tests.parity.lrp_networks import doubled, exported, own, pictures, resnet_like, settled, vgg_like
from tests.parity.zennit_library import ZennitPlus
from tests.running import Results, assert_near, exposing, relative_error, run

pytestmark = zennit_library.needed

LOW, HIGH = -4.0, 4.5

COMPOSITES: dict[str, tuple[str, dict[str, Any]]] = {
    "lrp-epsilon-plus": ("EpsilonPlus", {}),
    "lrp-epsilon-alpha2-beta1": ("EpsilonAlpha2Beta1", {}),
    "lrp-epsilon-plus-flat": ("EpsilonPlusFlat", {}),
    "lrp-epsilon-alpha2-beta1-flat": ("EpsilonAlpha2Beta1Flat", {}),
    "lrp-epsilon-gamma-box": ("EpsilonGammaBox", {"low": torch.tensor(LOW), "high": torch.tensor(HIGH)}),
    "excitation-backprop": ("ExcitationBackprop", {"zero_params": "bias"}),
}
NETWORKS = ("vgg", "vgg with norm", "resnet")


ALPHA_BETA = ("lrp-epsilon-alpha2-beta1", "lrp-epsilon-alpha2-beta1-flat")
Pictures = np.ndarray[Any, Any]
OWN = tuple(s.name for s in OWN_SPECIMENS)
SCENES = tuple(name for name in OWN if name != "digits")


@dataclass(frozen=True)
class Subject:
    """zennit's torch module in float64; the model as ONNX in float32, and in float64 where that was exported."""

    theirs: nn.Module
    single: onnx.ModelProto
    double: onnx.ModelProto
    x: Pictures
    own: bool


@cache
def subject(name: str) -> Subject:
    specimen = next((s for s in OWN_SPECIMENS if s.name == name), None)
    if specimen is not None:
        model = specimen.load()
        x = specimen.images(2, 0)
        # Grain: in even surfaces the windows of a max-pool hold equal values, and rounding decides who wins.
        x = x + np.random.default_rng(0).uniform(0, 0.1, x.shape).astype(np.float32)
        return Subject(own(name, model, ZennitPlus), model, doubled(model), x, True)
    make = {"vgg": vgg_like, "vgg with norm": partial(vgg_like, norm=True), "resnet": resnet_like}[name]
    plain = settled(make())
    theirs = settled(resnet_like(ZennitPlus)) if name == "resnet" else plain
    theirs.load_state_dict(plain.state_dict())
    shape = (3, 32, 32)
    return Subject(theirs, exported(plain, shape), exported(plain, shape, double=True), pictures(2, shape), False)


@cache
def compiled(name: str, norm: str) -> tuple[Results, Results]:
    """All six composites in one graph: by ONNX Runtime in float32, and by the oracle in float64."""
    s = subject(name)
    how = {"low": str(LOW), "high": str(HIGH), "norm": norm}
    graph = compile_model(s.double, ",".join(COMPOSITES), **how)
    with torch.no_grad():
        exact = Oracle(graph).run({graph.graph.input[0].name: torch.tensor(s.x)})
    return run(compile_model(s.single, ",".join(COMPOSITES), **how), s.x), {k: v.numpy() for k, v in exact.items()}


def expected(name: str, method: str, merging: Any, lines: Sequence[tuple[Any, Any]] = ()) -> tuple[Pictures, list[int]]:
    """zennit's relevance in float64, under its table with `lines` in front, and the classes explained."""
    s, (theirs, how) = subject(name), COMPOSITES[method]
    made = zennit_library.composite(theirs, merging, layer_map=list(lines), **how)
    found, classes = zennit_library.relevance(s.theirs, torch.tensor(s.x).double(), made)
    return found.numpy(), classes.tolist()


@pytest.mark.parametrize("name", ["vgg", "vgg with norm", "resnet"])
@pytest.mark.parametrize("method", COMPOSITES)
def test_seeded_networks(method: str, name: str) -> None:
    """Their batch norms are in the graph and in the module, and both sides fold them."""
    single, double = compiled(name, "affine")
    want, classes = expected(name, method, zennit_library.exact_merging())
    stock, _ = expected(name, method, zennit_library.stock_merging())
    assert single["explained_class"].tolist() == classes
    assert_near(double[f"attribution_{method}"], want, 1e-10, "float64")
    assert_near(single[f"attribution_{method}"], want, 1e-5, "float32")
    assert_near(single[f"attribution_{method}"], stock, 1e-4, "float32, zennit as it is")


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("method", COMPOSITES)
def test_own_networks(method: str, name: str) -> None:
    """The batch norms that precede their convolutions are affine layers, on both sides under the rule for sums."""
    from zennit.rules import Norm

    single, double = compiled(name, "affine")
    want, classes = expected(name, method, None, [((nn.BatchNorm2d,), Norm())])
    assert single["explained_class"].tolist() == classes
    assert_near(double[f"attribution_{method}"], want, 1e-9, "float64")
    amplified = name in SCENES if method == "excitation-backprop" else method in ALPHA_BETA and name == "cleverhans"
    assert_near(
        single[f"attribution_{method}"], want, 1e-3 if amplified else 1e-4, "float32"
    )  # see test_what_rounding_does


def test_excitation_backprop_as_it_is_in_zennit() -> None:
    """With the biases, which the paper's eq. 5 leaves out."""
    s = subject("vgg")
    graph = compile_model(s.double, "excitation-backprop", compat="zennit")
    with torch.no_grad():
        found = Oracle(graph).run({graph.graph.input[0].name: torch.tensor(s.x)})["attribution"].numpy()
    made = zennit_library.composite("ExcitationBackprop", zennit_library.exact_merging())
    want, _ = zennit_library.relevance(s.theirs, torch.tensor(s.x).double(), made)
    assert_near(found, want.numpy(), 1e-10, "float64")
    without, _ = expected("vgg", "excitation-backprop", zennit_library.exact_merging())
    assert relative_error(want.numpy(), without) > 1e-3


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("method", COMPOSITES)
def test_own_networks_where_batch_norm_passes(method: str, name: str) -> None:
    """norm=pass is zennit's table. Excitation backprop's has no line for batch norm, and would take its gradient."""
    from zennit.rules import Pass

    _, double = compiled(name, "pass")
    want, _ = expected(name, method, None, [((nn.BatchNorm2d,), Pass())] if method == "excitation-backprop" else [])
    assert_near(double[f"attribution_{method}"], want, 1e-9, "float64")


@pytest.mark.parametrize(("methods", "norm", "analysis", "tolerance"), [
    (("lrp-epsilon-plus", "lrp-epsilon-plus-flat"), "pass", True, 1e-5),
    (("excitation-backprop",), "affine", True, 1e-5),
    (ALPHA_BETA, "affine", True, 1e-4),
    (ALPHA_BETA, "affine", False, 1e-6),
])  # fmt: skip
@pytest.mark.parametrize("name", SCENES)
def test_what_rounding_does(name: str, methods: tuple[str, ...], norm: str, analysis: bool, tolerance: float) -> None:
    """Held against float64 on what float32 makes of the forward pass, where zennit in float64 is farther away.

    Relevance is shared in residual sums that are nearly zero, which the rounding of the forward pass moves: 1.6e-3 here
    where batch norm passes relevance on to them, 1.7e-4 under alpha 2, beta 1, 4.6e-4 under excitation backprop without
    biases, where zennit in float32 misses 1.5e-3. On the way back alone, taking the
    negative sum as the output minus the positive one costs digits: 5e-5. Without sign analysis it has its own pass.
    """
    s = subject(name)
    graph = compile_model(s.single, ",".join(methods), norm=norm, sign_analysis=analysis)
    forward = [o for node in graph.graph.node if not node.name.startswith("onnxplain/") for o in node.output if o]
    have = run(exposing(graph, forward), s.x)
    pinned = {o: torch.tensor(have[o]) for o in forward if have[o].dtype == np.float32}
    feeds, outputs = {graph.graph.input[0].name: torch.tensor(s.x)}, [o for o in have if o.startswith("attribution")]
    assert len(outputs) == len(methods)
    with torch.no_grad():
        want = Oracle(graph).run(feeds, outputs=outputs, pinned=pinned)
    for output in outputs:
        assert_near(have[output], want[output].numpy(), tolerance, output)


def test_zennit_merges_a_batch_norm_with_a_layer_that_it_does_not_follow() -> None:
    """It takes a norm for a layer's when the two are neighbours in the list of modules: here the convolution of the
    shortcut and the norm that opens the branch. By data flow that norm follows a pooling, and nothing is folded."""
    with pytest.raises(RuntimeError, match="must match the size"):
        expected("cleverhans", "lrp-epsilon-plus", zennit_library.stock_merging())
