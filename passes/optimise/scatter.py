"""A scatter that adds, where it is known what goes where: lookups instead."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.passes.optimise.rewriting import NodeRewrite


class PlainScatter(NodeRewrite):
    """Rows that are added to rows of zeros are looked up from where they go: the derivative of a Gather.

    Each row of the result looks up the rows that it is the sum of, one lookup for each of them; a row of zeros stands
    behind the others for those that get fewer.
    """

    def rewrite(self, g: Builder, node: gs.Node) -> Value | str | None:
        """The sum of lookups, for a ScatterND that adds whole rows at constant places."""
        if node.op != "ScatterND" or node.attrs.get("reduction", "none") != "add":
            return None
        zeros, indices, rows = (g.wrap(t) for t in node.inputs)
        count = zeros.shape[0]
        if not indices.is_constant or indices.shape[-1] != 1 or not isinstance(count, int):
            return "what goes where is known only at run time"
        if not is_zero(g, zeros):
            return "it adds to something"
        if not g.values(indices).size:
            return zeros
        at = g.values(indices).ravel() % count
        rest = g.shape(rows, indices.rank - 1)
        flat = g.reshape(rows, g.concat([g.ints([-1]), rest], axis=0))
        ended = g.pad(flat, [0], [1], [0])
        return g.total([g.gather(ended, g.ints(table), axis=0) for table in tables(at, count)])


def tables(at: np.ndarray[tuple[int], np.dtype[np.int64]], count: int) -> list[list[int]]:
    """Which row of the source each of `count` rows is the sum of, table by table; len(at) for none.

    >>> tables(np.array([2, 0, 2]), 3)
    [[1, 3, 0], [3, 3, 2]]
    """
    sources: list[list[int]] = [[] for _ in range(count)]
    for source, target in enumerate(at):
        sources[int(target)].append(source)
    most = max(map(len, sources))
    return [[each[k] if k < len(each) else len(at) for each in sources] for k in range(most)]


def is_zero(g: Builder, x: Value) -> bool:
    """Whether a tensor is a constant or fill of zeros, whatever its order of axes and type."""
    if x.is_constant:
        return not np.any(g.values(x))
    node = x.tensor.inputs[0] if x.tensor.inputs else None
    if node is not None and node.op in ("Transpose", "Cast", "Reshape"):
        return is_zero(g, g.wrap(node.inputs[0]))
    if node is None or node.op != "ConstantOfShape":
        return False
    value = node.attrs.get("value")
    return value is None or not np.any(value.values)
