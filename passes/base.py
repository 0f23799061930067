"""What a pass is: one rewrite, with what it needs and what it promises, and reasons where it declines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Refusal:
    """A place where a pass could have acted and did not, and why."""

    where: str
    why: str


@dataclass(frozen=True)
class Report:
    """What a pass did: how many places it changed and where it declined."""

    changed: int = 0
    refusals: tuple[Refusal, ...] = ()


class Pass(ABC, Generic[Subject]):
    """A rewrite of a Source (the proto) or of a Model (the graph), in place.

    `requires` and `ensures` raise where the state before or after is not what the pass needs or promises.
    """

    @property
    def name(self) -> str:
        return type(self).__name__

    def requires(self, subject: Subject) -> None:
        """Raise if the pass cannot run on this."""

    @abstractmethod
    def run(self, subject: Subject) -> Report:
        """Rewrite, and report."""

    def ensures(self, subject: Subject) -> None:
        """Raise if the result is not what the pass promises."""


@dataclass
class PassLog:
    """What each pass reported, in order."""

    entries: list[tuple[str, Report]] = field(default_factory=list)


def run_passes(subject: Subject, passes: Iterable[Pass[Subject]], log: PassLog | None = None) -> PassLog:
    """Run passes one after the other, checking what each needs and promises."""
    log = PassLog() if log is None else log
    for each in passes:
        each.requires(subject)
        report = each.run(subject)
        each.ensures(subject)
        log.entries.append((each.name, report))
    return log
