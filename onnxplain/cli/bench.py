"""`onnxplain bench`: what an explanation costs, in forward passes of the same model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from onnxplain.cli import options as o
from onnxplain.cli import report

if TYPE_CHECKING:
    from onnxplain.runtime.measure import Comparison, Cost


def bench_command(
    explained: Annotated[Path, typer.Argument(help="What `onnxplain compile` wrote.", show_default=False)],
    against: Annotated[
        Path | None,
        typer.Option("--against", help="The model; by default the forward pass is cut out of the explained one."),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option("--batch", min=1, help="Samples at a time, by default the model's own or 1; may be repeated."),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs in each turn.")] = 10,
    turns: Annotated[int, typer.Option(min=1, help="Turns, each in a fresh process.")] = 3,
    provider: o.Provider = "cpu",
    cuda: o.Cuda = None,
    threads: o.Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Measure an explained model against its forward pass, side by side.

    Each runs in a process of its own, in turns. The cost in forward passes is the median over the turns. What is timed
    begins and ends with arrays of the CPU; memory is the process's, not the card's. With --cuda enable_cuda_graph=1
    runs are replayed as CUDA graphs.
    """
    from onnxplain.runtime.explainer import Explainer
    from onnxplain.runtime.measure import compare, forward_of

    options = o.cuda(cuda, provider)
    got = Explainer(explained, provider, cuda=options).provider  # and what is wrong with the file is said at once
    o.refuse_unused(options, got)
    counts: Sequence[int | None] = batch or [None]
    with forward_of(explained) if against is None else nullcontext(against) as model:
        found = [
            compare(model, explained, provider=provider, batch=n, runs=runs, turns=turns, threads=threads, cuda=options)
            for n in counts
        ]
    if as_json:
        typer.echo(json.dumps([{**asdict(each), "ratios": each.ratios} for each in found], indent=2))
        return
    table = report.table("batch", "forward ms", "explained ms", "in forward passes", "peak MB", "load s")
    for each in found:
        table.add_row(*_row(each))
    table.title = f"on {got}"
    report.console().print(table)
    nodes = report.table("operator", "forward", "explained")
    before, after = found[0].forward[0].nodes, found[0].explained[0].nodes
    for name in sorted(after, key=lambda k: -after[k]):
        nodes.add_row(name, str(before.get(name, 0)), str(after[name]))
    nodes.title = "nodes after the runtime's own optimisation"
    report.console().print(nodes)


def _row(each: Comparison) -> tuple[str, ...]:
    forward, explained = ([cost.typical for cost in costs] for costs in (each.forward, each.explained))
    return (
        str(each.batch),
        _spread(forward),
        _spread(explained),
        f"{median(each.ratios):.2f} ({min(each.ratios):.2f} to {max(each.ratios):.2f})",
        ", ".join(_peak(costs) for costs in (each.forward, each.explained)),
        f"{median(c.load_seconds for c in each.explained):.2f}",
    )


def _peak(costs: Sequence[Cost]) -> str:
    known = [cost.megabytes for cost in costs if cost.megabytes is not None]
    return f"{max(known):.0f}" if known else "unknown"


def _spread(values: list[float]) -> str:
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
