"""Compiled for any runtime, a graph gets operators only that every runtime has."""

from __future__ import annotations

import onnx
import pytest

import onnxplain
from onnxplain.methods.method import Method
from onnxplain.placement.portable import foreign
from tests.catalogue import SPECIMENS, Specimen, parameters
from tests.placement.test_cuda import FEW, METHODS, QUICK, REAL, settings
from tests.running import net


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("specimen", parameters(QUICK))
def test_every_method_adds_portable_operators_only(specimen: Specimen, method: Method) -> None:
    if method.name == "cam" and specimen.name == "digits":
        pytest.skip("cam is for networks that end in global average pooling")
    assert foreign(onnxplain.compile_model(specimen.load(), method.name, **settings(method))) == []


@pytest.mark.parametrize("method", FEW)
@pytest.mark.parametrize("specimen", parameters(REAL))
def test_so_on_real_models(specimen: Specimen, method: str) -> None:
    assert foreign(onnxplain.compile_model(specimen.load(), method)) == []


def test_shapes_has_a_max_pool_to_do_without() -> None:
    (shapes,) = (s for s in SPECIMENS if s.name == "shapes")
    found = foreign(onnxplain.compile_model(shapes.load(), "gradient", runtime="cuda"))
    assert any(each.endswith(" with indices") for each in found)


ADDED = """
    g (float[1,1,4,4] x) => (float[1,1,8,8] y) <float[4] s = {1,1,2,2}, int64[1] at = {0}, float[1] u = {1}> {
        a = Celu(x)  f, i = MaxPool<kernel_shape=[1,1]>(a)  q = Flatten<axis=0>(f)  z = Squeeze(q)
        h = ScatterElements<reduction="add">(z, at, u)  k = Reshape(h, t)
        y = Resize<mode="linear", antialias=1>(x, , s)
    }
"""


def test_what_is_not_portable_is_named_with_how_it_is() -> None:
    model: onnx.ModelProto = net(ADDED)
    for node in model.graph.node:
        node.name = f"onnxplain/{node.op_type}"
    assert foreign(model) == [
        "Celu 'onnxplain/Celu'",
        "MaxPool 'onnxplain/MaxPool' with indices",
        "Flatten 'onnxplain/Flatten'",
        "ScatterElements 'onnxplain/ScatterElements' with reduction=add",
        "Resize 'onnxplain/Resize' with antialias",
    ]


def test_what_the_model_itself_uses_is_not_counted() -> None:
    model = net("g (float[4] x) => (float[4] y) { a = Celu(x)  y = Celu(a) }")
    model.graph.node[1].name = "onnxplain/baseline/Celu"
    assert foreign(model) == []
    model.graph.node[0].op_type = "Elu"
    assert foreign(model) == ["Celu 'onnxplain/baseline/Celu'"]
