"""A batch size baked into a Reshape, freed: the model then also takes several inputs at once."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.model import Model
from onnxplain.passes.base import Pass, Refusal, Report


class FreeBatch(Pass[Model]):
    """A Reshape to [N, ...] that keeps the first axis says so with a 0, and not with the number.

    Nothing changes for the batch that the model declares. Paths of inputs (Integrated Gradients, SmoothGrad) are
    stacked along the batch where all else follows.
    """

    def run(self, model: Model) -> Report:
        changed, refusals = 0, []
        batches = {t.shape[0] for t in model.graph.inputs if t.shape and isinstance(t.shape[0], int)}
        for node in model.graph.nodes:
            if node.op != "Reshape" or node.domain or not isinstance(node.inputs[1], gs.Constant):
                continue
            target, shape = model.weights.array(node.inputs[1]).astype(np.int64), node.inputs[0].shape
            if not shape or not target.size or target[0] not in batches:
                continue
            if shape[0] != target[0] or (node.attrs.get("allowzero", 0) and 0 in target):
                refusals.append(Refusal(node.name, f"its first axis goes from {shape[0]} to {target[0]}"))
                continue
            # With allowzero a 0 would mean that there is nothing.
            node.attrs.pop("allowzero", None)
            kept = np.concatenate([[0], target[1:]]).astype(np.int64)
            node.inputs[1] = gs.Constant(model.fresh(f"{node.name}/kept"), kept)
            changed += 1
        return Report(changed, tuple(refusals))
