"""Whose fault it is: a file that ONNX's own checker refuses is named, wherever the pipeline stumbled over it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
from google.protobuf.message import Message
from onnx import checker, helper
from onnx.shape_inference import InferenceError

from onnxplain.errors import BadModel, OnnxplainError
from onnxplain.ir.weights import bytes_of, is_stub, length_of

REFUSALS = (checker.ValidationError, InferenceError)
"""What ONNX raises where a node cannot be: of operands of another number, type or size."""


class FaultyEmission(InferenceError):
    """ONNX refuses a node that this package made: its fault, unless the file is broken too."""


@contextmanager
def blaming_the_file(model: onnx.ModelProto, name: str) -> Iterator[None]:
    """Turn what is raised inside into BadModel where the model, as it was read, is at fault.

    Checking every model beforehand would refuse what runtimes take, and for a good one cost time. An error in a model
    that passes the check is a bug of this package and stays what it is.
    """
    try:
        yield
    except OnnxplainError:
        raise
    except Exception as error:
        of_the_file = isinstance(error, REFUSALS) and not isinstance(error, FaultyEmission)
        fault = fault_of(model) or (_first_line(error) if of_the_file else None)
        if fault is None:
            raise
        raise BadModel(
            f"{name} is broken: {fault}.\n  Check the model with onnx.checker, or export it again."
        ) from None


def fault_of(model: onnx.ModelProto) -> str | None:
    """What ONNX's checker finds wrong, None where it finds nothing. Weights are taken at their word."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    listed = {value.name for value in bare.graph.input}
    for weight in bare.graph.initializer:
        if weight.name not in listed:
            bare.graph.input.append(helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    bare.graph.ClearField("initializer")
    try:
        checker.check_model(bare, full_check=True)
    except Exception as error:  # of whatever kind: it is C++ behind
        return _first_line(error)
    return None


def refuse_garbled(message: Message, name: str) -> None:
    """Raises: BadModel if a text anywhere in the message is not UTF-8."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in value if field.is_repeated else (value,):
                refuse_garbled(part, name)
        elif field.type == field.TYPE_STRING and any(
            isinstance(text, bytes) for text in (value if field.is_repeated else (value,))
        ):
            raise BadModel(
                f"{name} is broken: its field {field.name!r} holds what is no text.\n"
                "  Check that the download is complete, or export it again."
            )


def refuse_untyped(value: onnx.ValueInfoProto, name: str) -> None:
    """Raises: BadModel if an input or output is a tensor of a type that there is not."""
    if (
        value.type.HasField("tensor_type")
        and value.type.tensor_type.elem_type not in onnx.TensorProto.DataType.values()
    ):
        raise BadModel(
            f"{name} is broken: {value.name!r} has type {value.type.tensor_type.elem_type}, which ONNX does not have.\n"
            "  Check that the download is complete, or export it again."
        )


def refuse_malformed(tensor: onnx.TensorProto, name: str) -> None:
    """Raises: BadModel if a stored tensor's type, sizes and data do not go together."""
    known = tensor.data_type in onnx.TensorProto.DataType.values() and tensor.data_type != onnx.TensorProto.UNDEFINED
    fits = known and all(size >= 0 for size in tensor.dims)
    stored = len(tensor.raw_data)
    if fits and is_stub(tensor):
        stored = length_of(tensor)
        fits = stored == bytes_of(tensor)
    elif fits and tensor.data_location != onnx.TensorProto.EXTERNAL:
        if tensor.HasField("raw_data"):
            fits = len(tensor.raw_data) == bytes_of(tensor)
        else:
            fits = _stored(tensor) in _allowed(tensor)
    if not fits:
        raise BadModel(
            f"{name} is broken: weight {tensor.name!r} of type {tensor.data_type} and sizes {list(tensor.dims)} does "
            f"not fit what is stored ({stored} bytes).\n"
            "  Check that the download is complete, or export it again."
        )


def _allowed(tensor: onnx.TensorProto) -> tuple[int, ...]:
    """How many entries there may be: one for each element, two for complex ones, half as many for packed ones."""
    count = math.prod(tensor.dims)
    return count, 2 * count, -(-count // 2), -(-count // 4)


def _stored(tensor: onnx.TensorProto) -> int:
    """How many entries a tensor has in the fields for single kinds of numbers."""
    t = tensor
    kinds = (t.float_data, t.int32_data, t.int64_data, t.double_data, t.uint64_data, t.string_data)
    return max(len(kind) for kind in kinds)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
