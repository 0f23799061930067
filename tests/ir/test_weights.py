"""Weights kept apart: taken out and put back by reference, data files read only from the model's own folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from onnxplain.compiler import compile_model
from onnxplain.errors import BadModel, UnsupportedModel
from onnxplain.ir.load import load
from onnxplain.ir.weights import DETACH_ABOVE, WeightStore, bytes_of, external_tensors, is_stub
from tests.running import net

LARGE = np.random.default_rng(0).standard_normal((20, 20)).astype(np.float32)
SMALL = np.arange(4, dtype=np.float32)
TEXT = """g (float[N,20] x) => (float[N,4] y) {
    c = Constant<value = float[1] {2}>() a = MatMul(x, large) b = Mul(a, c) s = Slice(b, from, to, axis)
    y = Add(s, small) }"""


def model() -> ModelProto:
    made = net(TEXT)
    weights = {"large": LARGE, "small": SMALL} | {k: np.array([v]) for k, v in (("from", 0), ("to", 4), ("axis", 1))}
    made.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in weights.items())
    return made


def stored(made: ModelProto, name: str) -> TensorProto:
    return next(t for t in made.graph.initializer if t.name == name)


def test_large_weights_leave_a_stub_and_small_ones_stay() -> None:
    made, store = model(), WeightStore()
    store.detach(made)
    assert LARGE.nbytes > DETACH_ABOVE > SMALL.nbytes
    assert is_stub(stored(made, "large"))
    assert not stored(made, "large").raw_data
    assert not is_stub(stored(made, "small"))
    np.testing.assert_array_equal(numpy_helper.to_array(store.resolve(stored(made, "large"))), LARGE)
    assert store.resolve(stored(made, "small")) is stored(made, "small")
    assert list(external_tensors(made)) == []


def test_a_stub_is_found_under_any_name() -> None:
    """Converters and inliners rename tensors; the reference goes with them."""
    made, store = model(), WeightStore()
    store.detach(made)
    stored(made, "large").name = "renamed"
    whole = store.resolve(stored(made, "renamed"))
    assert whole.name == "renamed"
    np.testing.assert_array_equal(numpy_helper.to_array(whole), LARGE)


def test_the_model_that_was_given_is_not_touched() -> None:
    made = model()
    before = made.SerializeToString()
    source = load(made)
    assert is_stub(stored(source.proto, "large"))
    assert made.SerializeToString() == before


def test_weights_in_nodes_and_branches_are_detached_too() -> None:
    made = net("g (float[N,20] x) => (float[N,20] y) { w = Constant() y = MatMul(x, w) }")
    made.graph.node[0].attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(
        numpy_helper.from_array(LARGE)
    )
    store = WeightStore()
    store.detach(made)
    assert is_stub(made.graph.node[0].attribute[0].t)
    (kept,) = store.tensors.values()
    np.testing.assert_array_equal(numpy_helper.to_array(kept), LARGE)


def test_numbers_are_read_from_memory_or_from_the_data_file(tmp_path: Path) -> None:
    onnx.save_model(
        model(),
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    for given in (model(), tmp_path / "m.onnx"):
        source = load(given)
        assert source.external == isinstance(given, Path)
        graph = gs.import_onnx(source.proto)
        for tensor in graph.tensors().values():
            if tensor.name in ("large", "small"):
                expected = {"large": LARGE, "small": SMALL}[tensor.name]
                np.testing.assert_array_equal(source.weights.array(tensor), expected)


# Data files


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (TensorProto.INT2, 3),
        (TensorProto.UINT2, 3),
        (TensorProto.INT4, 5),
        (TensorProto.FLOAT4E2M1, 5),
        (TensorProto.INT8, 9),
        (TensorProto.BFLOAT16, 18),
    ],
)
def test_small_numbers_share_bytes(kind: int, size: int) -> None:
    assert bytes_of(TensorProto(data_type=kind, dims=[3, 3])) == size


@pytest.mark.parametrize("kind", ["int2", "uint2"])
def test_two_bit_weights_are_refused_for_what_they_are(kind: str, tmp_path: Path) -> None:
    made = net("g (float[N,4] x) => (float[N,3] y) <float s = {1}> { w = DequantizeLinear(q, s) y = MatMul(x, w) }", 25)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(kind.upper()))
    made.graph.initializer.append(numpy_helper.from_array(np.ones((4, 3), dtype), "q"))
    path = tmp_path / "m.onnx"
    for external in (False, True):
        onnx.save_model(made, path, save_as_external_data=external, location="m.bin", size_threshold=0)
        with pytest.raises(UnsupportedModel, match=rf"node 'w' is 'DequantizeLinear' of {kind}, which was not allowed"):
            compile_model(path)


def outside(location: str, **entries: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "model"
    (inside / "deep").mkdir(parents=True)
    for file in (inside / "w.bin", inside / "deep" / "w.bin", tmp_path / "secret.bin"):
        file.write_bytes(np.arange(4, dtype=np.float32).tobytes() + b"after")
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    return inside


@pytest.mark.parametrize("location", ["w.bin", "./w.bin", "deep/w.bin", "deep/../w.bin", "deep\\w.bin"])
def test_a_file_in_the_models_folder_is_read(location: str, folder: Path) -> None:
    path, offset, length = WeightStore(folder).span(outside(location))
    assert (path.read_bytes()[offset:][:length], length) == (np.arange(4, dtype=np.float32).tobytes(), 16)
    assert WeightStore(folder).span(outside(location, offset="4", length="16"))[1:] == (4, 16)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("../secret.bin", {}, "outside the model's folder: '../secret.bin'"),
    ("deep/../../secret.bin", {}, "outside the model's folder"),
    ("..\\secret.bin", {}, "outside the model's folder"),
    ("/etc/passwd", {}, "outside the model's folder: '/etc/passwd'"),
    ("link.bin", {}, "outside the model's folder: 'link.bin'"),
    ("", {}, "outside the model's folder: ''"),
    ("none.bin", {}, "is missing: there is no file 'none.bin' beside the model"),
    ("deep", {}, "is missing: there is no file 'deep'"),
    (
        "w.bin",
        {"offset": "8"},
        "'w.bin' is too short for weight 'w': 16 bytes are needed at offset 8",
    ),
    ("w.bin", {"length": "12"}, "is too short for weight 'w'"),
    ("w.bin", {"offset": "-4"}, "is too short for weight 'w'"),
    ("w.bin", {"offset": "1e9"}, "has an offset or length in 'w.bin' that is not a number."),
]


@pytest.mark.parametrize(("location", "entries", "message"), REFUSED)
def test_other_files_and_other_spans_are_refused(location: str, entries: Any, message: str, folder: Path) -> None:
    with pytest.raises(BadModel) as caught:
        WeightStore(folder).span(outside(location, **entries))
    assert message in str(caught.value)


def test_a_proto_without_a_folder_has_no_data_files() -> None:
    with pytest.raises(BadModel, match="the model was given without a folder"):
        WeightStore().span(outside("w.bin"))
