"""What explanations cost on a card: milliseconds, pictures a second, and the share of the card's arithmetic reached.

The card's own rate is that of a large product of two matrices in the same precision and the same runtime; the
arithmetic of a graph is that of its convolutions and products, counted from the shapes in it. In float16 the network
is in it, and what explains it in float32 with TF32.

The aims: a gradient for one picture at least 4 times faster than Captum, for 64 at least 1.3 times; Integrated
Gradients with 50 steps on ResNet-50 for one picture in float16 under 15 ms on an H200.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product

from benchmarks.cuda.graphs import FORWARD, Made, Wanted
from benchmarks.cuda.machine import RESULTS, file_stem
from benchmarks.cuda.timing import rate, timings
from benchmarks.cuda.torch_peers import PEERS, Peer, measured_peer
from onnxplain.runtime.agreement import relative_error


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
    channels_last: bool = False
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

    @property
    def label(self) -> str:
        """What it is found by, such as "ResNet-50 gradient tf32 64", with a fifth word where channels come last."""
        words = [self.network, self.what, self.precision, str(self.batch)]
        return " ".join([*words, "nhwc"] if self.channels_last else words)


def asked(
    networks: Sequence[str], batches: Sequence[int], precisions: Sequence[str], peers: Sequence[Peer], provider: str
) -> Iterator[Row]:
    """Everything that is worth measuring."""
    layouts = (False, True) if provider == "cuda" else (False,)
    for network, batch, precision in product(networks, batches, precisions):
        for method, measures in METHODS.items():
            if measures(batch):
                yield from (Row(network, method, precision, batch, layout) for layout in layouts)
        yield from (Row(network, p.name, precision, batch) for p in peers if p.measures(network, batch))


def graphs_of(chosen: Iterable[Row]) -> list[Wanted]:
    """The graphs that are timed."""
    return [row.wanted for row in chosen if row.what in METHODS]


def rows(chosen: Iterable[Row], graphs: Mapping[Wanted, Made], provider: str, until: float) -> Iterator[Row]:
    """The measurements, each as soon as it is done."""
    peers = {peer.name: peer for peer in PEERS}
    for row in chosen:
        if time.monotonic() > until:
            yield replace(row, note="left out, the time is up")
        elif row.what in METHODS:
            yield from measured(row, graphs[row.wanted], provider)
        else:
            ms, note = measured_peer(peers[row.what], row.network, row.batch, row.precision, provider)
            yield replace(row, ms=ms, note=note)


def measured(row: Row, graph: Made, provider: str) -> Iterator[Row]:
    """A graph without, and on a card with, a CUDA graph."""
    if graph.fault:
        yield replace(row, note=f"FAILED: {graph.fault[:200]}")
        return
    try:
        peak = rate(row.precision, provider)
        options = {"prefer_nhwc": True} if row.channels_last else {}
        for timed in timings(graph.path, provider, row.precision, options):
            share = None if graph.arithmetic is None else graph.arithmetic / (timed.ms / 1e3) / peak
            error = None
            if graph.expected is not None:
                error = relative_error(timed.outputs[graph.output][:1], graph.expected)
            yield replace(row, graph=timed.graph, ms=timed.ms, share=share, error=error)
    except Exception as fault:  # one graph that fails must not end the run
        yield replace(row, note=f"FAILED: {' '.join(str(fault).split())[:200]}")


# What is shown

COLUMNS = ("network", "what", "precision", "batch", "layout", "CUDA graph", "ms", "pictures/s", "share", "error")


def cells(row: Row) -> list[str]:
    """A row as text, in the order of COLUMNS."""
    layout, graph = "NHWC" if row.channels_last else "", "yes" if row.graph else "no"
    first = [row.network, row.what, row.precision, str(row.batch), layout, graph]
    if row.ms is None:
        return [*first, row.note, "", "", ""]
    share = "" if row.share is None else f"{row.share:.0%}"
    error = "" if row.error is None else f"{row.error:.1e}"
    return [*first, f"{row.ms:.2f}", f"{row.pictures:.0f}", share, error]


def line(row: Row) -> str:
    """For a terminal."""
    return " ".join(
        f"{cell:>{width}}" for cell, width in zip(cells(row), (12, 24, 9, 5, 4, 4, 9, 9, 5, 8), strict=True)
    )


def document(done: Sequence[Row], facts: Mapping[str, str]) -> str:
    """The Markdown file."""
    lines = [
        f"# {facts['card']}: speed",
        "",
        ", ".join(f"{n} {v}" for n, v in facts.items() if n != "card"),
    ]
    lines += ["", "| " + " | ".join(COLUMNS) + " |", "|---|---|---|--:|---|---|--:|--:|--:|--:|"]
    lines += ["| " + " | ".join(cells(row)).replace("\n", " ") + " |" for row in done]
    return "\n".join(lines) + "\n"


def save(done: Sequence[Row], facts: Mapping[str, str]) -> None:
    """Write both files."""
    RESULTS.mkdir(exist_ok=True)
    stem = f"{file_stem(facts)}-speed"
    (RESULTS / f"{stem}.md").write_text(document(done, facts), encoding="utf-8")
    whole = {"machine": facts, "rows": [asdict(row) | {"pictures": row.pictures} for row in done]}
    (RESULTS / f"{stem}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
