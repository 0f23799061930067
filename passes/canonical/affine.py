"""The places that a spatial transformer reads, as a product of its matrices with the places of a grid."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.model import Model
from onnxplain.ir.weights import Array
from onnxplain.passes.base import Pass, Refusal, Report


class GridsByProduct(Pass[Model]):
    """AffineGrid becomes MatMul of a constant grid (P, axes + 1) with theta (N, axes, axes + 1), turned.

    ONNX's own body of it finds at run time whether there are two axes or three, and then nothing is known of its rank.

    Precondition:  sizes are known as far as they follow.
    Postcondition: what is left says why, in the log and in `model.left`.
    Exact, since the operator is defined so.
    """

    def run(self, model: Model) -> Report:
        changed, refusals = 0, []
        for node in [n for n in model.graph.nodes if n.op == "AffineGrid" and not n.domain]:
            sizes = list(node.outputs[0].shape or [None])[1:-1]
            corners = bool(node.attrs.get("align_corners", 0))
            if not sizes or not all(isinstance(d, int) for d in sizes):
                why = (
                    "the size of its grid is known only at run time.\n  Export the model for pictures of a fixed size."
                )
            elif corners and 1 in sizes:
                why = "its grid has one place along an axis, which cannot be at both corners (align_corners)."
            else:
                _multiply(model, node, _grid([int(d) for d in sizes], corners))
                changed += 1
                continue
            model.left[node.name] = why
            refusals.append(Refusal(node.name, why))
        return Report(changed, tuple(refusals))


def _grid(sizes: list[int], corners: bool) -> Array:
    """The places of a grid between -1 and 1, the last axis first, and a one behind them: (P, axes + 1).

    corners: whether the outermost places are at -1 and 1 themselves, or half a step within.
    """
    along = [np.linspace(-1, 1, n) if corners else (2 * np.arange(n) + 1) / n - 1 for n in sizes]
    axes = np.meshgrid(*along, indexing="ij")
    return np.stack([*(a.ravel() for a in reversed(axes)), np.ones(axes[0].size)], axis=1)


def _multiply(model: Model, node: gs.Node, grid: Array) -> None:
    theta, y, name = node.inputs[0], node.outputs[0], node.name
    batch, *sizes, axes = y.shape
    places = gs.Constant(model.fresh(f"{name}/places"), grid.astype(theta.dtype))
    target = gs.Constant(model.fresh(f"{name}/sizes"), np.asarray([0, *sizes, axes], np.int64))
    turned = gs.Variable(model.fresh(f"{name}/turned"), theta.dtype, [batch, axes + 1, axes])
    rows = gs.Variable(model.fresh(f"{name}/rows"), theta.dtype, [batch, len(grid), axes])
    at = model.place_of(node)
    node.inputs.clear()
    node.outputs.clear()
    model.graph.nodes[at : at + 1] = [
        gs.Node("Transpose", model.fresh(f"{name}/turn"), {"perm": [0, 2, 1]}, [theta], [turned]),
        gs.Node("MatMul", name, {}, [places, turned], [rows]),
        gs.Node("Reshape", model.fresh(f"{name}/grid"), {}, [rows, target], [y]),
    ]
