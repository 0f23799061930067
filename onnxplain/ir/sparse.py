"""Sparse weights, made dense: few models have them, and no pass then needs to know of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, numpy_helper

from onnxplain.errors import BadModel


def without_sparse(model: ModelProto, name: str) -> None:
    """Sparse initialisers and Constants, those of functions and branches too, as dense ones. Raises: BadModel."""
    _graph(model.graph, name)
    for function in model.functions:
        _nodes(function.node, name)


def _graph(graph: GraphProto, name: str) -> None:
    graph.initializer.extend(_dense(each, name) for each in graph.sparse_initializer)
    graph.ClearField("sparse_initializer")
    _nodes(graph.node, name)


def _nodes(nodes: Iterable[NodeProto], name: str) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.SPARSE_TENSOR and node.op_type == "Constant":
                dense = _dense(attribute.sparse_tensor, name)
                attribute.Clear()
                attribute.name, attribute.type = "value", AttributeProto.TENSOR
                attribute.t.CopyFrom(dense)
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _graph(graph, name)


def _dense(sparse: SparseTensorProto, name: str) -> TensorProto:
    """Zeros but for the values, whose places are counted through the tensor, or given axis by axis."""
    called = sparse.values.name
    try:
        values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        whole = np.zeros(tuple(sparse.dims), values.dtype)
        flat = places if places.ndim == 1 else np.ravel_multi_index(tuple(places.T), whole.shape)
        whole.ravel()[flat] = values
    except (IndexError, TypeError, ValueError) as error:
        raise BadModel(
            f"{name} is broken: sparse weight {called!r} of sizes {list(sparse.dims)} cannot be read: {error}.\n"
            "  Check that the download is complete, or export it again with dense weights."
        ) from None
    return numpy_helper.from_array(whole, called)
