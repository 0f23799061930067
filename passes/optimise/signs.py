"""Sign analysis: what can be proven of signs from the graph, so that terms that are zero are not computed.

Two proofs. Forward: a tensor has no negative element (after a ReLU, sums and means of such, pictures whose range is
known). Backward: nothing arrives where a tensor is zero, and so, in front of a ReLU, nothing where it is not positive.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Facts, Site
from onnxplain.passes.explain.trace import Trace
from onnxplain.rules.composite import Composite

_READ_UP_TO = 1 << 16
"""Elements. The signs of larger constants are not looked at."""

_ALWAYS = frozenset(
    {
        "Relu", "Sigmoid", "Softmax", "Exp", "Abs", "Sqrt", "HardSigmoid", "Softplus", "ThresholdedRelu",
        "ReduceL1", "ReduceL2", "ReduceSumSquare", "LpPool", "GlobalLpPool",
    }
)  # fmt: skip
_IF_ALL_OPERANDS = frozenset({"Add", "Mul", "Sum", "Mean", "Div", "Min", "Concat", "MatMul"})
_IF_THE_FIRST = frozenset(
    {
        "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceMax",
        "ReduceMin", "ReduceProd", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout",
        "Cast", "Slice", "Split", "Gather", "GatherElements", "GatherND", "Expand", "Tile", "LRN", "DepthToSpace",
        "SpaceToDepth", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "HardSwish", "Mish", "Tanh", "Softsign", "PRelu",
        "Reciprocal", "TopK", "CumSum", "Trilu", "Erf", "Log1p",
    }
)  # fmt: skip


def facts(g: Builder, trace: Trace, composite: Composite, *, nonnegative_input: bool) -> dict[str, Facts]:
    """What holds at each site of a walk under `composite`, by the site's name."""
    signs = nonnegative(g, trace.nodes, {trace.source.name} if nonnegative_input else set())
    vanishing = _vanishing(trace, composite)
    consumers: dict[str, list[Site]] = {}
    for site in trace.sites:
        for x in site.operands:
            consumers.setdefault(x.name, []).append(site)
    found = {}
    for site in trace.sites:
        signals = [x for x, varies in zip(site.x, site.varying, strict=True) if varies and x is not None]
        behind = consumers.get(site.y.name, [])
        found[site.name] = Facts(
            nonnegative=all(x.name in signs for x in signals),
            rectified=bool(behind) and all(s.op == "Relu" and s.y.name in vanishing for s in behind),
        )
    return found


def nonnegative(g: Builder, nodes: Sequence[gs.Node], known: set[str]) -> set[str]:
    """Names of the tensors that are proven to have no negative element, given some that are known to."""
    proven = set(known)

    def is_nonnegative(tensor: gs.Tensor) -> bool:
        if not isinstance(tensor, gs.Constant):
            return tensor.name in proven
        return bool(np.prod(tensor.shape) <= _READ_UP_TO and np.all(g.model.weights.array(tensor) >= 0))

    for node in nodes:
        operands = [t for t in node.inputs if not t.is_empty()]
        holds = (
            node.op in _ALWAYS
            or (node.op in _IF_ALL_OPERANDS and all(is_nonnegative(t) for t in operands))
            or (node.op in _IF_THE_FIRST and is_nonnegative(operands[0]))
            or (node.op == "Max" and any(is_nonnegative(t) for t in operands))
            or (node.op == "Clip" and _clipped_from_zero(operands, is_nonnegative))
            or (node.op == "Pad" and is_nonnegative(operands[0]) and _pads_nonnegative(node, operands, is_nonnegative))
            or (node.op == "Resize" and node.attrs.get("mode", "nearest") != "cubic" and is_nonnegative(operands[0]))
        )
        if holds and not node.domain:
            proven.update(t.name for t in node.outputs)
    return proven


def _clipped_from_zero(operands, holds) -> bool:  # type: ignore[no-untyped-def]
    return holds(operands[0]) or (len(operands) > 1 and isinstance(operands[1], gs.Constant) and holds(operands[1]))


def _pads_nonnegative(node, operands, holds) -> bool:  # type: ignore[no-untyped-def]
    return node.attrs.get("mode", "constant") != "constant" or len(operands) < 3 or holds(operands[2])


def _vanishing(trace: Trace, composite: Composite) -> set[str]:
    """Names of the tensors at whose zeros nothing arrives, as the rules of `composite` promise."""
    holds = {trace.score.name: True}
    for site in reversed(trace.sites):
        entry = composite.entry_for(site)
        promise = entry.at_zero if entry else "unknown"
        outputs = all(holds.get(y.name, True) for y in site.ys)
        passes = promise == "zero" or (promise == "inherits" and outputs)
        for x, varies in zip(site.x, site.varying, strict=True):
            if varies and x is not None:
                holds[x.name] = holds.get(x.name, True) and passes
    return {name for name, vanishes in holds.items() if vanishes}
