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

    def watching(self, composite: Composite, source: Value) -> Observer:
        """An observer for a walk under `composite` to `source`, whose first axis is the batch."""

        def note(site: Site, arrived: tuple[Value | None, ...], passed: tuple[Value | None, ...]) -> None:
            before, after = (
                [self._of_samples(v, source) for v in values if v is not None] for values in (arrived, passed)
            )
            total = self.g.total(before)
            pair = [total, self.g.total(after) if after else total * 0]
            self.rows.append((site.name, site.op, composite.label_for(site)))
            self.sums.append(self.g.concat([self.g.unsqueeze(each, [1]) for each in pair], axis=1))

        return note

    def table(self) -> Value:
        """(N, rows, 2): what arrived at each node and what it passed on."""
        return self.g.concat([self.g.unsqueeze(row, [1]) for row in self.sums], axis=1)

    def _of_samples(self, v: Value, source: Value) -> Value:
        """The sum over each sample's elements (N,).

        The samples lie along the axis that is as long as the batch; where none is known to be, as when heads lie beside
        samples, one after the other from the front.
        """
        g, batch = self.g, source.shape[0]
        if batch == 1:
            return g.reshape(g.sum(v, range(v.rank), keepdims=False), [1])
        along = [axis for axis, size in enumerate(v.shape) if size is not None and size == batch]
        if along:
            return g.sum(v, [axis for axis in range(v.rank) if axis != along[0]], keepdims=False)
        rows = g.reshape(v, g.concat([g.shape(source, 0, 1), g.ints([-1])], axis=0))
        return g.sum(rows, [1], keepdims=False)
