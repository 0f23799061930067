"""The numbers of large weights stay in the file: what is parsed is the rest, and what is written is whole again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from onnxplain.compiler import compile_file, compile_model
from onnxplain.errors import BadModel, OnnxplainError, UsageError
from onnxplain.ir import save
from onnxplain.ir.load import load
from onnxplain.ir.wire import NotSkimmed, graph_header, initializer_header, skim
from tests.ir.test_weights import LARGE, model, stored
from tests.running import run

X = np.random.default_rng(1).standard_normal((2, 20)).astype(np.float32)


def saved(made: ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def test_what_is_left_is_the_model_without_large_numbers(tmp_path: Path) -> None:
    path = saved(model(), tmp_path)
    raw, (kept,) = skim(path, 1024, "stub:")
    assert len(raw) < len(path.read_bytes()) - LARGE.nbytes + 100
    assert path.read_bytes()[kept.offset : kept.offset + kept.length] == LARGE.tobytes()
    parsed = ModelProto.FromString(raw)
    stub = stored(parsed, "large")
    assert (stub.dims, stub.data_type, stub.data_location) == ([20, 20], TensorProto.FLOAT, TensorProto.EXTERNAL)
    assert {e.key: e.value for e in stub.external_data} == {"location": "stub:0", "length": str(LARGE.nbytes)}
    stub.CopyFrom(numpy_helper.from_array(LARGE, "large"))
    assert parsed == model()


def test_fields_in_another_order_or_in_parts_are_read_too(tmp_path: Path) -> None:
    """A graph may come in two parts, which parsers merge; this is how files are put together from blocks."""
    whole = model()
    second = ModelProto()
    second.graph.initializer.extend(whole.graph.initializer)
    del whole.graph.initializer[:]
    path = tmp_path / "parts.onnx"
    path.write_bytes(second.SerializeToString() + whole.SerializeToString())
    raw, kept = skim(path, 1024, "stub:")
    assert len(kept) == 1
    parsed = ModelProto.FromString(raw)
    assert [n.op_type for n in parsed.graph.node] == [n.op_type for n in whole.graph.node]
    assert len(parsed.graph.initializer) == len(second.graph.initializer)


@pytest.mark.parametrize(
    "content", [b"", b"\x0b\x0c", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x3a\x50abc"]
)
def test_what_is_not_understood_is_left_to_the_parser(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.onnx"
    path.write_bytes(content)
    with pytest.raises(NotSkimmed):
        skim(path, 1024, "stub:")


def test_numbers_that_do_not_fit_are_refused_as_ever(tmp_path: Path) -> None:
    made = model()
    stored(made, "large").raw_data = LARGE.tobytes()[:-4]
    with pytest.raises(
        BadModel, match=r"weight 'large' of type 1 and sizes \[20, 20\] does not fit what is stored \(1596"
    ):
        load(saved(made, tmp_path))


def test_headers_are_those_of_the_protobuf_library() -> None:
    bare = TensorProto(name="w", dims=[300], data_type=TensorProto.FLOAT)
    numbers = np.arange(300, dtype=np.float32).tobytes()
    head = initializer_header(bare.SerializeToString(), len(numbers))
    written = graph_header(len(head) + len(numbers)) + head + numbers
    (tensor,) = ModelProto.FromString(written).graph.initializer
    assert tensor == TensorProto(name="w", dims=[300], data_type=TensorProto.FLOAT, raw_data=numbers)


def test_a_file_compiles_to_what_its_proto_compiles_to(tmp_path: Path) -> None:
    path = saved(model(), tmp_path)
    compile_file(path, tmp_path / "explained.onnx")
    onnx.checker.check_model(tmp_path / "explained.onnx", full_check=True)
    expected, found = run(compile_model(model()), X), run(tmp_path / "explained.onnx", X)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_file_is_not_compiled_onto_itself_under_any_name(tmp_path: Path) -> None:
    path = saved(model(), tmp_path)
    before, other = path.read_bytes(), tmp_path / "other.onnx"
    os.link(path, other)
    for name in (path, other):
        with pytest.raises(UsageError, match=rf"{name.name} is the model itself, which would be overwritten\."):
            compile_file(path, name)
    assert path.read_bytes() == before


def test_a_link_to_a_file_elsewhere_is_read(tmp_path: Path) -> None:
    """As in a cache of downloads, where names are links to contents."""
    (tmp_path / "contents").mkdir()
    (tmp_path / "names").mkdir()
    link = tmp_path / "names" / "model.onnx"
    link.symlink_to(saved(model(), tmp_path / "contents"))
    compile_file(link, tmp_path / "explained.onnx")
    assert run(tmp_path / "explained.onnx", X)["attribution"].shape == (2, 20)


def test_a_file_that_is_cut_off_meanwhile_is_noticed(tmp_path: Path) -> None:
    """Its size is looked at before it is copied; what ends during the copy is what is tried here."""
    path = saved(model(), tmp_path)
    with (tmp_path / "out").open("wb") as out, pytest.raises(OnnxplainError) as caught:
        save._copy(path, path.stat().st_size - 10, 20, out)
    assert str(caught.value) == (
        "model.onnx ended before its weights were complete: it changed while it was compiled.\n"
        "  Compile it again when nothing writes to it any more."
    )
