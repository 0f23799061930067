"""Composites: which rule applies at which node. First match wins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from onnxplain.errors import UsageError
from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Rule, Site
from onnxplain.ir.value import Value

Where = Callable[[Site], bool]

AtZero = Literal["zero", "inherits", "unknown"]
"""What a rule gives an operand that is zero: nothing ("zero"), nothing if nothing arrived at an output that is zero
("inherits"), or who knows."""


@dataclass(frozen=True)
class Entry:
    """One line of a composite.

    where:   the sites it is for.
    label:   what `plan` calls the rule.
    at_zero: what sign analysis may conclude from it.
    bounded: whether the rule asks for the input's lowest and highest value.
    """

    where: Where
    rule: Rule
    label: str
    at_zero: AtZero = "unknown"
    bounded: bool = False


@dataclass(frozen=True)
class Composite:
    """An ordered table of rules.

    floor: the rule where no entry applies; None refuses such a site, for methods that the derivative would betray.
    steps: operators without a derivative that have a rule all the same.
    wanted: places of which each must be that of some site, and what to say where it is not.
    """

    name: str
    entries: tuple[Entry, ...] = ()
    floor: Entry | None = None
    steps: frozenset[str] = frozenset()
    wanted: tuple[tuple[Where, str], ...] = ()

    def entry_for(self, site: Site) -> Entry | None:
        """The first entry whose place this is, or the floor."""
        return next((entry for entry in self.entries if entry.where(site)), self.floor)

    def refuse_unmatched(self, sites: Sequence[Site]) -> None:
        """Raises: UsageError if a place that is wanted is nowhere."""
        for where, message in self.wanted:
            if not any(where(site) for site in sites):
                raise UsageError(message)

    def covers(self, site: Site) -> bool:
        """Whether the site has a rule that works without asking for a derivative that does not exist."""
        entry = self.entry_for(site)
        return entry is not None and (entry is not DERIVATIVE.floor or site.differentiable)

    def label_for(self, site: Site) -> str:
        """What `plan` prints for the site."""
        entry = self.entry_for(site)
        return "none" if entry is None or not self.covers(site) else entry.label


def everywhere(site: Site) -> bool:
    """Any site."""
    return True


def op(*op_types: str) -> Where:
    """Nodes of these operators."""
    return lambda site: site.op in op_types


def name(pattern: str) -> Where:
    """Nodes whose name matches a pattern with * and ?."""
    return lambda site: fnmatchcase(site.name, pattern)


def _derivative(g: Builder, s: Site, dy: Value) -> tuple[Value | None, ...]:
    return s.vjp(g, dy)


FLOOR = Entry(everywhere, _derivative, "derivative")
DERIVATIVE = Composite("gradient", floor=FLOOR)
