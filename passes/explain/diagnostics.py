"""Bookkeeping of a walk: how much arrives at each node and how much it passes on, so that a loss can be located."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.passes.explain.backward import Observer
from onnxplain.rules.composite import Composite


@dataclass
class Ledger:
    """Collects the sums at each site of a walk.

    rows: the nodes in the order of the walk, from the score to the input: (name, operator, rule).
    """

    g: Builder
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    sums: list[Value] = field(default_factory=list)

    def watching(self, composite: Composite) -> Observer:
        """An observer for a walk under `composite`."""

        def note(site: Site, arrived: tuple[Value | None, ...], passed: tuple[Value | None, ...]) -> None:
            pair = [self._total([v for v in values if v is not None]) for values in (arrived, passed)]
            self.rows.append((site.name, site.op, composite.label_for(site)))
            self.sums.append(self.g.concat([self.g.unsqueeze(total, [1]) for total in pair], axis=1))

        return note

    def table(self) -> Value:
        """(N, rows, 2): what arrived at each node and what it passed on."""
        return self.g.concat([self.g.unsqueeze(row, [1]) for row in self.sums], axis=1)

    def _total(self, values: list[Value]) -> Value:
        return self.g.total([self.g.sum(v, range(1, v.rank), keepdims=False) for v in values])
