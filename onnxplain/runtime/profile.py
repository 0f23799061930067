"""Time by node, from ONNX Runtime's own profiler."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxplain.errors import OnnxplainError, UsageError
from onnxplain.ir.emitter import PREFIX
from onnxplain.runtime.bound import records, running
from onnxplain.runtime.measure import random_feeds
from onnxplain.runtime.session import open_session, reason, runtime
from onnxplain.runtime.sizes import sizes_for

_SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class Node:
    """One node: the layer of the model that it serves, on which way, and the milliseconds of one run."""

    layer: str
    operator: str
    back: bool
    milliseconds: float


@dataclass(frozen=True)
class Spent:
    """Where the time of a run went."""

    nodes: tuple[Node, ...]

    def operators(self) -> list[tuple[str, tuple[float, float, int]]]:
        """Milliseconds forward and back, and how many nodes, by operator, the costliest first."""
        found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
        for node in self.nodes:
            found[node.operator][node.back] += node.milliseconds
            found[node.operator][2] += 1
        ordered = sorted(found.items(), key=lambda item: -sum(item[1][:2]))
        return [(name, (forward, back, int(count))) for name, (forward, back, count) in ordered]

    def layers(self) -> list[tuple[str, tuple[float, float]]]:
        """Milliseconds forward and back by layer, the costliest first."""
        found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for node in self.nodes:
            found[node.layer][node.back] += node.milliseconds
        return [(name, (t[0], t[1])) for name, t in sorted(found.items(), key=lambda item: -sum(item[1]))]

    def total(self) -> tuple[float, float]:
        """Milliseconds forward and back."""
        back = sum(node.milliseconds for node in self.nodes if node.back)
        return sum(node.milliseconds for node in self.nodes) - back, back


def profile(
    model: Path, provider: str, *, batch: int | None, runs: int, threads: int | None = None,
    cuda: Mapping[str, str] | None = None,
) -> Spent:  # fmt: skip
    """Run a model under the profiler on random numbers. Times are means over the runs after the first.

    On CUDA they are of launches alone, unless CUDA_LAUNCH_BLOCKING was set before the process used the card.
    batch:  as for `sizes_for`.
    Raises: UsageError for a session that records CUDA graphs, which have no nodes, and as `sizes_for`; OnnxplainError
            if the model cannot be run.
    """
    options = runtime().SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = open_session(model, provider, threads=threads, cuda=cuda, options=options)
        if records(session):
            raise UsageError("a CUDA graph is one launch, without nodes to time.\n  Leave enable_cuda_graph out.")
        feeds = random_feeds(session, sizes_for(model, batch))
        try:
            for _ in range(runs + 1):
                running(session).run(None, feeds)
        except OnnxplainError:
            raise
        except Exception as error:  # ONNX Runtime's errors have no common base but this one
            raise OnnxplainError(f"{model.name} cannot be run on random numbers: {reason(error)}") from None
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            times[event["name"].removesuffix(_SUFFIX), event["args"]["op_name"]].append(event["dur"] / 1e3)
    return Spent(tuple(_node(name, op, took, runs) for (name, op), took in times.items()))


def _node(name: str, op: str, took: list[float], runs: int) -> Node:
    """A node in a loop's body runs several times in each run; all its times count."""
    each = len(took) // (runs + 1)
    milliseconds = sum(took[each:]) / runs
    name = name.removesuffix("_nchwc")
    if not name.startswith(f"{PREFIX}/"):
        return Node(name, op, False, milliseconds)
    inner = name.removeprefix(f"{PREFIX}/")
    return Node(inner.rpartition("/")[0] or inner, op, True, milliseconds)
