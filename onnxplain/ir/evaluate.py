"""Computing one node here and now, with ONNX's reference implementation: no runtime is needed to compile."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto, helper
from onnx.reference import ReferenceEvaluator

from onnxplain.ir.weights import Array

FOLD_UP_TO = 1 << 16
"""Elements of an operand. Larger ones are left for the runtime."""

_GROW_UP_TO = 1 << 12
"""Elements. A result larger than this and than its operands together is left too, so that the file does not grow."""

NOT_FOLDED = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)


_MISTAKEN = frozenset(
    {"MaxPool", "AveragePool", "GlobalMaxPool", "LpPool", "LRN", "LpNormalization", "GridSample", "Resize"}
)
"""Operators that the reference implementation of onnx 1.23 gets wrong in some forms: values, or with ceil_mode and in
one or three dimensions the shape."""


def evaluate(
    node: NodeProto, inputs: Mapping[str, Array], opset: int, *, whole: bool = False, sure: bool = False
) -> list[Array] | None:
    """The node's outputs, or None where they are left for run time: random, from another domain, or large.

    What the reference implementation fails at is left too: the runtime is the judge of it.

    whole: large ones too.
    sure:  it is known to get this form of the operator right.
    """
    if node.op_type in NOT_FOLDED or (node.op_type in _MISTAKEN and not sure):
        return None
    if node.domain or _is_shaped_transpose(node):
        return None
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for k, a in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in node.output],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            results = [np.asarray(r) for r in ReferenceEvaluator(model).run(None, dict(inputs))]
    except Exception:  # of any kind: it checks little itself
        return None
    allowed = max(_GROW_UP_TO, sum(a.size for a in inputs.values()))
    return results if whole or sum(r.size for r in results) <= allowed else None


def _is_shaped_transpose(node: NodeProto) -> bool:
    """ConvTranspose in groups, or told its output's shape, at which the reference implementation fails."""
    return node.op_type == "ConvTranspose" and any(
        (a.name == "group" and a.i > 1) or a.name == "output_shape" for a in node.attribute
    )
