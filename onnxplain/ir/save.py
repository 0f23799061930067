"""Writing a model: metadata put back, weights by reference, the file whole or not there at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto

from onnxplain.errors import OnnxplainError, UsageError
from onnxplain.ir.emitter import PREFIX
from onnxplain.ir.model import Model
from onnxplain.ir.subgraphs import bodies
from onnxplain.ir.weights import DETACH_ABOVE, bytes_of, constants_inside, embed, stored_tensors
from onnxplain.ir.wire import graph_header, initializer_header

IR_VERSION = 10
EMBED_UP_TO = 1_900_000_000
"""Bytes. A protobuf cannot exceed 2 GB; larger weights go into a data file."""

_COPY = 1 << 22
_ALIGN = 1 << 12


def to_proto(model: Model) -> onnx.ModelProto:
    """The model with its weights inside, or with references to data files where they were external.

    Raises: OnnxplainError if it would exceed what a ModelProto can hold.
    """
    proto = _exported(model)
    if _size(model, proto) > EMBED_UP_TO:
        raise OnnxplainError(
            f"{model.name} with its explanation exceeds 2 GB, which a ModelProto cannot hold.\n"
            "  Use compile_file (or the command line), which writes weights beside the graph."
        )
    for tensor in stored_tensors(proto):
        _restore(model, tensor)
    return proto


def write(model: Model, path: Path) -> list[Path]:
    """Write the model to `path`, with `<path>.data` beside it if its weights were external or exceed 2 GB.

    Weights are copied file to file, never held in memory. Everything is written under a temporary name first.
    Returns: the files written.
    Raises: UsageError if either is a file that the model was read from, or cannot be written (see `replacing`).
    """
    proto = _exported(model)
    large = model.external or _size(model, proto) > EMBED_UP_TO
    data = path.with_name(path.name + ".data") if large else None
    for place in (path, data):
        if place is not None:
            _spare(model, place)
    if data is None:
        with replacing(path) as file:
            _write_whole(model, proto, file)
        return [path]
    with _part_of(data) as weights, _part_of(path) as graph:
        with weights.open("wb") as file:
            for tensor in proto.graph.initializer:
                _append(model, tensor, file, data.name)
        for tensor in constants_inside(proto):
            _restore(model, tensor)
        graph.write_bytes(proto.SerializeToString())
        _permit(weights, graph)
        # Two files cannot be replaced at once: in between there must be no graph, or it would read the other's data.
        _behind(path).unlink(missing_ok=True)
        weights.replace(_behind(data))
        graph.replace(_behind(path))
    return [path, data]


def _spare(model: Model, place: Path) -> None:
    """Raises: UsageError if something of the model lies there, which writing would destroy."""
    for source in model.weights.sources():
        if place.exists() and source.exists() and place.samefile(source):
            what = "the model itself" if source == model.weights.file else f"where weights of {model.name} lie"
            raise UsageError(f"{place} is {what}, which would be overwritten.\n  Name another file to write.")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name when it is whole; an interrupted write leaves what was there before.

    Where the name is a link, what it leads to is written.
    Raises: UsageError for a folder, a pipe or a device, and if the folder is not there or cannot be written.
    """
    with _part_of(path) as part:
        with part.open("wb") as file:
            yield file
        _permit(part)
        part.replace(_behind(path))


def _behind(path: Path) -> Path:
    """The file that a link leads to, or would; a path without links, itself. Raises: UsageError."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # Python 3.12 and older raise the latter
        raise UsageError(f"cannot write {path}: it is a link that leads back to itself.\n  Remove it.") from None


@contextmanager
def _part_of(path: Path) -> Iterator[Path]:
    """A new file beside that of `path`, gone at the end if unnamed by then. Raises: UsageError as `replacing`."""
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder.\n  Name a file inside it.")
    place = _behind(path)
    if place.exists() and not place.is_file():
        raise UsageError(
            f"cannot write {path}: it is a pipe or a device, and a file is written under another name first.\n"
            "  Name a file."
        )
    try:
        handle, name = tempfile.mkstemp(prefix=f".{place.name}.", suffix=".part", dir=place.parent)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}.\n  Check that the folder exists and is writable."
        ) from None
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _permit(*parts: Path) -> None:
    """The permissions that other new files get."""
    for part in parts:
        os.chmod(part, 0o666 & ~_umask())


def _exported(model: Model) -> onnx.ModelProto:
    proto: onnx.ModelProto = gs.export_onnx(model.graph)
    proto.ir_version = IR_VERSION
    for output, declared in zip(proto.graph.output, model.outputs, strict=False):
        output.CopyFrom(declared)
    model.notes.put_back(proto)
    _hoist(proto.graph)
    return proto


def _hoist(graph: onnx.GraphProto) -> None:
    """Constants of the loop bodies made here become the main graph's, where they are stored once.

    graphsurgeon writes a constant into each graph that reads it, and notes the types of outer tensors in bodies, where
    they do not belong; those of a body's own tensors stay, since runtimes do not infer all of them there. Bodies that
    the model brought are left alone: equal names in two of them may differ in value.
    """
    known = {tensor.name for tensor in graph.initializer}
    made_here = [body for node in graph.node for body in bodies(node) if body.name.startswith(PREFIX)]
    for body in made_here:
        for tensor in body.initializer:
            if tensor.name not in known:
                known.add(tensor.name)
                graph.initializer.add().CopyFrom(tensor)
        del body.initializer[:]
        made = {name for node in body.node for name in node.output}
        inside = [value for value in body.value_info if value.name in made]
        del body.value_info[:]
        body.value_info.extend(inside)


def _size(model: Model, proto: onnx.ModelProto) -> int:
    return sum(_bytes(model, tensor) for tensor in stored_tensors(proto))


def _bytes(model: Model, tensor: TensorProto) -> int:
    whole = model.weights.resolve(tensor)
    return model.weights.span(whole)[2] if whole.data_location == TensorProto.EXTERNAL else bytes_of(whole)


def _restore(model: Model, tensor: TensorProto) -> None:
    """Put the numbers of a detached tensor back, and those that lie in a data file."""
    whole = model.weights.resolve(tensor)
    if whole is not tensor:
        tensor.CopyFrom(whole)
    if tensor.data_location == TensorProto.EXTERNAL:
        embed(tensor, *model.weights.span(tensor))


def _write_whole(model: Model, proto: onnx.ModelProto, file: BinaryIO) -> None:
    """Write the model with its weights inside; those that lie in a file are copied from it, never held in memory."""
    large: list[tuple[bytes, int, bytes | tuple[Path, int, int]]] = []
    small = onnx.GraphProto()
    for tensor in proto.graph.initializer:
        whole = model.weights.resolve(tensor)
        bare = TensorProto(name=tensor.name, dims=whole.dims, data_type=whole.data_type).SerializeToString()
        if whole.data_location == TensorProto.EXTERNAL:
            span = model.weights.span(whole)
            large.append((initializer_header(bare, span[2]), span[2], span))
        elif whole.HasField("raw_data") and bytes_of(whole) > DETACH_ABOVE:
            raw = whole.raw_data
            large.append((initializer_header(bare, len(raw)), len(raw), raw))
        else:
            small.initializer.append(whole)
    del proto.graph.initializer[:]
    for tensor in stored_tensors(proto):
        _restore(model, tensor)
    content = [proto.graph.SerializeToString(), small.SerializeToString()]
    proto.ClearField("graph")
    size = sum(map(len, content)) + sum(len(head) + length for head, length, _ in large)
    file.writelines([proto.SerializeToString(), graph_header(size), *content])
    for head, _, numbers in large:
        file.write(head)
        if isinstance(numbers, bytes):
            file.write(numbers)
        else:
            _copy(*numbers, file)


def _copy(path: Path, offset: int, length: int, data: BinaryIO) -> None:
    with path.open("rb") as file:
        file.seek(offset)
        while length:
            block = file.read(min(length, _COPY))
            if not block:
                raise OnnxplainError(
                    f"{path.name} ended before its weights were complete: it changed while it was compiled.\n"
                    "  Compile it again when nothing writes to it any more."
                )
            data.write(block)
            length -= len(block)


def _append(model: Model, tensor: TensorProto, data: BinaryIO, location: str) -> None:
    """Move one tensor's numbers to the end of the data file, unless it is small."""
    whole = model.weights.resolve(tensor)
    if whole.data_location == TensorProto.EXTERNAL:
        path, offset, length = model.weights.span(whole)
        start = _aligned(data)
        _copy(path, offset, length, data)
    elif tensor.ByteSize() <= DETACH_ABOVE and whole is tensor:
        return
    elif whole.data_type == TensorProto.STRING:  # texts have no form outside of the graph
        tensor.CopyFrom(whole)
        return
    else:
        # What is stored entry by entry is packed on the way: numbers of four bits are two in a byte.
        raw = whole.raw_data or onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(whole)).raw_data
        start = _aligned(data)
        data.write(raw)
    end = data.tell()
    kept = TensorProto(
        name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", location), ("offset", str(start)), ("length", str(end - start))):
        kept.external_data.add(key=key, value=value)
    tensor.CopyFrom(kept)


def _aligned(data: BinaryIO) -> int:
    """Pad to a page, so that runtimes can map the tensor. Returns: where it starts."""
    data.write(b"\0" * (-data.tell() % _ALIGN))
    return data.tell()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
