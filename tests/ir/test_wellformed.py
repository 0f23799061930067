"""Whose fault it is: that of a file that ONNX's checker refuses, or of this package."""

from __future__ import annotations

import pytest
from onnx.shape_inference import InferenceError

from onnxplain.errors import BadModel
from onnxplain.ir.wellformed import FaultyEmission, blaming_the_file
from tests.ir.graphs import Bench
from tests.running import net

GOOD = net("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
BROKEN = net("g (float[N,4] x) => (float[N,4] y) { y = Relu(x, x) }")


def emit_what_cannot_be() -> None:
    bench = Bench("N", 4)
    bench.g.op("MatMul", bench.x, bench.g.constant([[1.0], [2.0]], "float32"))


def test_a_node_of_our_own_that_onnx_refuses_is_not_the_files_fault() -> None:
    with (
        pytest.raises(FaultyEmission, match=r"^onnxplain/MatMul: .*[Ii]ncompatible dimensions"),
        blaming_the_file(GOOD, "m.onnx"),
    ):
        emit_what_cannot_be()


def test_nor_is_a_node_of_operands_of_two_types() -> None:
    bench = Bench("N", 4)
    with (
        pytest.raises(FaultyEmission, match=r"^onnxplain/Sub: .*type"),
        blaming_the_file(GOOD, "m.onnx"),
    ):
        bench.g.op("Sub", bench.x, bench.g.constant([1.0], "float64"))


def test_in_a_broken_file_it_is() -> None:
    with (
        pytest.raises(BadModel, match=r"^m\.onnx is broken: .*\n  Check the model with onnx\.checker"),
        blaming_the_file(BROKEN, "m.onnx"),
    ):
        emit_what_cannot_be()


def test_what_onnx_refuses_of_the_models_own_nodes_is_the_files_fault() -> None:
    with pytest.raises(BadModel) as caught, blaming_the_file(GOOD, "m.onnx"):
        raise InferenceError("[ShapeInferenceError] sizes differ.\nand more")
    assert str(caught.value) == (
        "m.onnx is broken: [ShapeInferenceError] sizes differ.\n"
        "  Check the model with onnx.checker, or export it again."
    )


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(KeyError), blaming_the_file(GOOD, "m.onnx"):
        raise KeyError("odd")
