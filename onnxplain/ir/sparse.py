"""Sparse weights, made dense: few models have them, and no pass then needs to know of them."""

from __future__ import annotations

from itertools import chain

import numpy as np
from onnx import AttributeProto, ModelProto, SparseTensorProto, TensorProto, numpy_helper

from onnxplain.errors import BadModel
from onnxplain.ir.subgraphs import bodies, every_node


def without_sparse(model: ModelProto, name: str) -> None:
    """Sparse initialisers and Constants, those of functions and branches too, as dense ones. Raises: BadModel."""
    nodes = list(every_node(chain(model.graph.node, *(function.node for function in model.functions))))
    for graph in (model.graph, *(body for node in nodes for body in bodies(node))):
        graph.initializer.extend(_dense(each, name) for each in graph.sparse_initializer)
        graph.ClearField("sparse_initializer")
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.SPARSE_TENSOR and node.op_type == "Constant":
                dense = _dense(attribute.sparse_tensor, name)
                attribute.Clear()
                attribute.name, attribute.type = "value", AttributeProto.TENSOR
                attribute.t.CopyFrom(dense)


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
