"""What a graph costs, measured in a process of its own.

ONNX Runtime's threads spin for a while after each run, so two sessions in one process disturb each other. Each graph
runs in a fresh process, the two take turns, and what is reported are medians over the turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx

from onnxplain.errors import OnnxplainError, UsageError
from onnxplain.ir.order import read_by
from onnxplain.ir.subgraphs import every_node
from onnxplain.ir.weights import external_tensors
from onnxplain.runtime.bound import running
from onnxplain.runtime.feeds import Array, ports, real
from onnxplain.runtime.session import open_session, reason
from onnxplain.runtime.sizes import sizes_for

_WARM_UP = 2


@dataclass(frozen=True)
class Job:
    """What one process is to measure.

    sizes: of each input.
    """

    model: str
    provider: str
    sizes: Mapping[str, Sequence[int]]
    runs: int
    threads: int | None = None
    cuda: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Cost:
    """What one process measured.

    milliseconds: of each run.
    load_seconds: to make the session.
    megabytes:    the largest resident size of the process, None on Windows; memory of a card is none of it.
    nodes:        by operator, after the runtime's own optimisation ("nchwc." marks the blocked layout).
    """

    milliseconds: list[float]
    load_seconds: float
    megabytes: float | None
    nodes: dict[str, int]

    @property
    def typical(self) -> float:
        """The median run."""
        return median(self.milliseconds)


@dataclass(frozen=True)
class Comparison:
    """A model and what was made of it, on the same inputs."""

    batch: int
    forward: list[Cost]
    explained: list[Cost]

    @property
    def ratios(self) -> list[float]:
        """The explained model's cost in forward passes, turn by turn."""
        return [e.typical / f.typical for f, e in zip(self.forward, self.explained, strict=True)]


def compare(
    model: Path, explained: Path, *, provider: str, batch: int | None, runs: int, turns: int, threads: int | None,
    cuda: Mapping[str, str] | None = None,
) -> Comparison:  # fmt: skip
    """Measure both, turn by turn. Raises: OnnxplainError if one of them cannot run; UsageError as `sizes_for`.

    batch: as for `sizes_for`.
    cuda:  options of ONNX Runtime's CUDA provider, for both; with enable_cuda_graph their runs are replayed.
    """
    sizes, forward, after = sizes_for(explained, batch), [], []
    for _ in range(turns):
        forward.append(measure(Job(str(model), provider, sizes, runs, threads, cuda)))
        after.append(measure(Job(str(explained), provider, sizes, runs, threads, cuda)))
    return Comparison(next(iter(sizes.values()))[0], forward, after)


def measure(job: Job) -> Cost:
    """Run a job in a process of its own. Raises: OnnxplainError with the whole of what that process said."""
    command = [sys.executable, "-m", "onnxplain.runtime.measure", json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip() or f"its process ended with status {done.returncode} and said nothing"
        raise OnnxplainError(f"measuring {Path(job.model).name} failed: {said}")
    return Cost(**json.loads(done.stdout.strip().splitlines()[-1]))


@contextmanager
def forward_of(explained: Path) -> Iterator[Path]:
    """The forward pass alone, cut out of an explained model: what computes the model's own outputs.

    It is a file that is there while the context is: beside the explained model where that has weights in a data file,
    since runtimes read those from the model's own folder alone.

    Raises: UsageError if nothing can be written there.
    """
    model = onnx.load(explained, load_external_data=False)
    names = json.loads(next(p.value for p in model.metadata_props if p.key == "onnxplain.outputs")).values()
    outputs = [o for o in model.graph.output if o.name not in names]
    needed, kept = {o.name for o in outputs}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed.update(read_by(node))
            kept.append(node)
    for field, values in (("node", kept[::-1]), ("output", outputs)):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(values)
    inputs = [i for i in model.graph.input if i.name in needed]
    model.graph.ClearField("input")
    model.graph.input.extend(inputs)
    beside = explained.parent if any(external_tensors(model)) else None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{explained.name}.", suffix=".forward", dir=beside)
    except OSError as error:
        raise UsageError(
            f"the forward pass of {explained.name} has its weights in a data file and must lie beside it, where "
            f"nothing can be written: {error.strerror}.\n"
            "  Give the model that it was compiled from with --against."
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(model.SerializeToString())
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def random_feeds(session: Any, sizes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, Array]:
    """Seeded numbers for every input; zeros where they are indices or flags.

    Raises: UsageError for an input that has no size.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for port in ports(session.get_inputs()).values():
        if port.name not in sizes:
            raise UsageError(
                f"{port}, which the explained model does not have: it was not compiled from this one.\n"
                "  Name the model that it was compiled from with --against."
            )
        shape = tuple(sizes[port.name])
        feeds[port.name] = (rng.standard_normal(shape) if real(port.dtype) else np.zeros(shape)).astype(port.dtype)
    return feeds


def nodes_of(
    model: str, provider: str, threads: int | None = None, cuda: Mapping[str, str] | None = None
) -> tuple[Any, dict[str, int], float]:
    """A session, the nodes of its optimised graph by operator, and the seconds that it took to make."""
    import time

    from onnxplain.runtime.session import runtime

    options = runtime().SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(path)
        began = time.perf_counter()
        session = open_session(model, provider, threads=threads, cuda=cuda, options=options)
        seconds = time.perf_counter() - began
        graph = onnx.load(path, load_external_data=False).graph
    return session, count(graph), seconds


def count(graph: onnx.GraphProto) -> dict[str, int]:
    """Nodes by operator, those of loop bodies included."""
    nodes = every_node(graph.node)
    found = Counter(("nchwc." if node.domain.endswith("nchwc") else "") + node.op_type for node in nodes)
    return dict(found.most_common())


def _work(job: Job) -> Cost:
    import time

    session, nodes, seconds = nodes_of(job.model, job.provider, job.threads, job.cuda)
    feeds = random_feeds(session, job.sizes)
    names, runs, took = [output.name for output in session.get_outputs()], running(session), []
    for _ in range(_WARM_UP + job.runs):
        began = time.perf_counter()
        runs.run(names, feeds)
        took.append((time.perf_counter() - began) * 1e3)
    return Cost(took[_WARM_UP:], seconds, _peak(), nodes)


def _peak() -> float | None:
    """The largest resident size of this process so far, in MB."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    try:
        print(json.dumps(asdict(_work(Job(**json.loads(sys.argv[1]))))))
    except OnnxplainError as error:
        sys.exit(str(error))
    except Exception as error:  # ONNX Runtime's errors have no common base but this one
        sys.exit(reason(error))
