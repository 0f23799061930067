"""What explanations cost on a card: milliseconds, pictures a second, and the share of the card's arithmetic reached.

The card's own rate is that of a large product of two matrices in the same precision and the same runtime; the
arithmetic of a graph is that of its convolutions and products, counted from the shapes in it. In float16 the network
is in it, and what explains it in float32 with TF32.

The aims: a gradient for one picture at least 4 times faster than Captum, for 64 at least 1.3 times; Integrated
Gradients with 50 steps on ResNet-50 for one picture in float16 under 15 ms on an H200.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

from benchmarks.cuda.graphs import FORWARD, Made, Wanted, made
from benchmarks.cuda.machine import RESULTS, file_stem
from benchmarks.cuda.parity import relative_error
from benchmarks.cuda.timing import rate, timings
from benchmarks.cuda.torch_peers import Peer, measured_peer


def _any(_: int) -> bool:
    return True


def _few(batch: int) -> bool:
    return batch in (1, 64)


def _one(batch: int) -> bool:
    return batch == 1


METHODS: Mapping[str, Callable[[int], bool]] = {
    FORWARD: _any,
    "gradient": _any,
    "guided-backprop": _few,
    "grad-cam": _few,
    "fem": _few,
    "lrp-eps": _few,
    "lrp-epsilon-plus": _few,
    "lrp-epsilon-gamma-box": _few,
    "lrp-epsilon-alpha2-beta1": _few,
    "deeplift-rescale": _few,
    "integrated-gradients": _one,
}
"""For how many pictures at a time it is worth knowing."""

PRECISIONS = ("float32", "tf32", "float16")


@dataclass(frozen=True)
class Row:
    """One measurement. `share` is of the device's rate; `note` says why there are no numbers.

    error: ||a - b|| / ||b|| of the attribution of the first picture against the same method in float32 on the CPU.
    """

    network: str
    what: str
    precision: str
    batch: int
    graph: bool = False
    ms: float | None = None
    share: float | None = None
    error: float | None = None
    note: str = ""

    @property
    def pictures(self) -> float | None:
        """Pictures a second."""
        return None if self.ms is None else 1e3 * self.batch / self.ms

    @property
    def wanted(self) -> Wanted:
        """The graph that is measured."""
        return Wanted(self.network, self.what, self.batch, half=self.precision == "float16")


def rows(
    networks: Sequence[str], batches: Sequence[int], precisions: Sequence[str], peers: Sequence[Peer],
    provider: str, until: float, among: Callable[[str], bool] = lambda _: True,
) -> Iterator[Row]:  # fmt: skip
    """Every measurement, each as soon as it is done.

    among: which, of texts such as "ResNet-50 gradient tf32 64".
    """
    asked = [
        Row(network, what, precision, batch)
        for network, batch, precision in product(networks, batches, precisions)
        for what in (
            *(method for method, measures in METHODS.items() if measures(batch)),
            *(peer.name for peer in peers if peer.measures(network, batch)),
        )
    ]
    chosen = [row for row in asked if among(f"{row.network} {row.what} {row.precision} {row.batch}")]
    by_name = {peer.name: peer for peer in peers}
    with tempfile.TemporaryDirectory() as folder:
        graphs = made((row.wanted for row in chosen if row.what in METHODS), Path(folder))
        for row in chosen:
            if time.monotonic() > until:
                yield replace(row, note="left out, the time is up")
            elif row.what in METHODS:
                yield from measured(row, graphs[row.wanted], provider)
            else:
                peer = by_name[row.what]
                ms, note = measured_peer(peer, row.network, row.batch, row.precision, provider)
                yield replace(row, ms=ms, note=note)


def measured(row: Row, graph: Made, provider: str) -> Iterator[Row]:
    """A graph without, and on a card with, a CUDA graph."""
    if graph.fault:
        yield replace(row, note=f"FAILED: {graph.fault[:200]}")
        return
    try:
        peak = rate(row.precision, provider)
        for timed in timings(graph.path, provider, row.precision):
            share = None if graph.arithmetic is None else graph.arithmetic / (timed.ms / 1e3) / peak
            error = None
            if graph.expected is not None:
                error = relative_error(timed.outputs[graph.output][:1], graph.expected)
            yield replace(row, graph=timed.graph, ms=timed.ms, share=share, error=error)
    except Exception as fault:  # one graph that fails must not end the run
        yield replace(row, note=f"FAILED: {' '.join(str(fault).split())[:200]}")


# What is shown

COLUMNS = ("network", "what", "precision", "batch", "CUDA graph", "ms", "pictures/s", "share", "error")


def cells(row: Row) -> list[str]:
    """A row as text, in the order of COLUMNS."""
    first = [row.network, row.what, row.precision, str(row.batch), "yes" if row.graph else "no"]
    if row.ms is None:
        return [*first, row.note, "", "", ""]
    share = "" if row.share is None else f"{row.share:.0%}"
    error = "" if row.error is None else f"{row.error:.1e}"
    return [*first, f"{row.ms:.2f}", f"{row.pictures:.0f}", share, error]


def line(row: Row) -> str:
    """For a terminal."""
    return " ".join(f"{cell:>{width}}" for cell, width in zip(cells(row), (12, 24, 9, 5, 4, 9, 9, 5, 8), strict=True))


def document(done: Sequence[Row], facts: Mapping[str, str]) -> str:
    """The Markdown file."""
    lines = [
        f"# {facts['card']}: speed",
        "",
        ", ".join(f"{n} {v}" for n, v in facts.items() if n != "card"),
    ]
    lines += ["", "| " + " | ".join(COLUMNS) + " |", "|---|---|---|--:|---|--:|--:|--:|--:|"]
    lines += ["| " + " | ".join(cells(row)).replace("\n", " ") + " |" for row in done]
    return "\n".join(lines) + "\n"


def save(done: Sequence[Row], facts: dict[str, str]) -> None:
    """Write both files."""
    RESULTS.mkdir(exist_ok=True)
    stem = f"{file_stem(facts)}-speed"
    (RESULTS / f"{stem}.md").write_text(document(done, facts), encoding="utf-8")
    whole = {"machine": facts, "rows": [asdict(row) | {"pictures": row.pictures} for row in done]}
    (RESULTS / f"{stem}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
