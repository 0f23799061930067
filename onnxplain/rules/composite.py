"""Composites: which rule applies at which node. First match wins, and the derivative is the floor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnxplain.ir.site import Rule, Site

Where = Callable[[Site], bool]


@dataclass(frozen=True)
class Entry:
    """One line of a composite: where it applies, the rule, and what `plan` calls it."""

    where: Where
    rule: Rule
    label: str


@dataclass(frozen=True)
class Composite:
    """An ordered table of rules.

    >>> Composite("guided", (Entry(op("Relu"), guided, "guided"),))
    """

    name: str
    entries: tuple[Entry, ...] = ()

    def rule_for(self, site: Site) -> Rule:
        """The first rule whose place this is; the derivative where none is."""
        entry = self._match(site)
        return site.derivative if entry is None else entry.rule

    def covers(self, site: Site) -> bool:
        """Whether an entry of the table applies to the site."""
        return self._match(site) is not None

    def label_for(self, site: Site) -> str:
        """What `plan` prints for the site."""
        entry = self._match(site)
        return "derivative" if entry is None else entry.label

    def _match(self, site: Site) -> Entry | None:
        return next((entry for entry in self.entries if entry.where(site)), None)


def op(*op_types: str) -> Where:
    """Nodes of these operators."""
    return lambda site: site.op in op_types


DERIVATIVE = Composite("derivative")
