"""Reading a model file, refusing what is not one."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError

from onnxplain.errors import BadModel, UnsupportedModel, UsageError
from onnxplain.ir.domains import plain_domains
from onnxplain.ir.order import order
from onnxplain.ir.sparse import without_sparse
from onnxplain.ir.weights import DETACH_ABOVE, STUB, WeightStore, embed, external_tensors, stored_tensors
from onnxplain.ir.wellformed import refuse_garbled, refuse_malformed, refuse_untyped
from onnxplain.ir.wire import NotSkimmed, skim


@dataclass
class Source:
    """A model as it was read, its weights kept apart.

    proto:   the model, large initialisers replaced by stubs; the canonical passes rewrite it.
    weights: where the numbers are.
    sha256:  of the file (of the serialised proto, when one was passed).
    name:    for messages.
    """

    proto: onnx.ModelProto
    weights: WeightStore
    sha256: str
    name: str
    external: bool
    """Whether weights lie in data files beside the model."""
    outputs: tuple[onnx.ValueInfoProto, ...]
    """The outputs as the model declares them."""
    given: onnx.ModelProto
    """The model as it was given, but for large weights: who is to blame is looked up in it."""


def load(model: str | Path | onnx.ModelProto) -> Source:
    """Read a model from a path or take a proto.

    A proto that is passed in is copied, never changed.

    Raises: BadModel if the file is missing, not ONNX, truncated, or its external data is not to be had;
            UnsupportedModel for inputs and outputs that are neither tensors nor sequences.
    """
    if isinstance(model, onnx.ModelProto):
        proto = onnx.ModelProto()
        proto.CopyFrom(model)
        try:
            digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
        except (EncodeError, ValueError):
            raise BadModel(
                "the ModelProto is larger than 2 GB, which cannot be serialised.\n"
                "  Save it with external data and pass the path instead."
            ) from None
        return _source(proto, WeightStore(), sha256=digest, name="the given ModelProto")
    path = model_path(model)
    refuse_no_file(path)
    digest = _digest(path)
    try:
        raw, kept = skim(path, DETACH_ABOVE, STUB)
    except NotSkimmed:
        raw, kept = path.read_bytes(), []
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(raw)
    except DecodeError:
        raise BadModel(
            f"{path.name} is not an ONNX model, or it is truncated: its {path.stat().st_size} bytes do not parse.\n"
            "  Check that the download is complete and that the file is an .onnx export."
        ) from None
    refuse_garbled(proto, path.name)
    weights = WeightStore(path.parent)
    weights.leave(proto, path, kept)
    return _source(proto, weights, sha256=digest, name=path.name)


def model_path(model: object) -> Path:
    """The path that was given for a model. Raises: UsageError for what is none."""
    if isinstance(model, (str, os.PathLike)):
        return Path(model)
    hint = "\n  Bytes become one by onnx.load_model_from_string." if isinstance(model, (bytes, bytearray)) else ""
    raise UsageError(f"the model must be a path or an onnx.ModelProto, not of type {type(model).__name__}.{hint}")


def refuse_no_file(path: Path) -> None:
    """Raises: BadModel if there is no file of that name, or one that can be read only once."""
    if path.is_dir():
        raise BadModel(f"{path} is a folder, not a model file.\n  Name the .onnx file inside it.")
    if not path.exists():
        raise BadModel(f"there is no file {path}.\n  Check the path of the model.")
    if not path.is_file():
        raise BadModel(
            f"{path} is a pipe or a device, which can be read once, and a model is read several times.\n"
            "  Write it to a file and name that."
        )


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadModel(f"{path} cannot be read: {error.strerror}.") from None


def _source(proto: onnx.ModelProto, weights: WeightStore, *, sha256: str, name: str) -> Source:
    if not proto.graph.node or not proto.graph.output or not proto.opset_import:
        raise BadModel(
            f"{name} is not an ONNX model: it has no graph with nodes, outputs and an opset.\n"
            "  Check that the file is an .onnx export and not weights or a checkpoint."
        )
    refuse_garbled(proto, name)
    plain_domains(proto)
    without_sparse(proto, name)
    order(proto.graph)
    _refuse_dangling(proto.graph, name)
    for value in (*proto.graph.input, *proto.graph.output):
        refuse_untyped(value, name)
        _refuse_kind(value, name)
        _free_sizes(value)
    for tensor in stored_tensors(proto):
        refuse_malformed(tensor, name)
    external = list(external_tensors(proto))
    weights.data = frozenset(weights.span(tensor)[0] for tensor in external)
    for tensor in external:
        if weights.span(tensor)[2] <= DETACH_ABOVE:
            embed(tensor, *weights.span(tensor))
    weights.detach(proto)
    given = onnx.ModelProto()
    given.CopyFrom(proto)
    return Source(proto, weights, sha256, name, bool(external), tuple(given.graph.output), given)


def _refuse_kind(value: onnx.ValueInfoProto, name: str) -> None:
    """Raises: UnsupportedModel for an input or output that is not a tensor or a sequence, such as an optional one."""
    kind = value.type.WhichOneof("value")
    if kind not in (None, "tensor_type", "sparse_tensor_type", "sequence_type"):
        raise UnsupportedModel(
            f"{name} has {value.name!r} among its inputs and outputs, of the kind {kind.removesuffix('_type')!r}: "
            "tensors and sequences can be there.\n"
            "  Export the model without it, or with the value that it has."
        )


def _free_sizes(value: onnx.ValueInfoProto) -> None:
    """Some exporters write -1 where a size is chosen at run time, which ONNX leaves open instead."""
    for dim in value.type.tensor_type.shape.dim:
        if dim.dim_value < 0:
            dim.ClearField("value")


def _refuse_dangling(graph: onnx.GraphProto, name: str) -> None:
    """Every tensor must come from somewhere before it is used: half of the tools behind this trust it blindly."""
    known = {"", *(v.name for v in graph.input), *(t.name for t in graph.initializer)}
    for node in graph.node:
        for used in node.input:
            if used not in known:
                raise BadModel(
                    f"{name} is broken: node {node.name or ''.join(node.output[:1])!r} ({node.op_type}) uses a tensor "
                    f"{used!r}, which no input, weight or earlier node provides.\n"
                    "  Check the model with onnx.checker, or export it again."
                )
        known.update(node.output)
    for output in graph.output:
        if output.name not in known:
            raise BadModel(f"{name} is broken: no node computes its output {output.name!r}.\n  Export it again.")
