"""Every architecture that people export, small but true in structure, by both of torch's exporters.

The fast run takes the older exporter with a free batch, and a few architectures through the newer one, which takes
seconds for each; the whole matrix is marked slow.
"""

from __future__ import annotations

import onnx
import pytest

from onnxplain.compiler import compile_model
from tests.running import explained, relative_error, run
from tests.zoo.architectures import ZOO, Architecture, truth
from tests.zoo.examining import METHODS, NOT_CONSERVED, RECTIFIED, REFUSED, Outcome, examine
from tests.zoo.exporting import BATCHES, EXPORTERS, exported

GRADIENT, DIFFERENCE, CONSERVATION = 1e-4, 1e-4, 1e-4
QUADRATURE = 1e-2
"""Of Integrated Gradients with 100 steps."""

BY_BOTH = ("resnet-basic",)
"""Taken through the newer exporter in the fast run too."""

THOROUGH = ("densenet", "googlenet", "mobilenet-v3", "shufflenet-v2", "efficientnet-v1", "vit", "conv-1d", "two-inputs")
"""Taken through every method in the fast run; the others through the gradient."""

RELEVANCE = ("gradient", "lrp-epsilon-plus", "deeplift-rescale")

FAST = [
    *((z, "torchscript", "dynamic", m) for z in ZOO for m in METHODS if m == "gradient" or z.name in THOROUGH),
    *((z, "dynamo", "dynamic", m) for z in ZOO for m in METHODS if z.name in BY_BOTH),
]
FULL = [(z, e, b, m) for z in ZOO for e in EXPORTERS for b in BATCHES for m in METHODS]


def judge(each: Architecture, method: str, outcome: Outcome) -> None:
    """What an outcome must be. Raises: AssertionError."""
    reason = REFUSED.get((each.name, method))
    if reason is not None:
        assert reason in outcome.refused
        assert len(outcome.refused.splitlines()) <= 4, "one screen, one reason"
        return
    assert not outcome.refused
    if outcome.error is not None:
        assert outcome.error <= GRADIENT
    allowed = {"deeplift-rescale": DIFFERENCE, "integrated-gradients": QUADRATURE}
    if each.name not in NOT_CONSERVED:
        allowed["lrp-0"] = CONSERVATION
    if each.name in RECTIFIED:
        allowed["lrp-epsilon-plus"] = CONSERVATION
    if outcome.residual is not None and method in allowed:
        assert outcome.residual <= allowed[method]


@pytest.mark.parametrize(("each", "exporter", "batch", "method"), FAST, ids=lambda v: str(v))
def test_an_exported_network_is_explained(each: Architecture, exporter: str, batch: str, method: str) -> None:
    judge(each, method, examine(each, exporter, batch, method))


@pytest.mark.slow
@pytest.mark.parametrize(("each", "exporter", "batch", "method"), FULL, ids=lambda v: str(v))
def test_the_whole_matrix(each: Architecture, exporter: str, batch: str, method: str) -> None:
    judge(each, method, examine(each, exporter, batch, method))


ATTENTION = ("vit", "deit", "maxvit")
"""Their attention is one call, which the exporter spells out from opset 14 on."""

NOT_IN_9 = ("swin-v1", "swin-v2")
"""What torch's exporter itself refuses to write in opset 9: padding and rolling by amounts that it does not know."""

OLD = [
    (z, opset)
    for z in ZOO
    for opset in ((14,) if z.name in ATTENTION else (9, 13))
    if opset > 9 or z.name not in NOT_IN_9
]


@pytest.mark.slow
@pytest.mark.parametrize(("each", "opset"), OLD, ids=lambda v: str(v))
@pytest.mark.parametrize("method", RELEVANCE)
def test_an_old_export_is_explained_alike(each: Architecture, opset: int, method: str) -> None:
    """Opsets before LayerNormalization, GELU and hard swish were operators, which are then spelled out."""
    judge(each, method, examine(each, "torchscript", "dynamic", method, opset))


@pytest.mark.parametrize("name", ["resnet-basic", "vit"])
def test_a_free_batch_takes_any_number_of_samples_and_keeps_its_name(name: str) -> None:
    each = next(z for z in ZOO if z.name == name)
    model = onnx.load_model_from_string(exported(each, "torchscript", "dynamic"))
    known = truth(each)
    one = explained(model, {"pixels": known.inputs[0][:1].numpy()})
    assert one["attribution"].shape == (1, *each.shape)
    assert relative_error(one["attribution"], known.gradient[:1]) <= GRADIENT
    compiled = compile_model(model)
    by_name = {
        v.name: v.type.tensor_type.shape.dim[0].dim_param for v in (*compiled.graph.input, *compiled.graph.output)
    }
    assert {by_name[name] for name in ("pixels", "attribution", "heatmap", "explained_score")} == {"batch"}
    assert run(compiled, known.inputs[0].numpy())["heatmap"].shape[0] == len(known.inputs[0])
