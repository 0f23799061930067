"""Operands and results that are left out by an empty name: explained like those that are not there at all."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.running import Array, explained, run

METHODS = ("gradient", "lrp-eps", "deeplift-rescale", "integrated-gradients")


def some(*shape: int) -> Array:
    return np.random.default_rng([1, *shape]).standard_normal(shape).astype(np.float32)


WEIGHTS = {
    "w": some(4, 5),
    "v": some(5, 3),
    "W": some(1, 6, 4),
    "R": some(1, 6, 2),
    "first": np.array([0], np.int64),
}

NODES = {
    "Gemm without C": ([4], [("Gemm", "x w _", "a"), ("Relu", "a", "b"), ("Gemm", "b v _", "y")], {}),
    "GRU without its steps": (
        [3, 4],
        [("Transpose", "x", "xt"), ("GRU", "xt W R _ _", "_ h"), ("Squeeze", "h first", "y")],
        {"GRU": {"hidden_size": 2}, "Transpose": {"perm": [1, 0, 2]}}),
    "MaxPool without places": (
        [2, 4, 4], [("MaxPool", "x", "m _"), ("Flatten", "m", "y")],
        {"MaxPool": {"kernel_shape": [2, 2], "strides": [1, 1]}}),
    "Dropout without a mask": ([4], [("Dropout", "x _", "m _"), ("Mul", "m m", "y")], {}),
}  # fmt: skip


def model(name: str, *, said: bool) -> onnx.ModelProto:
    """said: whether what is left out has an empty name; a first result that is not there has one in any case."""
    sizes, nodes, attributes = NODES[name]

    def named(text: str, kept: bool) -> list[str]:
        names = ["" if each == "_" else each for each in text.split()]
        while not kept and not names[-1]:
            names.pop()
        return names if said or "" not in names else [each or "unread" for each in names]

    made = [
        helper.make_node(op, named(operands, said), named(results, said), **attributes.get(op, {}))
        for op, operands, results in nodes
    ]
    graph = helper.make_graph(
        made,
        "net",
        [helper.make_tensor_value_info("x", 1, ["N", *sizes])],
        [helper.make_tensor_value_info("y", 1, ["N", None])],
        [numpy_helper.from_array(a, n) for n, a in WEIGHTS.items()],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])


@pytest.mark.parametrize("runtime", ["portable", "cpu"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NODES)
def test_what_is_left_out_by_an_empty_name(name: str, method: str, runtime: str) -> None:
    x = np.random.default_rng(2).standard_normal((2, *NODES[name][0])).astype(np.float32)
    found, wanted = (explained(model(name, said=s), x, method, target=1, runtime=runtime) for s in (True, False))
    np.testing.assert_allclose(found["y"], run(model(name, said=True), x)["y"], rtol=1e-5, atol=1e-6)
    assert found.keys() == wanted.keys()
    for role, value in wanted.items():
        np.testing.assert_allclose(found[role], value, rtol=1e-5, atol=1e-6, err_msg=role)
