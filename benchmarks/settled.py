"""Times on a machine that others slow down for minutes: measured until it has been as fast twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxplain.runtime.measure import compare

AGREEING = 1.01
"""The two shortest of some turns have settled if they are no further apart than this."""


@dataclass(frozen=True)
class Shortest:
    """Milliseconds of the shortest run of an explanation and of its forward pass, and what the turns said.

    ratios: explanation over forward pass, the shortest of each turn.
    nodes:  of the explanation as the runtime has optimised it, by operator.
    """

    explained: float
    forward: float
    ratios: tuple[float, ...]
    nodes: Mapping[str, int]

    @property
    def passes(self) -> float:
        """Forward passes."""
        return self.explained / self.forward


def shortest(model: Path, explained: Path, *, batch: int, runs: int, turns: int) -> Shortest:
    """Run both in turns, each in a process of its own, until both have settled or there have been `turns`."""
    taken: tuple[list[float], list[float]] = [], []
    for _ in range(turns):
        found = compare(model, explained, provider="cpu", batch=batch, runs=runs, turns=1, threads=2)
        for times, costs in zip(taken, (found.explained, found.forward), strict=True):
            times.append(min(min(cost.milliseconds) for cost in costs))
        if all(map(settled, taken)):
            break
    ratios = tuple(a / b for a, b in zip(*taken, strict=True))
    return Shortest(min(taken[0]), min(taken[1]), ratios, found.explained[0].nodes)


def least(run: Callable[[], float], turns: int) -> float:
    """The shortest of some runs, each of which says how long it took, until two have settled."""
    times: list[float] = []
    while len(times) < turns and not settled(times):
        times.append(run())
    return min(times)


def settled(times: list[float]) -> bool:
    """Whether the two least agree: a slow phase is hardly as slow twice."""
    one, other = sorted(times)[:2] if len(times) > 1 else (0.0, 1.0)
    return other <= one * AGREEING
