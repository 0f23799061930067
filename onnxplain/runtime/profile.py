"""Time by node, from ONNX Runtime's own profiler."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxplain.errors import OnnxplainError, UsageError
from onnxplain.ir.emitter import PREFIX
from onnxplain.runtime.bound import records, running
from onnxplain.runtime.measure import random_feeds
from onnxplain.runtime.session import open_session, reason, runtime
from onnxplain.runtime.sizes import sizes_for

_SUFFIX = "_kernel_time"
_INSERTED = f"{PREFIX}/"
_NO_LAYER = "what serves no layer"
_REORDERED = "changes of layout"
"""Nodes of the runtime's own, which do not say whom they serve: they count as forward."""


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
    layers = _layers(onnx.load(model, load_external_data=False).graph.node)
    return Spent(tuple(_node(name, op, took, runs, layers) for (name, op), took in times.items()))


def _layers(nodes: Iterable[onnx.NodeProto]) -> dict[str, str]:
    """The forward pass's nodes by their names and by those of their outputs, which the runtime calls what it fuses."""
    forward = [node for node in nodes if not node.name.startswith(_INSERTED)]
    by_output = {output: node.name for node in forward for output in node.output if output}
    return by_output | {node.name: node.name for node in forward}


def _node(name: str, op: str, took: list[float], runs: int, layers: Mapping[str, str]) -> Node:
    """A node in a loop's body runs several times in each run; all its times count."""
    each = len(took) // (runs + 1)
    milliseconds = sum(took[each:]) / runs
    layer = _REORDERED if op in ("ReorderInput", "ReorderOutput") else _served(_plain(name), layers)
    return Node(layer, op, name.startswith(_INSERTED), milliseconds)


def _plain(name: str) -> str:
    """Without what the runtime adds to a node in its blocked layout, and to a batch norm that became a convolution."""
    blocked = name.removesuffix("_nchwc")
    return name if blocked == name else blocked.removesuffix("_bn")


def _served(name: str, layers: Mapping[str, str]) -> str:
    """The layer that a node is or was inserted for: the longest part of its name, from the left, that names one.

    The layers of a baseline or of a path have in front what they belong to.
    """
    if not name.startswith(_INSERTED):
        return layers.get(name, name)
    inner = name.removeprefix(_INSERTED)
    for start in (0, *(i + 1 for i, c in enumerate(inner) if c == "/")):
        parts = inner[start:].split("/")
        for count in range(len(parts), 0, -1):
            if (layer := layers.get("/".join(parts[:count]))) is not None:
                return layer
    return _NO_LAYER
