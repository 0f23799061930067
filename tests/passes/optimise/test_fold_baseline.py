"""The baseline's activations as constants: what cannot be computed beforehand."""

from __future__ import annotations

import pytest

from onnxplain.errors import OnnxplainError
from onnxplain.ir.model import Model
from onnxplain.passes.optimise.fold_baseline import FoldBaseline
from tests.passes.graphs import refusals, typed

TEXT = """g (float[1,4] x) => (float[1,4] y)
    <float[1,4] zeros = {0, 0, 0, 0}, int64[1,2] at = {1, 1}, float[1] put = {1}> {
    b = ScatterND(zeros, at, put) y = Add(x, b) }"""


def beyond() -> Model:
    """What is known of the baseline writes to a row that is not there, which ONNX Runtime sees when it runs."""
    model = typed(TEXT)
    model.graph.nodes[0].name = "onnxplain/baseline/b/ScatterND"
    return model


def test_what_the_runtime_cannot_compute_is_left_to_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxplain.passes.optimise.fold_baseline.BUDGET", 10)
    changed, found = refusals(beyond(), FoldBaseline("auto"))
    assert changed == 0
    assert [r.where for r in found] == ["baseline"]
    assert found[0].why.startswith("ONNX Runtime cannot compute the baseline's activations: [ONNXRuntimeError]")


def test_what_the_runtime_cannot_compute_is_said_where_it_must() -> None:
    with pytest.raises(
        OnnxplainError, match=r"cannot compute the baseline's activations: .*\n  Choose another baseline"
    ):
        FoldBaseline("yes").run(beyond())
