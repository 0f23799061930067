"""Types and shapes of every tensor, by ONNX's own inference."""

from __future__ import annotations

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, shape_inference

from onnxplain.errors import BadModel
from onnxplain.ir.infer import LIKE_FIRST, POOLS, RIGHT_FROM
from onnxplain.ir.load import Source
from onnxplain.ir.subgraphs import bodies
from onnxplain.passes.base import Pass, Report
from onnxplain.passes.canonical.opset import opset_of


class InferShapes(Pass[Source]):
    """Annotate every tensor, with the values of computed shapes propagated.

    What the exporter left in value_info, and the sizes it declared for the outputs, are dropped first: they are often
    stale, and the propagation trusts them. The outputs' own declarations come back when the model is written. Pools
    with ceil_mode are inferred as in opset 22, which says what runtimes always did.
    """

    def run(self, source: Source) -> Report:
        del source.proto.graph.value_info[:]
        _forget_sizes(source.proto.graph)
        kept = _stand_in(source.proto)
        version = opset_of(source.proto)
        _import(source.proto, RIGHT_FROM if any(n.op_type in POOLS for n in source.proto.graph.node) else version)
        inferred = _inferred(source)
        _refuse_negative(inferred.graph, source.name)
        source.proto.CopyFrom(inferred)
        _import(source.proto, version)
        for index, node in kept.items():
            source.proto.graph.node[index].CopyFrom(node)
        return Report(len(inferred.graph.value_info))


def _inferred(source: Source) -> ModelProto:
    """With the values of computed shapes, where ONNX's propagation of them is to be had.

    It fails where the two branches of an If use one name for a shape, as they may, and ONNX's converter makes such.
    Raises: BadModel where types and sizes alone do not fit.
    """
    try:
        return _by_onnx(source.proto, values=not _counts_flags(source.proto.graph))
    except shape_inference.InferenceError:
        pass
    try:
        return _by_onnx(source.proto, values=False)
    except shape_inference.InferenceError as error:
        raise BadModel(
            f"{source.name} contradicts itself: {_first_reason(error)}.\n"
            "  ONNX's shape inference refuses it. Check the model with onnx.checker, or export it again."
        ) from None


def _by_onnx(proto: ModelProto, *, values: bool) -> ModelProto:
    return shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=values)


def _refuse_negative(graph: GraphProto, name: str) -> None:
    """Raises: BadModel where inference, which does not mind, finds a size below zero: a window beyond its operand."""
    for value in (*graph.value_info, *graph.output):
        if any(dim.dim_value < 0 for dim in value.type.tensor_type.shape.dim):
            node = next(n for n in graph.node if value.name in n.output)
            sizes = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            raise BadModel(
                f"{name} is broken: node {node.name!r} ({node.op_type}) would return a tensor of sizes {sizes}.\n"
                "  Its operand is smaller than its window: export the model for larger inputs."
            )


def _forget_sizes(graph: GraphProto) -> None:
    """Drop the declared sizes of the outputs, and of those of the branches within."""
    for output in graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.ClearField("shape")
    for node in graph.node:
        for branch in bodies(node) if node.op_type == "If" else ():
            _forget_sizes(branch)


def _counts_flags(graph: GraphProto) -> bool:
    """Whether something is made a boolean and then a number, which ONNX's propagation takes for the first number."""
    flags = {n.output[0] for n in graph.node if n.op_type == "Cast" and _to(n) == TensorProto.BOOL}
    return any(n.op_type == "Cast" and n.input[0] in flags and _to(n) != TensorProto.BOOL for n in graph.node)


def _to(cast: NodeProto) -> int:
    return next((attribute.i for attribute in cast.attribute if attribute.name == "to"), 0)


def _import(proto: ModelProto, version: int) -> None:
    for entry in proto.opset_import:
        if not entry.domain:
            entry.version = version


def _stand_in(proto: ModelProto) -> dict[int, NodeProto]:
    """Put an Identity where ONNX's inference fails and the output is like the first operand.

    Returns: the nodes as they were, by place.
    """
    kept = {}
    for index, node in enumerate(proto.graph.node):
        if node.op_type in LIKE_FIRST and not node.domain:
            kept[index] = NodeProto()
            kept[index].CopyFrom(node)
            node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output[:1], node.name))
    return kept


def _first_reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "no reason given"
