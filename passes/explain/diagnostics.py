"""Bookkeeping of a walk: how much arrives at each node and how much it passes on, so that a loss can be located."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.passes.explain.backward import Observer
from onnxplain.passes.explain.samples import places, sum_of_samples
from onnxplain.passes.explain.trace import Trace
from onnxplain.rules.composite import Composite


@dataclass
class Ledger:
    """Collects the sums at each site of a walk.

    rows: the nodes in the order of the walk, from the score to the input: (name, operator, rule).
    """

    g: Builder
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    sums: list[Value] = field(default_factory=list)

    def watching(self, composite: Composite, trace: Trace) -> Observer:
        """An observer for a walk under `composite` over `trace`."""
        where, like = places(trace), self.g.wide(trace.score)

        def note(site: Site, arrived: tuple[Value | None, ...], passed: tuple[Value | None, ...]) -> None:
            outputs, operands = site.ys, [site[i] if site.optional(i) is not None else None for i in site.wrt]
            before, after = (
                [
                    self.g.cast(sum_of_samples(self.g, v, where.get(of.name), trace.source), like)
                    for v, of in zip(values, tensors, strict=False)
                    if v is not None and of is not None
                ]
                for values, tensors in ((arrived, outputs), (passed, operands))
            )
            total = self.g.total(before)
            pair = [total, self.g.total(after) if after else total * 0]
            self.rows.append((site.name, site.op, composite.label_for(site)))
            self.sums.append(self.g.concat([self.g.unsqueeze(each, [1]) for each in pair], axis=1))

        return note

    def table(self) -> Value:
        """(N, rows, 2): what arrived at each node and what it passed on."""
        return self.g.concat([self.g.unsqueeze(row, [1]) for row in self.sums], axis=1)
