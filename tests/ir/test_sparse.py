"""Sparse weights are read as the dense ones that they stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, SparseTensorProto, helper, numpy_helper

from onnxplain.compiler import compile_model
from onnxplain.errors import BadModel
from tests.running import net, run

DENSE = np.float32([[0, 5, 0], [7, 0, 0]])
FLAT, BY_AXIS = np.int64([1, 3]), np.int64([[0, 1], [1, 0]])
TEXT = "g (float[N,2] x, float[2,3] w) => (float[N,3] y) { y = MatMul(x, w) }"


def sparse(places: np.ndarray) -> SparseTensorProto:
    return helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([5, 7]), "w"), numpy_helper.from_array(places, "places"), DENSE.shape
    )


def initialised(places: np.ndarray) -> ModelProto:
    model = net(TEXT)
    del model.graph.input[1]
    model.graph.sparse_initializer.append(sparse(places))
    return model


def constant(places: np.ndarray) -> ModelProto:
    model = net(TEXT)
    del model.graph.input[1]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=sparse(places)))
    return model


@pytest.mark.parametrize("places", [FLAT, BY_AXIS])
@pytest.mark.parametrize("made", [initialised, constant])
def test_sparse_weights(made, places: np.ndarray, tmp_path: Path) -> None:
    model = made(places)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    x = np.float32([[1, 2]])
    for source in (model, path):
        compiled = compile_model(source, target=0)
        onnx.checker.check_model(compiled, full_check=True)
        found = run(compiled, x)
        np.testing.assert_array_equal(found["y"], x @ DENSE)
        np.testing.assert_array_equal(found["attribution"], DENSE[:, :1].T)


@pytest.mark.parametrize("places", [np.int64([1, 6]), np.int64([1]), np.int64([[0, 1], [2, 0]])])
def test_places_outside_of_the_tensor_are_refused(places: np.ndarray) -> None:
    broken = r"is broken: sparse weight 'w' of sizes \[2, 3\] cannot be read: .*\n  Check that the download is complete"
    with pytest.raises(BadModel, match=broken):
        compile_model(initialised(places))
