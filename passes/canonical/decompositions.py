"""Operators that have no rule, spelled out in operators that have one, by ONNX's own definition of them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, inliner

from onnxplain.errors import UnsupportedModel
from onnxplain.ir.load import Source
from onnxplain.ir.model import Model
from onnxplain.passes.base import Pass, Report
from onnxplain.passes.canonical.opset import opset_of

DEFINED = frozenset({"Attention", "RMSNormalization", "RotaryEmbedding", "Swish", "CenterCropPad"})
"""What ONNX defines by operators that have rules, and has none itself. All but the last came after opset 21."""


class Decompose(Pass[Source]):
    """Every operator in DEFINED becomes the body that its schema gives for the opset that the model imports.

    Precondition:  local functions are inlined, since such an operator may stand in one.
    Postcondition: none of them is left, but where the opset's schema gives no body.
    Exact, since the body is the operator's definition.
    """

    def run(self, source: Source) -> Report:
        found = _defined(source.proto)
        if found:
            _state_defaults(source.proto)
            _state_types(source.proto)
            source.proto.CopyFrom(_inlined(source, sorted(set(found))))
        return Report(len(found))

    def ensures(self, source: Source) -> None:
        assert not _defined(source.proto)


class PlainCasts(Pass[Model]):
    """CastLike becomes Cast to the type that the other operand has: only its type was asked for, and not its values.

    Precondition: types are known.
    """

    def run(self, model: Model) -> Report:
        changed = 0
        for node in model.graph.nodes:
            if node.op != "CastLike" or node.domain or node.inputs[1].dtype is None:
                continue
            like = node.inputs[1].dtype
            to = like if isinstance(like, int) else helper.np_dtype_to_tensor_dtype(np.dtype(like))
            node.op, node.attrs = "Cast", {"to": to}
            node.inputs.pop(1)
            changed += 1
        return Report(changed)


def _inlined(source: Source, found: list[str]) -> onnx.ModelProto:
    try:
        return inliner.inline_selected_functions(
            source.proto, [("", op) for op in found], exclude=False, inline_schema_functions=True
        )
    except RuntimeError as error:  # a check in the inliner's C++ side
        reason = str(error).rpartition("failed: ")[2].rstrip(". ")
        raise UnsupportedModel(
            f"{', '.join(found)} of {source.name} cannot be spelled out in other operators: {reason}.\n"
            "  Export the model with an older opset, or without operators of other domains in front of it."
        ) from None


def _state_types(model: onnx.ModelProto) -> None:
    """Write down the types of weights: the inliner looks for them among inputs and annotations alone."""
    stated = {value.name for value in (*model.graph.input, *model.graph.value_info)}
    for tensor in model.graph.initializer:
        if tensor.name not in stated:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            model.graph.value_info.append(value)


def _state_defaults(model: onnx.ModelProto) -> None:
    """Write down the attributes that are left at their default: the inliner would leave them out of the body."""
    version = opset_of(model)
    for node in model.graph.node:
        if node.domain or not _has_body(node.op_type, version):
            continue
        given = {attribute.name for attribute in node.attribute}
        for name, known in onnx.defs.get_schema(node.op_type, version, "").attributes.items():
            if name not in given and known.default_value.type:
                node.attribute.append(known.default_value)


def _defined(model: onnx.ModelProto) -> list[str]:
    """The operator of each node that is to be spelled out and can be."""
    version = opset_of(model)
    return [n.op_type for n in model.graph.node if not n.domain and _has_body(n.op_type, version)]


def _has_body(op_type: str, version: int) -> bool:
    if op_type not in DEFINED:
        return False
    try:
        schema = onnx.defs.get_schema(op_type, version, "")
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)  # type: ignore[attr-defined]
