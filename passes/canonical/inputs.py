"""The input that is explained."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from onnxplain.errors import UnsupportedModel, UsageError, enumerated, nearest
from onnxplain.ir.model import Model
from onnxplain.ir.value import shown


def select_input(model: Model, name: str | None, *, coarse: bool = False) -> gs.Tensor:
    """The input to explain.

    coarse: whether maps are of a layer alone, for which the input may hold integers.
    Raises: UsageError if the model has several and none was named, or the name is not one of them;
            UnsupportedModel if it does not hold real numbers.
    """
    inputs = {t.name: t for t in model.graph.inputs}
    if name is None and len(inputs) != 1:
        listed = enumerated([f"{t.name} {_kind(t)}" for t in inputs.values()])
        raise UsageError(f"{model.name} has {len(inputs)} inputs: {listed}.\n  Say which to explain: --input NAME.")
    if name is not None and name not in inputs:
        raise UsageError(f"{model.name} has no input {name!r}. {nearest(name, inputs, kind='inputs')}")
    chosen = model.graph.inputs[0] if name is None else inputs[name]
    if not _is_real(chosen) and not (coarse and _is_whole(chosen)):
        instead = ", or choose a map of a layer, such as grad-cam" if _is_whole(chosen) else ""
        raise UnsupportedModel(
            f"input {chosen.name!r} holds {_kind(chosen)}, and an attribution needs real numbers.\n"
            f"  Export the model with a float input: do the conversion from integers before the graph{instead}."
        )
    if chosen.shape is None or len(chosen.shape) < 2:
        raise UnsupportedModel(
            f"input {chosen.name!r} has no batch axis: its shape is {shown(chosen.shape)}, and (N, ...) is needed."
        )
    if 0 in chosen.shape[1:]:
        raise UnsupportedModel(
            f"input {chosen.name!r} has shape {shown(chosen.shape)} and so holds nothing to explain."
        )
    return chosen


def _is_real(tensor: gs.Tensor) -> bool:
    """Whether it holds floats of a type that runtimes compute with; bfloat16 among them, eight bits not."""
    if tensor.dtype is None or isinstance(tensor.dtype, int):
        return bool(tensor.dtype == TensorProto.BFLOAT16)
    return np.dtype(tensor.dtype) == ml_dtypes.bfloat16 or bool(np.issubdtype(np.dtype(tensor.dtype), np.floating))


def _is_whole(tensor: gs.Tensor) -> bool:
    """Whether it holds integers of a type that NumPy has."""
    return not isinstance(tensor.dtype, int) and bool(np.issubdtype(np.dtype(tensor.dtype), np.integer))


def _kind(tensor: gs.Tensor) -> str:
    if isinstance(tensor.dtype, int):
        return str(TensorProto.DataType.Name(tensor.dtype)).lower()
    return "strings" if tensor.dtype == np.dtype(object) else str(tensor.dtype)
