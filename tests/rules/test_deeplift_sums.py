"""Every operator keeps the sum: of multiplier times difference, what goes out is what came in, whatever the baseline.

The cases are those of the derivatives. The baseline of an operand is a shuffle of its own values, so that it stays in
the operator's domain; some elements are left as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from onnx.shape_inference import InferenceError

from onnxplain.errors import BadModel, UnsupportedOp
from onnxplain.ir.builder import Builder
from onnxplain.ir.load import load
from onnxplain.ir.save import to_proto
from onnxplain.passes.canonical import canonicalise
from onnxplain.passes.explain.backward import walk
from onnxplain.passes.explain.trace import trace
from onnxplain.passes.explain.twin import twin
from onnxplain.passes.optimise.dead_code import DropDeadCode
from onnxplain.rules.deeplift.composites import rescale_everywhere
from tests.oracle import Oracle, UnknownOperator
from tests.rules.harness import Case, expected, model_of
from tests.rules.vjp.test_table import CASES
from tests.running import run

Array = NDArray[Any]

REFUSED = {"TopK", "ReduceProd", "ReduceLogSum"}
"""Operators for which there is no rule, and which are therefore refused."""

REFUSED_FORMS = ("p=3", "Pow(x, x)")
"""Forms of others: of degree three, and of two numbers that are one."""

REFUSED_OPERANDS = {("PRelu", "slope"), ("Pow", "b"), ("Pow", "p"), ("GridSample", "grid")}
"""Operands by which an operator is neither linear nor a function of one number."""


ROUNDED = {"QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear"}
"""Operators that keep the sum but for what they round, which is left to the residual (tests/precision)."""


def refused(case: Case, source: str) -> bool:
    """Whether there is no rule for the case."""
    return (
        case.op in REFUSED or (case.op, source) in REFUSED_OPERANDS or any(form in case.text for form in REFUSED_FORMS)
    )


def explained(case: Case, source: str, dtype: type) -> ModelProto:
    """The case's model with the multipliers of one operand, for what arrives at `arriving` and a baseline."""
    model, _ = canonicalise(load(model_of(case, case.shapes[0], dtype, [*dict.fromkeys([*case.inputs, source])])))
    g = Builder(model)
    forward = list(model.graph.nodes)
    x, y = (g.wrap(t) for t in (next(t for t in model.graph.inputs if t.name == source), model.graph.outputs[0]))
    way = trace(g, forward, x, y)
    reference = twin(g, way, g.input("baseline", x.dtype, x.shape), "baseline")
    seed = g.input("arriving", y.dtype, y.shape)
    multiplier = walk(g, way, rescale_everywhere(1e-9), seed, reference=reference)
    for value, name in ((multiplier, "multiplier"), (reference.score, "y0")):
        g.graph.outputs.append(g.publish(value, name).tensor)
    DropDeadCode().run(model)
    return to_proto(model)


def shuffled(x: Array) -> Array:
    rng = np.random.default_rng(x.size)
    changed = rng.permutation(x.ravel()).reshape(x.shape)
    return np.asarray(np.where(rng.random(x.shape) < 0.2, x, changed), x.dtype)


def results(case: Case, model: ModelProto, source: str, dtype: type) -> dict[str, Array]:
    """The graph's inputs and outputs, run in float64 by the oracle, in float32 by ONNX Runtime."""
    fed = {name: operand.typed(dtype) for name, operand in case.operands.items()}
    fed["baseline"] = shuffled(fed[source])
    fed["arriving"] = expected(case)[1].astype(dtype)
    inputs = {i.name: fed[i.name] for i in model.graph.input}
    if dtype is np.float32:
        return inputs | run(model, inputs)
    given = {name: torch.tensor(value) for name, value in inputs.items()}
    with torch.no_grad():
        return inputs | {k: v.numpy() for k, v in Oracle(model).run(given, outputs=["multiplier", "y", "y0"]).items()}


@pytest.mark.parametrize(
    ("case", "source"),
    [pytest.param(c, name, id=f"{c}-{name}") for c in CASES if c.op not in ROUNDED for name in c.sources],
)
def test_sum_is_kept(case: Case, source: str) -> None:
    if refused(case, source):
        with pytest.raises(UnsupportedOp):
            explained(case, source, np.float32)
        return
    try:
        got, tolerance = results(case, explained(case, source, np.float64), source, np.float64), 1e-8
    except (UnknownOperator, InferenceError, BadModel):  # not in float64
        got, tolerance = results(case, explained(case, source, np.float32), source, np.float32), 2e-5
    assert np.isfinite(got["multiplier"]).all()
    contributions = got["multiplier"] * (got[source] - got["baseline"])
    wanted = got["arriving"] * (got["y"] - got["y0"])
    scale = np.abs(contributions).sum() + np.abs(wanted).sum()
    assert abs(contributions.sum() - wanted.sum()) <= tolerance * scale
