"""The reverse walk: every method that propagates anything back goes through here."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from onnxplain.errors import UnsupportedOp, enumerated
from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.passes.explain.trace import Trace
from onnxplain.rules.composite import Composite
from onnxplain.rules.table import BROADCASTING


def walk(g: Builder, trace: Trace, composite: Composite, seed: Value) -> Value:
    """Propagate `seed` from the trace's score back to its source under the rules of `composite`.

    Shapes: seed has the score's shape; the result has the source's.
    Raises: UnsupportedOp if the source reaches an operand for which the operator has no rule: what flows there would
            silently be lost.
    """
    _refuse_blocked(trace, composite)
    arrived: dict[str, list[Value]] = defaultdict(list)
    arrived[trace.score.name].append(seed)
    for site in reversed(trace.sites):
        outputs = tuple(g.total(arrived.pop(y.name)) if y.name in arrived else None for y in site.ys)
        if all(value is None for value in outputs):
            continue
        with g.scope(site.name):
            dy = next(value for value in outputs if value is not None)
            flows = composite.rule_for(site)(g, replace(site, arrived=outputs), dy)
            for index, flow in zip(site.wrt, flows, strict=True):
                operand = site.x[index]
                if flow is None or operand is None or operand.name not in trace.varying:
                    continue
                if site.op in BROADCASTING:
                    flow = g.unbroadcast(flow, operand)
                arrived[operand.name].append(g.named(flow, operand.shape))
    with g.scope(trace.source.name):
        return g.total(arrived[trace.source.name])


def _refuse_blocked(trace: Trace, composite: Composite) -> None:
    """Name every node that the walk could not pass, before anything is emitted."""
    stuck = [s for s in trace.sites if not s.differentiable and not composite.covers(s)]
    lost = [
        (s, x.name) for s in trace.sites for i, x in enumerate(s.x) if x and x.name in trace.varying and i not in s.wrt
    ]
    if not stuck and not lost:
        return
    where = f"between {trace.source.name!r} and the score {trace.score.name!r}"
    if stuck:
        first, others = stuck[0], stuck[1:]
        also = f"\n  The same holds for {enumerated([f'{s.op} ({s.name})' for s in others])}." if others else ""
        raise UnsupportedOp(
            f"{composite.name} has no rule for {first.op!r} (node {first.name!r}).\n"
            f"  It lies {where}, so its derivative is needed.{also}\n"
            "  Run `onnxplain plan` to see every node and its rule."
        )
    site, operand = lost[0]
    raise UnsupportedOp(
        f"{composite.name} cannot pass {site.op!r} (node {site.name!r}): its operand {operand!r} depends on the input, "
        f"and the operator is not differentiated by it.\n"
        f"  It lies {where}; what flows there would be lost without a word, so the model is refused."
    )
