"""The reverse walk: every method that propagates anything back goes through here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace

from onnxplain.errors import UnsupportedOp, enumerated
from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Facts, Site
from onnxplain.ir.value import Value
from onnxplain.passes.explain.trace import Trace
from onnxplain.passes.explain.twin import Twin
from onnxplain.rules.composite import Composite
from onnxplain.rules.table import BROADCASTING

Observer = Callable[[Site, "tuple[Value | None, ...]", "tuple[Value | None, ...]"], None]
"""Called after each site with what arrived at its outputs and what was passed to its operands."""


def walk(
    g: Builder,
    trace: Trace,
    composite: Composite,
    seed: Value,
    *,
    reference: Twin | None = None,
    facts: Mapping[str, Facts] | None = None,
    observe: Observer | None = None,
) -> Value:
    """Propagate `seed` from the trace's score back to its source under the rules of `composite`.

    reference: the forward pass on the baseline, which rules of differences find as `site.ref`.
    facts:     what was proven of each site's tensors, by the site's name.
    Shapes:    seed has the score's shape; the result has the source's.
    Raises:    UnsupportedOp if the source reaches an operand for which the operator has no rule: what flows there would
               silently be lost.
    """
    _refuse_blocked(trace, composite)
    arrived: dict[str, list[Value]] = defaultdict(list)
    arrived[trace.score.name].append(seed)
    for site in reversed(trace.sites):
        outputs = tuple(g.total(arrived.pop(y.name)) if y.name in arrived else None for y in site.ys)
        entry = composite.entry_for(site)
        if entry is None or all(value is None for value in outputs):
            continue
        with g.scope(site.name):
            seen = replace(
                site,
                arrived=outputs,
                ref=None if reference is None else _reference(site, reference),
                facts=(facts or {}).get(site.name, Facts()),
                varying=tuple(x is not None and x.name in trace.varying for x in site.x),
            )
            flows = entry.rule(g, seen, next(value for value in outputs if value is not None))
            kept = tuple(_shaped(g, site, i, flow, trace) for i, flow in zip(site.wrt, flows, strict=True))
            for index, flow in zip(site.wrt, kept, strict=True):
                if flow is not None:
                    arrived[site[index].name].append(flow)
            if observe is not None:
                observe(site, outputs, kept)
    with g.scope(trace.source.name):
        return g.total(arrived[trace.source.name])


def _shaped(g: Builder, site: Site, index: int, flow: Value | None, trace: Trace) -> Value | None:
    """What flows to one operand, in the operand's shape; None where it does not depend on the source."""
    operand = site.optional(index)
    if flow is None or operand is None or operand.name not in trace.varying:
        return None
    if site.op in BROADCASTING:
        flow = g.unbroadcast(flow, operand)
    return g.named(flow, operand.shape)


def _reference(site: Site, reference: Twin) -> Site:
    return replace(
        site,
        x=tuple(None if x is None else reference.of(x) for x in site.x),
        ys=tuple(reference.of(y) for y in site.ys),
    )


def _refuse_blocked(trace: Trace, composite: Composite) -> None:
    """Name every node that the walk could not pass, before anything is emitted."""
    stuck = [site for site in trace.sites if not composite.covers(site)]
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
            f"  It lies {where}, so a rule is needed.{also}\n"
            "  Run `onnxplain plan` to see every node and its rule."
        )
    site, operand = lost[0]
    raise UnsupportedOp(
        f"{composite.name} cannot pass {site.op!r} (node {site.name!r}): its operand {operand!r} depends on the input, "
        f"and the operator is not differentiated by it.\n"
        f"  It lies {where}; what flows there would be lost without a word, so the model is refused."
    )
