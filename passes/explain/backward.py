"""The reverse walk: every method that propagates anything back goes through here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

from onnxplain.errors import UnsupportedOp, enumerated
from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Bounds, Facts, Site
from onnxplain.ir.value import Value
from onnxplain.passes.explain.jumps import refuse_jumps
from onnxplain.passes.explain.samples import places, root_mean_square
from onnxplain.passes.explain.trace import Trace
from onnxplain.passes.explain.twin import Twin
from onnxplain.passes.explain.widen import narrow, widened
from onnxplain.rules.composite import Composite, Entry
from onnxplain.rules.table import BROADCASTING, fixed_axes

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
    bounds: Bounds | None = None,
    observe: Observer | None = None,
) -> Value:
    """Propagate `seed` from the trace's score back to its source under the rules of `composite`.

    reference: the forward pass on the baseline, which rules of differences find as `site.ref`.
    facts:     what was proven of each site's tensors, by the site's name.
    bounds:    gives a tensor's value at the lowest and at the highest input.
    observe:   is called after each site.
    Shapes:    seed has the score's shape; the result has the source's.
    Raises:    UnsupportedOp if the source reaches an operand for which the operator has no rule: what flows there would
               silently be lost. With a reference, also where something jumps.
    """
    if reference is not None:
        refuse_jumps(trace, composite.name)
    where = cache(lambda: places(trace))
    arrived: dict[str, list[Value]] = defaultdict(list)
    arrived[trace.score.name].append(g.wide(seed))
    for site in reversed(trace.sites):
        outputs = tuple(g.total(arrived.pop(y.name)) if y.name in arrived else None for y in site.ys)
        if all(value is None for value in outputs):
            continue
        entry = _entry(trace, composite, site)
        with g.scope(site.name):
            seen = replace(
                site,
                arrived=outputs,
                rms=lambda v: root_mean_square(g, v, where().get(narrow(v, trace.varying).name), trace.source),
                ref=None if reference is None else _reference(site, reference),
                facts=(facts or {}).get(site.name, Facts()),
                bounds=bounds,
                aside=lambda to, flow: arrived[narrow(to, trace.varying).name].append(flow),
            )
            seen = widened(g, seen)
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
        fixed = fixed_axes(site.op, index)
        flow = g.unbroadcast(_sized(g, site, flow, fixed), operand, fixed=fixed)
    return g.named(flow, operand.shape)


def _sized(g: Builder, site: Site, flow: Value, fixed: int) -> Value:
    """What flows to an operand before it is summed over the axes along which it was stretched, all axes but the last
    `fixed`: where inference lost a size it is the output's.

    It is lost where sizes of two names meet, that of the input's batch and that of a baseline's, which is it or 1.
    """
    if site.op == "Einsum" or flow.rank != site.y.rank:  # the axes of an Einsum's operand are not those of its output
        return flow
    ahead = flow.rank - fixed
    sizes = [want if have is None else have for have, want in zip(flow.shape, site.y.shape[:ahead], strict=False)]
    return g.named(flow, [*sizes, *flow.shape[ahead:]])


def _reference(site: Site, reference: Twin) -> Site:
    """The site on the baseline, and with it the layer that it belongs to."""
    return replace(
        site,
        role=replace(site.role, layer=tuple(_reference(each, reference) for each in site.role.layer)),
        x=tuple(None if x is None else reference.of(x) for x in site.x),
        ys=tuple(reference.of(y) for y in site.ys),
    )


def _entry(trace: Trace, composite: Composite, site: Site) -> Entry:
    """The rule of a site at which something has arrived; every node that lacks one is named."""
    where = f"between {trace.source.name!r} and the score {trace.score.name!r}"
    entry = composite.entry_for(site)
    if entry is None or not composite.covers(site):
        others = [f"{s.op} ({s.name})" for s in trace.sites if s.name != site.name and not composite.covers(s)]
        also = f"\n  The same holds for {enumerated(others)}." if others else ""
        why = f": {left}" if (left := site.y.g.model.left.get(site.name)) else "."
        raise UnsupportedOp(
            f"{composite.name} has no rule for {site.op!r} (node {site.name!r}){why}\n"
            f"  It lies {where}, so a rule is needed.{also}\n"
            "  Run `onnxplain plan` to see every node and its rule."
        )
    for index, x in enumerate(site.x):
        if x is not None and x.name in trace.varying and index not in site.wrt:
            raise UnsupportedOp(
                f"{composite.name} cannot pass {site.op!r} (node {site.name!r}): its operand {x.name!r} depends on the "
                "input, and the operator is not differentiated by it.\n"
                f"  It lies {where}; what flows there would be lost without a word, so the model is refused."
            )
    return entry
