"""Sign analysis: what can be proven of signs from the graph, so that terms that are zero are not computed.

Two proofs. Forward: a tensor has no negative element (after a ReLU, sums and means of such, pictures whose range is
known). Backward: nothing arrives where a tensor is zero, and so, in front of a ReLU, nothing where it is not positive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
        "Relu", "Sigmoid", "Softmax", "Exp", "Abs", "Sqrt", "HardSigmoid", "Softplus", "ReduceL1",
        "ReduceL2", "ReduceSumSquare", "LpPool", "GlobalLpPool",
    }
)  # fmt: skip
_IF_ALL_OPERANDS = frozenset({"Add", "Mul", "Sum", "Mean", "Div", "Min", "Concat", "MatMul"})
_IF_THE_FIRST = frozenset(
    {
        "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceMax",
        "ReduceMin", "ReduceProd", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout",
        "Cast", "Slice", "Split", "Gather", "GatherElements", "GatherND", "Expand", "Tile", "LRN", "DepthToSpace",
        "SpaceToDepth", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "HardSwish", "Mish", "Tanh", "Softsign", "PRelu",
        "Reciprocal", "TopK", "CumSum", "Trilu", "Erf",
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
        behind = consumers.get((site.role.bias or site).y.name, [])
        found[site.name] = Facts(
            nonnegative=all(x.name in signs for x in signals),
            rectified=bool(behind) and all(_rectifies(g, s) and s.y.name in vanishing for s in behind),
            analysed=True,
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
        if not node.domain and _holds(node, is_nonnegative):
            proven.update(t.name for t in node.outputs)
    return proven


def _holds(node: gs.Node, known: Callable[[gs.Tensor], bool]) -> bool:
    """Whether a node's output has no negative element, when it is known which of its operands have none."""
    if node.op in _ALWAYS:
        return True
    if node.op in _IF_ALL_OPERANDS:
        return all(known(t) for t in node.inputs)
    if node.op == "Max":
        return any(known(t) for t in node.inputs)
    given = [None if t.is_empty() else t for t in node.inputs]
    x, second, third = (*given, None, None)[:3]
    if node.op == "Clip":  # min(max(x, low), high)
        return (known(x) or (second is not None and known(second))) and (third is None or known(third))
    if node.op == "ThresholdedRelu":
        return known(x) or node.attrs.get("alpha", 1.0) >= 0
    if node.op == "Pad":
        return known(x) and (node.attrs.get("mode", "constant") != "constant" or third is None or known(third))
    if node.op == "Resize":
        inside = node.attrs.get("extrapolation_value", 0.0) >= 0
        return known(x) and inside and node.attrs.get("mode", "nearest") != "cubic"
    return node.op in _IF_THE_FIRST and known(x)


def _rectifies(g: Builder, site: Site) -> bool:
    """Whether a site's output is zero exactly where its operand is not positive."""
    if site.op != "Clip":
        return site.op == "Relu"
    low, high = site.optional(1), site.optional(2)
    return (
        low is not None
        and low.is_constant
        and bool(np.all(g.values(low) == 0))
        and (high is None or (high.is_constant and bool(np.all(g.values(high) > 0))))
    )


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
