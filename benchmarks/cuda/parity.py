"""CUDA against CPU: every method on every model at hand, where its nodes ran, and what a run takes.

error    ||cuda - cpu|| / ||cpu|| of the attribution, the worst sample
heatmap  the largest difference in the heatmap
off      nodes that ONNX Runtime put on the CPU, most of them arithmetic with shapes, and Memcpy nodes
ms       the median of a run, inputs and outputs staying on the card; and how often the forward pass fits in
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import onnxplain
from benchmarks.cuda.machine import RESULTS, ROOT, file_stem
from onnxplain.interface import ATTRIBUTION, HEATMAP, Metadata
from onnxplain.methods.method import Method
from onnxplain.runtime.session import open_session, runtime

Array = NDArray[Any]

BATCH = 4
"""Samples, for models that take any number."""

SETTINGS: dict[str, Any] = {"steps": 20, "samples": 20}
"""Parameters other than the defaults, for the methods that have them."""

NEEDS_A_FILE = "composite"
"""The parameter of methods that are nothing without a file of the user's."""

SUSPECT = 1e-3
"""Relative error. In a deep network rounding may flip a ReLU, which gives up to this; more is marked."""

WARM_UP, REPEATS, SECONDS = 3, 50, 1.0
"""Runs before timing; the most runs timed; the time after which no more are."""


@dataclass(frozen=True)
class Subject:
    """A model and pictures for it, (n, seed) -> float32 in the model's own layout."""

    name: str
    load: Callable[[], onnx.ModelProto]
    images: Callable[[int, int], Array]
    heavy: bool = False


@dataclass(frozen=True)
class Placement:
    """Where ONNX Runtime ran a graph: nodes in all, operators not on the wanted provider, Memcpy nodes."""

    nodes: int
    elsewhere: dict[str, int]
    memcpy: int


@dataclass(frozen=True)
class Row:
    """One method on one model. `note` says why there are no numbers."""

    method: str
    error: float | None = None
    heatmap: float | None = None
    placement: Placement | None = None
    ms: float | None = None
    times: float | None = None
    note: str = ""

    @property
    def suspect(self) -> bool:
        return self.error is not None and not self.error <= SUSPECT


@dataclass
class Report:
    """One model: its batch, its forward pass, and every method."""

    model: str
    batch: int
    forward_ms: float
    forward: Placement
    rows: list[Row] = field(default_factory=list)


def subjects() -> tuple[list[Subject], str]:
    """The models at hand, and why there are not more."""
    try:
        from tests.catalogue import SPECIMENS
    except ImportError as error:
        files = sorted(ROOT.glob("models/*/*.onnx"))
        return [_own(file) for file in files], f"only models/, since tests/catalogue.py needs {error.name}"
    missing = [f"{s.name}: {s.missing}" for s in SPECIMENS if s.missing]
    found = [Subject(s.name, s.load, s.images, s.heavy) for s in SPECIMENS if not s.missing]
    return found, "; ".join(missing)


def _own(file: Path) -> Subject:
    def images(n: int, seed: int) -> Array:
        shape = [d.dim_value for d in onnx.load(file).graph.input[0].type.tensor_type.shape.dim[1:]]
        return np.random.default_rng(seed).uniform(size=(n, *shape)).astype(np.float32)

    return Subject(file.stem, lambda: onnx.load(file), images)


def batch_of(model: onnx.ModelProto) -> int:
    """The model's own batch, BATCH where it takes any."""
    weights = {tensor.name for tensor in model.graph.initializer}
    data = next(value for value in model.graph.input if value.name not in weights)
    return int(data.type.tensor_type.shape.dim[0].dim_value) or BATCH


def settings_for(method: Method, images: Array) -> dict[str, Any]:
    """Parameters other than the defaults: fewer steps, and for box rules the range of the pictures."""
    known = {p.name for p in method.parameters}
    asked = SETTINGS | {"low": str(float(images.min())), "high": str(float(images.max()))}
    return {name: value for name, value in asked.items() if name in known}


def measured(
    model: onnx.ModelProto, method: Method, images: Array, provider: str, forward_ms: float, *, tf32: bool
) -> Row:
    """Compile, run on both providers, compare and time. What cannot be done is a note, not an error."""
    try:
        proto = onnxplain.compile_model(model, method.name, runtime="cuda", **settings_for(method, images))
    except onnxplain.OnnxplainError as error:
        return Row(method.name, note=str(error).splitlines()[0])
    cpu = open_session(proto, "cpu")
    feeds = {cpu.get_inputs()[0].name: images}
    names = [output.name for output in cpu.get_outputs()]
    expected = dict(zip(names, cpu.run(names, feeds), strict=True))
    del cpu
    try:
        session, found, placement = profiled(proto, feeds, provider)
        if tf32:
            session = open_session(proto, provider)
        ms = latency(session, feeds, provider)
    except Exception as error:  # one graph that fails must not end the run
        return Row(method.name, note=f"FAILED: {' '.join(str(error).split())[:200]}")
    attribution, heatmap = (_outputs(proto)[role] for role in (ATTRIBUTION, HEATMAP))
    return Row(
        method.name,
        relative_error(found[attribution], expected[attribution]),
        float(np.abs(found[heatmap] - expected[heatmap]).max()),
        placement,
        ms,
        ms / forward_ms,
    )


def _outputs(proto: onnx.ModelProto) -> dict[str, str]:
    """The names of a compiled graph's outputs by role."""
    metadata = Metadata.read({entry.key: entry.value for entry in proto.metadata_props})
    return metadata.outputs if metadata else {}


def profiled(proto: onnx.ModelProto, feeds: dict[str, Array], provider: str) -> tuple[Any, dict[str, Array], Placement]:
    """A session with TF32 off, the outputs of its first run, and where that run's nodes were."""
    options = runtime().SessionOptions()
    options.log_severity_level = 4
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = open_session(proto, provider, use_tf32=False, options=options)
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(names, feeds), strict=True))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return session, found, placed(events, session.get_providers()[0])


def placed(events: Iterable[dict[str, Any]], wanted: str) -> Placement:
    """From the events of a profile, each node once, however often a loop ran it."""
    nodes = {
        (event["name"], event["args"].get("node_index")): (event["args"]["op_name"], event["args"].get("provider"))
        for event in events
        if event.get("cat") == "Node" and "op_name" in event.get("args", {})
    }
    copies = [op for op, _ in nodes.values() if op.startswith("Memcpy")]
    elsewhere = Counter(op for op, where in nodes.values() if where != wanted and not op.startswith("Memcpy"))
    return Placement(len(nodes) - len(copies), dict(sorted(elsewhere.items())), len(copies))


def latency(session: Any, feeds: dict[str, Array], provider: str) -> float:
    """The median of runs in milliseconds, inputs and outputs bound to the device."""
    ort = runtime()
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, provider, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, provider)
    for _ in range(WARM_UP):
        session.run_with_iobinding(binding)
    binding.synchronize_outputs()
    taken: list[float] = []
    while len(taken) < REPEATS and (len(taken) < 3 or sum(taken) < SECONDS):
        began = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        taken.append(time.perf_counter() - began)
    return 1e3 * statistics.median(taken)


def relative_error(found: Array, expected: Array) -> float:
    """||found - expected|| / ||expected||, the worst sample; a sample that is zero in both has none."""
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(found, expected, strict=True)]
    return max(
        float(np.linalg.norm(a - b) / (np.linalg.norm(b) or 1.0)) if not np.array_equal(a, b) else 0.0 for a, b in pairs
    )


def reports(
    chosen: Sequence[Subject], methods: Sequence[Method], provider: str, until: float, *, tf32: bool
) -> Iterator[Report]:
    """Each model with every method, each as soon as it is done, printing as it goes."""
    for subject in chosen:
        if time.monotonic() > until:
            print(f"\n{subject.name} and what comes after it: left out, the time is up")
            return
        model = subject.load()
        batch = batch_of(model)
        images = subject.images(batch, 0)
        (name,) = {i.name for i in model.graph.input} - {w.name for w in model.graph.initializer}
        session, _, placement = profiled(model, {name: images}, provider)
        if tf32:
            session = open_session(model, provider)
        report = Report(subject.name, batch, latency(session, {name: images}, provider), placement)
        del session
        print("\n" + heading(report))
        for method in methods:
            if time.monotonic() > until:
                report.rows.append(Row(method.name, note="left out, the time is up"))
                continue
            report.rows.append(measured(model, method, images, provider, report.forward_ms, tf32=tf32))
            print(line(report.rows[-1]), flush=True)
        yield report


# What is shown


COLUMNS = ("method", "error", "heatmap", "nodes", "off", "Memcpy", "ms", "times")


def cells(row: Row) -> list[str]:
    """A row as text, in the order of COLUMNS."""
    if row.placement is None or row.error is None or row.ms is None:
        return [row.method, row.note]
    place = row.placement
    return [
        row.method,
        f"{row.error:.1e}{' (!)' if row.suspect else ''}",
        f"{row.heatmap:.1e}",
        str(place.nodes),
        str(sum(place.elsewhere.values())),
        str(place.memcpy),
        f"{row.ms:.2f}",
        f"{row.times:.1f}",
    ]


def line(row: Row) -> str:
    """For a terminal.

    >>> line(Row("cam", note="refused"))
    'cam                            refused'
    """
    first, *rest = cells(row)
    return f"{first:30} " + (" ".join(f"{cell:>9}" for cell in rest) if len(rest) > 1 else rest[0])


def heading(report: Report) -> str:
    """What is said of a model before its methods."""
    elsewhere = sum(report.forward.elsewhere.values())
    return (
        f"{report.model}: batch {report.batch}, forward pass {report.forward_ms:.2f} ms, "
        f"{report.forward.nodes} nodes, {elsewhere} off the device, {report.forward.memcpy} Memcpy"
    )


def document(reports_: Sequence[Report], facts: dict[str, str]) -> str:
    """The Markdown file."""
    rows = [row for report in reports_ for row in report.rows]
    done = [row for row in rows if row.placement is not None]
    elsewhere: Counter[str] = Counter()
    for row in done:
        elsewhere.update(row.placement.elsewhere if row.placement else {})
    copies = sum(row.placement.memcpy for row in done if row.placement)
    suspects = [row for row in done if row.suspect]
    lines = [
        f"# {facts['card']}",
        "",
        "Made by `benchmarks/on_cuda.py`, which says what the columns mean. "
        + ", ".join(f"{name} {value}" for name, value in facts.items() if name != "card")
        + ". Timed with TF32 "
        + ("on" if facts.get("tf32") == "on" else "off")
        + f"; {SETTINGS['steps']} steps for Integrated Gradients, {SETTINGS['samples']} samples for SmoothGrad.",
        "",
        f"{len(done)} graphs ran, {len(rows) - len(done)} did not (their rows say why). "
        f"{len(suspects)} differ from the CPU by more than {SUSPECT:g} (marked !). {copies} Memcpy nodes in all.",
        "",
        "Nodes on the CPU, by operator: "
        + (", ".join(f"{op} {n}" for op, n in elsewhere.most_common()) or "none")
        + ".",
    ]
    for report in reports_:
        lines += ["", f"## {heading(report).partition(':')[0]}", "", heading(report).partition(": ")[2] + ".", ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|---" + "|--:" * (len(COLUMNS) - 1) + "|"]
        for row in report.rows:
            filled = cells(row) + [""] * (len(COLUMNS) - len(cells(row)))
            lines.append("| " + " | ".join([f"`{filled[0]}`", *filled[1:]]).replace("\n", " ") + " |")
    return "\n".join(lines) + "\n"


def save(reports_: Sequence[Report], facts: dict[str, str]) -> None:
    """Write both files."""
    RESULTS.mkdir(exist_ok=True)
    stem = file_stem(facts)
    (RESULTS / f"{stem}.md").write_text(document(reports_, facts), encoding="utf-8")
    whole = {"machine": facts, "settings": SETTINGS, "models": [asdict(report) for report in reports_]}
    (RESULTS / f"{stem}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
