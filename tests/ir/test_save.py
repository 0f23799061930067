"""Writing: everything that the model said is there again, files are whole or not there, weights are stored once."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxplain.compiler import compile_file, compile_model
from onnxplain.errors import OnnxplainError, UsageError
from onnxplain.ir import save
from onnxplain.ir.save import replacing
from tests.ir.test_weights import LARGE, model
from tests.running import Results, net, run

X = np.random.default_rng(1).standard_normal((2, 20)).astype(np.float32)


def expected() -> Results:
    return run(compile_model(model()), X)


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.onnx") as file:
        file.write(b"new")
        assert not (tmp_path / "a.onnx").exists()
    assert (tmp_path / "a.onnx").read_bytes() == b"new"
    assert files(tmp_path) == ["a.onnx"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "a.onnx").write_bytes(b"old")
    with pytest.raises(error), replacing(tmp_path / "a.onnx") as file:
        file.write(b"half")
        raise error
    assert (tmp_path / "a.onnx").read_bytes() == b"old"
    assert files(tmp_path) == ["a.onnx"]


def test_permissions_are_what_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "a.onnx"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.onnx").stat().st_mode) == 0o640


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write .*none/a\.onnx: No such file or directory"):
        compile_file(model(), tmp_path / "none" / "a.onnx")
    assert files(tmp_path) == []


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "c.onnx.data"):
        folder.mkdir(exist_ok=True)
    with pytest.raises(UsageError) as caught:
        compile_file(model(), tmp_path)
    assert str(caught.value) == f"cannot write {tmp_path}: it is a folder.\n  Name a file inside it."
    with pytest.raises(UsageError, match=r"cannot write .*c\.onnx\.data: it is a folder"):
        compile_file(external(tmp_path / "in"), tmp_path / "c.onnx")
    assert files(tmp_path) == ["c.onnx.data", "in"]


def test_one_file_where_weights_were_inside(tmp_path: Path) -> None:
    written = compile_file(model(), tmp_path / "out.onnx")
    assert written == [tmp_path / "out.onnx"]
    assert files(tmp_path) == ["out.onnx"]
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", X)["attribution"], expected()["attribution"])


def external(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "m.onnx"
    onnx.save_model(model(), path, save_as_external_data=True, location="m.bin", size_threshold=0)
    return path


def test_weights_that_lay_in_a_data_file_are_copied_to_one(tmp_path: Path) -> None:
    source, out = external(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    assert compile_file(source, out / "c.onnx") == [out / "c.onnx", out / "c.onnx.data"]
    assert files(out) == ["c.onnx", "c.onnx.data"]
    onnx.checker.check_model(str(out / "c.onnx"), full_check=True)
    shell = onnx.load(out / "c.onnx", load_external_data=False)
    (kept,) = (t for t in shell.graph.initializer if list(t.dims) == [20, 20])
    entries = {e.key: e.value for e in kept.external_data}
    assert (kept.data_location, entries["location"]) == (TensorProto.EXTERNAL, "c.onnx.data")
    assert int(entries["offset"]) % 4096 == 0
    assert int(entries["length"]) == LARGE.nbytes
    assert kept.raw_data == b""
    for name, value in run(out / "c.onnx", X).items():
        np.testing.assert_array_equal(value, expected()[name])


def test_a_proto_has_external_weights_inside(tmp_path: Path) -> None:
    compiled = compile_model(external(tmp_path / "in"))
    assert all(t.data_location == TensorProto.DEFAULT for t in compiled.graph.initializer)
    np.testing.assert_array_equal(run(compiled, X)["attribution"], expected()["attribution"])


@pytest.mark.parametrize("size", [0, 1 << 30])
def test_an_earlier_result_and_its_data_may_be_written_over(tmp_path: Path, size: int) -> None:
    """size: of the smallest weight that lies in the data file."""
    onnx.save_model(model(), tmp_path / "m.onnx", save_as_external_data=not size, location="m.bin", size_threshold=0)
    compile_file(tmp_path / "m.onnx", tmp_path / "c.onnx", "lrp-eps")
    compile_file(tmp_path / "m.onnx", tmp_path / "c.onnx")
    assert files(tmp_path) == (["c.onnx", "m.onnx"] if size else ["c.onnx", "c.onnx.data", "m.bin", "m.onnx"])
    np.testing.assert_array_equal(run(tmp_path / "c.onnx", X)["attribution"], expected()["attribution"])


SMALL = "g (float[N,4] x) => (float[N,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}> { h = Tanh(x) y = MatMul(h, w) }"


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize(
    ("name", "data", "out", "lost"),
    [
        ("trained.onnx", "model.onnx.data", "model.onnx", "model.onnx.data is where weights of trained.onnx lie"),
        ("m.onnx", "m.onnx.data", "m.onnx.data", "m.onnx.data is where weights of m.onnx lie"),
        ("m.onnx", "m.bin", "m.onnx", "m.onnx is the model itself"),
        ("m.onnx", "m.bin", "link.onnx", "link.onnx is the model itself"),
        ("m.data", "m.bin", "m", "m.data is the model itself"),
        ("m.onnx", "", "m.onnx", "m.onnx is the model itself"),
    ],
)
def test_no_file_that_the_model_was_read_from_is_written_over(
    tmp_path: Path, name: str, data: str, out: str, lost: str, small: bool
) -> None:
    """small: weights that are read at once, since shapes may depend on them."""
    trained, path = net(SMALL) if small else model(), tmp_path / name
    for weight in trained.graph.initializer:
        weight.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(weight), weight.name)
        )  # only bytes can lie outside
    onnx.save_model(trained, path, save_as_external_data=bool(data), location=data or None, size_threshold=0)
    (tmp_path / "link.onnx").symlink_to(path)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(UsageError) as caught:
        compile_file(path, tmp_path / out)
    assert str(caught.value) == f"{tmp_path / lost}, which would be overwritten.\n  Name another file to write."
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    for name, old in (("there", b"old"), ("not yet", None)):
        target, link = tmp_path / f"{name}.onnx", tmp_path / f"{name} link.onnx"
        if old is not None:
            target.write_bytes(old)
        link.symlink_to(target)
        compile_file(model(), link)
        assert link.is_symlink()
        assert not target.is_symlink()
        np.testing.assert_array_equal(run(target, X)["attribution"], expected()["attribution"])


def test_the_data_file_lies_beside_the_name_that_was_given(tmp_path: Path) -> None:
    """The graph is opened by that name, and its data looked for in that folder."""
    source, target, link = external(tmp_path / "in"), tmp_path / "in" / "target.onnx", tmp_path / "link.onnx"
    link.symlink_to(target)
    assert compile_file(source, link) == [link, tmp_path / "link.onnx.data"]
    assert link.is_symlink()
    assert target.is_file()
    np.testing.assert_array_equal(run(link, X)["attribution"], expected()["attribution"])


def test_a_pipe_and_a_link_to_itself_are_no_files(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(link)
    with pytest.raises(UsageError) as caught:
        compile_file(model(), pipe)
    told = "it is a pipe or a device, and a file is written under another name first.\n  Name a file."
    assert str(caught.value) == f"cannot write {pipe}: {told}"
    with pytest.raises(UsageError) as caught:
        compile_file(model(), link)
    assert str(caught.value) == f"cannot write {link}: it is a link that leads back to itself.\n  Remove it."
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert files(tmp_path) == ["link", "pipe"]


def test_a_failed_write_of_the_graph_leaves_no_data_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = external(tmp_path / "in"), tmp_path / "out"
    out.mkdir()

    def full(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        compile_file(source, out / "c.onnx")
    assert files(out) == []


@pytest.mark.parametrize("last", ["c.onnx.data", "c.onnx"])
def test_no_graph_is_left_that_reads_the_data_of_another(
    tmp_path: Path, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older result is written over, and the machine stops before one of the two files has its name."""
    source, out = external(tmp_path / "in"), tmp_path / "c.onnx"
    compile_file(source, out, "gradient")
    before = out.read_bytes()
    replace = Path.replace

    def stopped(self: Path, target: Path) -> Path:
        if target.name == last:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        compile_file(source, out, "lrp-eps")
    assert not out.exists() or (out.read_bytes() == before and last == "c.onnx.data")
    assert files(tmp_path) == ["c.onnx.data", "in"]


def test_texts_and_packed_numbers_beside_a_data_file(tmp_path: Path) -> None:
    """Texts stay in the graph; four-bit numbers that were stored entry by entry are packed."""
    columns = 4000
    made = net(
        f"""g (float[N,4] x) => (float[N,{columns}] y, string[300] words) <float one = {{1}}> {{
            w = DequantizeLinear(four, one) b = MatMul(x, w) y = Add(b, bias) words = Identity(text) }}""",
        21,
    )
    weights = [
        numpy_helper.from_array(np.zeros(columns, np.float32), "bias"),
        helper.make_tensor("text", TensorProto.STRING, [300], [b"word"] * 300),
        helper.make_tensor("four", TensorProto.INT4, [4, columns], np.arange(4 * columns) % 16 - 8),
    ]
    made.graph.initializer.extend(weights)
    onnx.save_model(made, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=1000)
    compile_file(tmp_path / "m.onnx", tmp_path / "c.onnx", output="y")
    x = np.ones((1, 4), np.float32)
    found, want = run(tmp_path / "c.onnx", x), run(tmp_path / "m.onnx", x)
    np.testing.assert_array_equal(found["y"], want["y"])
    assert found["words"].tolist() == ["word"] * 300


def test_small_constants_in_a_data_file_are_read_since_shapes_depend_on_them(tmp_path: Path) -> None:
    """As `onnx.save_model(..., size_threshold=0)` writes it: the bounds of a Slice lie outside too."""
    source = external(tmp_path / "in")
    stored = onnx.load(source, load_external_data=False).graph.initializer
    assert all(t.data_location == TensorProto.EXTERNAL for t in stored)
    np.testing.assert_array_equal(run(compile_model(source), X)["attribution"], expected()["attribution"])


def test_more_than_a_protobuf_can_hold_goes_into_a_data_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limit lowered; tests/ir/test_large.py has 2 GB."""
    monkeypatch.setattr(save, "EMBED_UP_TO", 1000)
    with pytest.raises(OnnxplainError, match=r"exceeds 2 GB, which a ModelProto cannot hold.\n  Use compile_file"):
        compile_model(model())
    assert compile_file(model(), tmp_path / "c.onnx") == [tmp_path / "c.onnx", tmp_path / "c.onnx.data"]
    monkeypatch.undo()
    np.testing.assert_array_equal(run(tmp_path / "c.onnx", X)["attribution"], expected()["attribution"])


def test_weights_are_stored_once() -> None:
    """The walk back needs the matrix transposed, and does it in its operator."""
    compiled = compile_model(model(), "gradient,gradient-x-input,integrated-gradients,smoothgrad")
    assert sum(list(t.dims) == [20, 20] for t in compiled.graph.initializer) == 1
    assert compiled.ByteSize() < model().ByteSize() + 20_000


def test_outputs_are_declared_as_they_were() -> None:
    given = model()
    given.graph.output[0].doc_string = "the scores"
    given.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "someone"
    declared = compile_model(given).graph.output[0]
    assert declared == given.graph.output[0]


BODY = """g (float[N,20] x) => (float[N,20] y, float[N,20] z) <int64 times = {2}, bool go = {1}> {
    y = Relu(x)
    z = Loop(times, go, x) <body = inside (int64 i, bool c, float[N,20] s) => (bool d, float[N,20] t) {
        d = Identity(c)  w = Constant()  u = MatMul(s, w)  t = MatMul(u, v) }> }"""


@pytest.mark.parametrize("outside", [False, True], ids=["inside the file", "in a data file"])
def test_weights_of_the_models_own_bodies_are_written_too(tmp_path: Path, outside: bool) -> None:
    """A loop beside what is explained: one weight stored in its body, one in a Constant."""
    given = net(BODY)
    body = given.graph.node[1].attribute[0].g
    body.node[1].attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(numpy_helper.from_array(LARGE))
    body.initializer.append(numpy_helper.from_array(LARGE.T.copy(), "v"))
    wanted = run(given, X)
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / "m.onnx"
    onnx.save_model(
        given, source, save_as_external_data=outside, location="m.bin", size_threshold=0, convert_attribute=True
    )
    compile_file(source, tmp_path / "c.onnx", output="y")
    for found in (run(tmp_path / "c.onnx", X), run(compile_model(source, output="y"), X)):
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)
