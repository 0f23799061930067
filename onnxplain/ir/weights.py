"""Weights kept apart from the graph.

ONNX's own tools (version converter, inliner, shape inference) copy a model several times, and a protobuf cannot exceed
2 GB. So large initialisers are taken out of the proto while the graph is worked on, each leaving a stub behind, and
put back, by reference, when the result is written. Passes that need numbers ask the store, which reads them then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from onnxplain.errors import BadModel
from onnxplain.ir.subgraphs import bodies
from onnxplain.ir.wire import Kept

Array = NDArray[Any]

DETACH_ABOVE = 1024
"""Bytes. Smaller constants stay: shape inference reads them."""

STUB = "onnxplain-detached:"
"""How the location of a tensor begins that a WeightStore knows."""

_HERE = "onnxplain-embedded"
"""The location of numbers that lie in the model's own file."""


@dataclass
class WeightStore:
    """Where the numbers of detached and external initialisers are.

    `folder` is the model's own folder: external data is read only from inside it. `file` is the model itself, where
    the numbers are that were passed over when it was read, and `data` the files beside it that hold others.
    """

    folder: Path | None = None
    tensors: dict[str, TensorProto] = field(default_factory=dict)
    file: Path | None = None
    data: frozenset[Path] = frozenset()

    def sources(self) -> list[Path]:
        """Every file that the model was read from."""
        return [*([] if self.file is None else [self.file]), *sorted(self.data)]

    def leave(self, model: onnx.ModelProto, file: Path, kept: Sequence[Kept]) -> None:
        """Note where in `file` the initialisers' numbers lie that `onnxplain.ir.wire.skim` passed over."""
        self.file = file
        for tensor in model.graph.initializer:
            key = location_of(tensor)
            if key.startswith(STUB):
                number = key.removeprefix(STUB)
                if not number.isdecimal() or int(number) >= len(kept):
                    raise BadModel(
                        f"{file.name} is broken: the data of weight {tensor.name!r} is said to lie in {key!r}, which "
                        "is no file name.\n  Export the model again."
                    )
                place = kept[int(number)]
                there = TensorProto(dims=tensor.dims, data_type=tensor.data_type, data_location=TensorProto.EXTERNAL)
                entries = {"location": _HERE, "offset": str(place.offset), "length": str(place.length)}
                for name, value in entries.items():
                    there.external_data.add(key=name, value=value)
                self.tensors[key] = there

    def detach(self, model: onnx.ModelProto) -> None:
        """Replace large initialisers and Constant attributes of `model` by stubs, keeping the originals here."""
        for tensor in _weights(model.graph):
            if tensor.data_location == TensorProto.EXTERNAL or bytes_of(tensor) <= DETACH_ABOVE:
                continue
            kept = TensorProto()
            kept.CopyFrom(tensor)
            key = f"{STUB}{len(self.tensors)}"
            self.tensors[key] = kept
            _clear_data(tensor)
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=key)

    def resolve(self, tensor: TensorProto) -> TensorProto:
        """The tensor with its numbers, or with its reference to a data file, under the stub's present name."""
        stub = self.tensors.get(location_of(tensor))
        if stub is None:
            return tensor
        stub.name = tensor.name
        return stub

    def array(self, constant: gs.Constant) -> Array:
        """The numbers of one constant, read from memory or from the model's data file.

        Raises: BadModel if the data file is missing, outside the model's folder or too short.
        """
        values = constant._values
        if isinstance(values, np.ndarray):
            return values
        tensor = self.resolve(values.tensor)
        if tensor.data_location == TensorProto.EXTERNAL:
            return self._read_external(tensor)
        return numpy_helper.to_array(tensor)

    def _read_external(self, tensor: TensorProto) -> Array:
        path, offset, length = self.span(tensor)
        raw = np.fromfile(path, dtype=np.uint8, count=length, offset=offset)
        whole = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=raw.tobytes())
        return numpy_helper.to_array(whole)

    def span(self, tensor: TensorProto) -> tuple[Path, int, int]:
        """File, offset and length in bytes of an external tensor, checked to lie inside the model's folder.

        Raises: BadModel.
        """
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        where = f"weight {tensor.name!r}"
        path = self.file if location == _HERE and self.file is not None else self._outside(location, where)
        try:
            offset, size = int(entries.get("offset", 0)), path.stat().st_size
            length = int(entries.get("length", size - offset))
        except ValueError:
            raise BadModel(f"{where} has an offset or length in {location!r} that is not a number.") from None
        needed = bytes_of(tensor)
        if offset < 0 or length < needed or offset + needed > size:
            raise BadModel(
                f"external data {location!r} is too short for {where}: {needed} bytes are needed at offset {offset}, "
                f"the file has {size}.\n  The file is truncated or belongs to another model."
            )
        return path, offset, needed

    def _outside(self, location: str, where: str) -> Path:
        """The data file at a location. Raises: BadModel if it is not there, or not in the model's folder."""
        if self.folder is None:
            raise BadModel(
                f"{where} lies in an external file {location!r}, but the model was given without a folder.\n"
                "  Pass the path of the .onnx file instead of a ModelProto, or load it with its external data."
            )
        pure = PurePosixPath(location.replace("\\", "/"))
        path = self.folder / pure
        root = self.folder.resolve()
        if "\0" in location or pure.is_absolute() or not path.resolve().is_relative_to(root) or not location:
            raise BadModel(
                f"{where} names external data outside the model's folder: {location!r}.\n"
                "  Such a file is not read. Move the data beside the model and save the model again."
            )
        if not path.is_file():
            raise BadModel(
                f"external data of {where} is missing: there is no file {location!r} beside the model.\n"
                "  Copy it into the model's folder; the .onnx file alone holds no weights."
            )
        return path


def embed(tensor: TensorProto, path: Path, offset: int, length: int) -> None:
    """Put the numbers of an external tensor into it."""
    with path.open("rb") as file:
        file.seek(offset)
        raw = file.read(length)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    tensor.raw_data = raw


def location_of(tensor: TensorProto) -> str:
    """The 'location' entry of an external tensor, or ''."""
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def length_of(tensor: TensorProto) -> int:
    """The 'length' entry of an external tensor, 0 where there is none."""
    return int(next((entry.value for entry in tensor.external_data if entry.key == "length"), "0"))


def is_stub(tensor: TensorProto) -> bool:
    """Whether the tensor's numbers are kept in a WeightStore."""
    return location_of(tensor).startswith(STUB)


def stored_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Initialisers and constants of `model`, those of branches and bodies too."""
    return _weights(model.graph)


def constants_inside(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Constants in attributes of nodes, and what branches and bodies store."""
    return _inside(model.graph)


def external_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Initialisers and constants of `model` that lie in data files."""
    return (t for t in _weights(model.graph) if t.data_location == TensorProto.EXTERNAL and not is_stub(t))


def _weights(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    yield from _inside(graph)


def _inside(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.type == onnx.AttributeProto.TENSOR)
        for body in bodies(node):
            yield from _weights(body)


def _clear_data(tensor: TensorProto) -> None:
    for name in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data"):
        tensor.ClearField(name)


def bytes_of(tensor: TensorProto) -> int:
    """How many bytes the numbers of a tensor take."""
    count = int(np.prod([int(d) for d in tensor.dims], dtype=np.int64))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1):
        return (count + 1) // 2
    if tensor.data_type in (TensorProto.INT2, TensorProto.UINT2):
        return (count + 3) // 4
    return count * dtype.itemsize
