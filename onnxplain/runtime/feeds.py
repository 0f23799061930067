"""What goes into a session: arrays made to fit the graph's inputs, or refused in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import UnsupportedModel, UsageError
from onnxplain.ir.value import Dim, shown

Array = NDArray[Any]

_DTYPES: dict[str, Any] = {"float": np.float32, "double": np.float64, "bfloat16": ml_dtypes.bfloat16, "string": np.str_}


@dataclass(frozen=True)
class Port:
    """An input of a graph. A size is a number, the name of a size chosen at run time, or None."""

    name: str
    shape: tuple[Dim, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        """As messages show it: input 'pixels' takes float32 (N, 3, 32, 32)."""
        return f"input {self.name!r} takes {self.dtype} {shown(self.shape)}"


def ports(arguments: Iterable[Any]) -> dict[str, Port]:
    """The inputs of a session by name; `arguments` is what session.get_inputs() returns.

    Raises: UnsupportedModel for an input that arrays cannot be given to, such as a sequence.
    """
    found = {}
    for argument in arguments:
        kind = argument.type.removeprefix("tensor(").removesuffix(")")
        try:
            dtype = np.dtype(_DTYPES.get(kind, kind))
        except TypeError:
            raise UnsupportedModel(
                f"input {argument.name!r} takes {argument.type}, and only arrays of NumPy's types can be given here.\n"
                "  Run the graph with ONNX Runtime itself: onnxruntime.InferenceSession."
            ) from None
        found[argument.name] = Port(argument.name, tuple(argument.shape), dtype)
    return found


def batched(port: Port, array: Array) -> Array:
    """Samples for an input (N, ...), in its dtype; a single sample gets a batch axis of its own.

    Raises: UsageError if the shape does not fit, the dtype cannot be converted without loss, or these are raw pixels.
    """
    if array.dtype == np.uint8 and port.dtype.kind not in "iu":
        raise UsageError(
            f"the images hold uint8, which are pixels from 0 to 255 as they come from a file, and {port}.\n"
            "  Preprocess them as the model was trained: onnxplain.runtime.preprocess.Preprocess does the usual ones.\n"
            f"  If the model takes raw pixels, say so: images.astype({port.dtype.name!r})."
        )
    if array.ndim == len(port.shape) - 1:
        array = array[None]
    expected = (None, *port.shape[1:])
    if not _fits(array.shape, expected):
        raise UsageError(f"an array of shape {array.shape} does not fit: {port}.{_swapped(array.shape, expected)}")
    if not len(array):
        raise UsageError(f"there are no samples: the array has shape {array.shape}.")
    return converted(port, array)


def fitted(port: Port, array: Array, samples: int | None = None) -> Array:
    """An array for any other input. A fixed batch may be exceeded by `samples`, since portions are run one by one.

    Raises: UsageError as `batched`.
    """
    expected = port.shape
    if port.shape and array.ndim and samples is not None and len(array) == samples:
        expected = (None, *port.shape[1:])
    if not _fits(array.shape, expected):
        raise UsageError(f"an array of shape {array.shape} does not fit: {port}.")
    return converted(port, array)


def real(dtype: np.dtype[Any]) -> bool:
    """Whether a type is of real numbers; NumPy does not know bfloat16 for one."""
    return dtype.kind == "f" or dtype == ml_dtypes.bfloat16


def converted(port: Port, array: Array) -> Array:
    """The array in the input's dtype. Raises: UsageError where numbers would be lost by it."""
    if array.dtype == port.dtype or (port.dtype.kind == array.dtype.kind == "U"):
        return np.asarray(array, order="C")
    refusal = f"an array of {array.dtype} cannot be given to {port.name!r}, which takes {port.dtype}"
    if array.dtype.kind not in "iub" and not real(array.dtype):
        raise UsageError(f"{refusal}.")
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(port.dtype)
    if array.dtype.kind in "iub" or port.dtype.kind in "iub":
        kept = np.array_equal(result.astype(array.dtype), array)
    else:
        kept = bool(np.array_equal(np.isfinite(result), np.isfinite(array)))
    if not kept:
        raise UsageError(f"{refusal}: some of its values do not survive the conversion.")
    return np.asarray(result, order="C")


def cut(array: Array, axis: int | None, rows: Array) -> Array:
    """The given samples along an axis; the whole where it has no axis of samples."""
    return array if axis is None else np.take(array, rows, axis)


def _fits(shape: tuple[int, ...], expected: tuple[Dim, ...]) -> bool:
    return len(shape) == len(expected) and all(
        not isinstance(want, int) or have == want for have, want in zip(shape, expected, strict=True)
    )


def _swapped(shape: tuple[int, ...], expected: tuple[Dim, ...]) -> str:
    """A hint where the array has its channels at the other end."""
    if len(shape) != 4:
        return ""
    n, a, b, c = shape
    for moved, names, axes in (((n, c, a, b), "last", "0, 3, 1, 2"), ((n, b, c, a), "first", "0, 2, 3, 1")):
        if _fits(moved, expected):
            return f"\n  The array has its channels {names}: images.transpose({axes})."
    return ""
