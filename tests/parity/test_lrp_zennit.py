"""LRP's six composites against zennit 0.5.1, in the runtime's float32 and in float64."""

from __future__ import annotations

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
from tests.parity.lrp_networks import exported, own, pictures, resnet_like, settled, vgg_like
from tests.parity.zennit_library import ZennitPlus
from tests.running import Results, assert_near, run

pytestmark = zennit_library.needed

LOW, HIGH = -4.0, 4.5

COMPOSITES: dict[str, tuple[str, dict[str, Any]]] = {
    "lrp-epsilon-plus": ("EpsilonPlus", {}),
    "lrp-epsilon-alpha2-beta1": ("EpsilonAlpha2Beta1", {}),
    "lrp-epsilon-plus-flat": ("EpsilonPlusFlat", {}),
    "lrp-epsilon-alpha2-beta1-flat": ("EpsilonAlpha2Beta1Flat", {}),
    "lrp-epsilon-gamma-box": ("EpsilonGammaBox", {"low": torch.tensor(LOW), "high": torch.tensor(HIGH)}),
    "excitation-backprop": ("ExcitationBackprop", {}),
}
NETWORKS = ("vgg", "vgg with norm", "resnet")


Pictures = np.ndarray[Any, Any]


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
        return Subject(own(name, model, ZennitPlus), model, model, specimen.images(2, 0), True)
    make = {"vgg": vgg_like, "vgg with norm": partial(vgg_like, norm=True), "resnet": resnet_like}[name]
    plain = settled(make())
    theirs = settled(resnet_like(ZennitPlus)) if name == "resnet" else plain
    theirs.load_state_dict(plain.state_dict())
    shape = (3, 32, 32)
    return Subject(theirs, exported(plain, shape), exported(plain, shape, double=True), pictures(2, shape), False)


@cache
def compiled(name: str) -> tuple[Results, Results]:
    """All six composites in one graph: by ONNX Runtime in float32, and by the oracle in float64."""
    s = subject(name)
    how = {"low": str(LOW), "high": str(HIGH), "norm": "pass" if s.own else "affine"}
    graph = compile_model(s.double, ",".join(COMPOSITES), **how)
    with torch.no_grad():
        exact = Oracle(graph).run({graph.graph.input[0].name: torch.tensor(s.x)})
    return run(compile_model(s.single, ",".join(COMPOSITES), **how), s.x), {k: v.numpy() for k, v in exact.items()}


@pytest.mark.parametrize("name", ["vgg", "vgg with norm", "resnet", *(s.name for s in OWN_SPECIMENS)])
@pytest.mark.parametrize("method", COMPOSITES)
def test_composite(method: str, name: str) -> None:
    """Of seeded networks, whose batch norms are in the graph and the module and are folded on both sides; of own ones.

    The own ones' files come with what can be folded folded. Batch norms that precede their convolutions are left, and
    pass relevance on both sides (norm=pass). zennit must not merge them: it takes a norm for a layer's when the two
    are neighbours in the list of modules, which here are the shortcut's convolution and the norm that opens the branch.
    """
    s, (theirs, how) = subject(name), COMPOSITES[method]
    if method == "excitation-backprop" and s.own:
        # Its table has no line for batch norm, which therefore takes the gradient. Relevance is no gradient: it passes,
        # as in zennit's other composites.
        from zennit.rules import Pass

        how = {"layer_map": [((nn.BatchNorm2d,), Pass())]}
    single, double = compiled(name)
    for merging, result, tolerance in (
        (zennit_library.exact_merging, double, 1e-7),
        (zennit_library.stock_merging, single, 1e-4),
    ):
        made = zennit_library.composite(theirs, None if s.own else merging(), **how)
        want, classes = zennit_library.relevance(s.theirs, torch.tensor(s.x).double(), made)
        assert result["explained_class"].tolist() == classes.tolist()
        assert_near(result[f"attribution_{method}"], want.numpy(), tolerance, merging.__name__)


def test_zennit_merges_a_batch_norm_with_a_layer_that_it_does_not_follow() -> None:
    """By data flow the norm that opens a pre-activation branch follows a pooling: nothing is folded, nothing breaks."""
    s = subject("cleverhans")
    with pytest.raises(RuntimeError, match="must match the size"):
        made = zennit_library.composite("EpsilonPlus", zennit_library.stock_merging())
        zennit_library.relevance(s.theirs, torch.tensor(s.x).double(), made)
