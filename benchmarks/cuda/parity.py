"""CUDA against CPU: every method on every model at hand, and where its nodes ran.

error    ||cuda - cpu|| / ||cpu|| of the attribution, the worst sample
moves    how far the CPU's own attribution goes, measured likewise, when the pictures change in their last bits; only
         where error is above 0.001 (onnxplain/runtime/agreement.py, as `onnxplain verify --provider cuda` does)
heatmap  the largest difference in the heatmap
off      nodes that ONNX Runtime put on the CPU, most of them arithmetic with shapes, and Memcpy nodes

An error is marked where it is more than a few times what the attribution moves anyway.

Nothing is timed, so that several processes can share the card (benchmarks/cuda/speed.py times).
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache, partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import onnxplain
from benchmarks.cuda.machine import RESULTS, ROOT, file_stem
from onnxplain.interface import ATTRIBUTION, HEATMAP, Metadata
from onnxplain.methods import named
from onnxplain.methods.method import Method
from onnxplain.runtime.agreement import ALIKE, LEEWAY, Distance, distance
from onnxplain.runtime.session import open_session, runtime

Array = NDArray[Any]

BATCH = 4
"""Samples, for models that take any number."""

SETTINGS: dict[str, Any] = {"steps": 20, "samples": 20}
"""Parameters other than the defaults, for the methods that have them."""

NEEDS_A_FILE = "composite"
"""The parameter of methods that are nothing without a file of the user's."""

JOBS_AT_A_TIME = 7
"""Methods that a process takes at once, of one model for the most part, which it then reads once."""

TF32_ROUNDING = 2.0**-11
"""By how much pictures are changed where TF32 is allowed, relatively."""

FLOAT32: Mapping[str, str] = {"use_tf32": "0"}
"""The options of ONNX Runtime's CUDA provider under which results are compared, if no others are asked for."""


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
    apart: Distance | None = None
    heatmap: float | None = None
    placement: Placement | None = None
    note: str = ""


@dataclass
class Report:
    """One model: its batch, where its forward pass ran, and every method."""

    model: str
    batch: int
    forward: Placement
    rows: list[Row] = field(default_factory=list)


@cache
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
    model: onnx.ModelProto, method: Method, images: Array, provider: str, options: Mapping[str, str],
    threads: int | None = None,
) -> Row:  # fmt: skip
    """Compile, run on both providers and compare. What cannot be done is a note, not an error."""
    try:
        proto = onnxplain.compile_model(model, method.name, runtime="cuda", **settings_for(method, images))
    except onnxplain.OnnxplainError as refusal:
        return Row(method.name, note=str(refusal).splitlines()[0])
    session = open_session(proto, "cpu", threads=threads)
    feeds = {session.get_inputs()[0].name: images}
    names = [output.name for output in session.get_outputs()]
    expected = dict(zip(names, session.run(names, feeds), strict=True))
    try:
        found, placement = profiled(proto, feeds, provider, options)
    except Exception as fault:  # one graph that fails must not end the run
        return Row(method.name, note=f"FAILED: {' '.join(str(fault).split())[:200]}")
    attribution, heatmap = (_outputs(proto)[role] for role in (ATTRIBUTION, HEATMAP))

    def on_cpu(x: Array) -> Array:
        (run,) = session.run([attribution], dict.fromkeys(feeds, x))
        return np.asarray(run)

    rounding = TF32_ROUNDING if options.get("use_tf32") == "1" else None
    return Row(
        method.name,
        distance(found[attribution], expected[attribution], images, on_cpu, rounding),
        float(np.abs(found[heatmap] - expected[heatmap]).max()),
        placement,
    )


def _outputs(proto: onnx.ModelProto) -> dict[str, str]:
    """The names of a compiled graph's outputs by role."""
    metadata = Metadata.read({entry.key: entry.value for entry in proto.metadata_props})
    return metadata.outputs if metadata else {}


def profiled(
    proto: onnx.ModelProto, feeds: dict[str, Array], provider: str, options: Mapping[str, str]
) -> tuple[dict[str, Array], Placement]:
    """The outputs of a run, and where its nodes were."""
    settings = runtime().SessionOptions()
    settings.log_severity_level = 4
    settings.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        settings.profile_file_prefix = str(Path(folder) / "profile")
        session = open_session(proto, provider, cuda=options, options=settings)
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(names, feeds), strict=True))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return found, placed(events, session.get_providers()[0])


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


@lru_cache(maxsize=1)
def _prepared(name: str) -> tuple[onnx.ModelProto, Array]:
    """A model and as many pictures as its batch."""
    (subject,) = (each for each in subjects()[0] if each.name == name)
    model = subject.load()
    return model, subject.images(batch_of(model), 0)


def _report(name: str, provider: str, options: Mapping[str, str]) -> Report:
    """A model without its methods."""
    model, images = _prepared(name)
    (data,) = {i.name for i in model.graph.input} - {w.name for w in model.graph.initializer}
    _, placement = profiled(model, {data: images}, provider, options)
    return Report(name, len(images), placement)


def _one(
    job: tuple[str, str | None], provider: str, options: Mapping[str, str], until: float, threads: int | None
) -> Report | Row:
    """A method on a model, or of no method, the model alone."""
    name, method = job
    if method is None:
        return _report(name, provider, options)
    if time.monotonic() > until:
        return Row(method, note="left out, the time is up")
    model, images = _prepared(name)
    return measured(model, named(method), images, provider, options, threads)


def reports(
    chosen: Sequence[Subject], methods: Sequence[Method], provider: str, until: float, workers: int = 1,
    options: Mapping[str, str] = FLOAT32,
) -> Iterator[Report]:  # fmt: skip
    """Each model with every method, each as soon as it is done, printing as it goes, by so many processes."""
    jobs = [(s.name, method) for s in chosen for method in (None, *(m.name for m in methods))]
    threads = None if workers == 1 else max(1, (os.cpu_count() or 1) // workers)
    work = partial(_one, provider=provider, options=options, until=until, threads=threads)
    if workers == 1:
        yield from _gathered(jobs, map(work, jobs))
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from _gathered(jobs, pool.map(work, jobs, chunksize=JOBS_AT_A_TIME))


def _gathered(jobs: Sequence[tuple[str, str | None]], results: Iterable[Report | Row]) -> Iterator[Report]:
    for _, pairs in groupby(zip(jobs, results, strict=True), key=lambda pair: pair[0][0]):
        found = [result for _, result in pairs]
        report = next(each for each in found if isinstance(each, Report))
        print("\n" + heading(report))
        for row in found:
            if isinstance(row, Row):
                report.rows.append(row)
                print(line(row), flush=True)
        yield report


# What is shown


COLUMNS = ("method", "error", "moves", "heatmap", "nodes", "off", "Memcpy")


def cells(row: Row) -> list[str]:
    """A row as text, in the order of COLUMNS."""
    if row.placement is None or row.apart is None:
        return [row.method, row.note]
    place = row.placement
    return [
        row.method,
        f"{row.apart.error:.1e}{' (!)' if row.apart.suspect else ''}",
        "" if row.apart.moves is None else f"{row.apart.moves:.1e}",
        f"{row.heatmap:.1e}",
        str(place.nodes),
        str(sum(place.elsewhere.values())),
        str(place.memcpy),
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
        f"{report.model}: batch {report.batch}, forward pass of {report.forward.nodes} nodes, "
        f"{elsewhere} off the device, {report.forward.memcpy} Memcpy"
    )


def document(reports_: Sequence[Report], facts: Mapping[str, str], options: Mapping[str, str] = FLOAT32) -> str:
    """The Markdown file."""
    rows = [row for report in reports_ for row in report.rows]
    done = [row for row in rows if row.placement is not None]
    elsewhere: Counter[str] = Counter()
    for row in done:
        elsewhere.update(row.placement.elsewhere if row.placement else {})
    copies = sum(row.placement.memcpy for row in done if row.placement)
    apart = [row.apart for row in done if row.apart]
    far = sum(each.error > ALIKE for each in apart)
    suspects = sum(each.suspect for each in apart)
    lines = [
        f"# {facts['card']}",
        "",
        "Made by `benchmarks/on_cuda.py`, which says what the columns mean. "
        + ", ".join(f"{name} {value}" for name, value in facts.items() if name != "card")
        + f". Options: {said(options)}"
        + f". {SETTINGS['steps']} steps for Integrated Gradients, {SETTINGS['samples']} samples for SmoothGrad.",
        "",
        f"{len(done)} graphs ran, {len(rows) - len(done)} did not (their rows say why). "
        f"{far} differ from the CPU by more than {ALIKE:g}, {suspects} of them by more than {LEEWAY} times what they "
        f"move when the pictures change in their last bits (marked !). {copies} Memcpy nodes in all.",
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


def said(options: Mapping[str, str]) -> str:
    """Options as text.

    >>> said({"use_tf32": "0", "prefer_nhwc": "1"})
    'use_tf32=0, prefer_nhwc=1'
    """
    return ", ".join(f"{name}={value}" for name, value in options.items())


def save(reports_: Sequence[Report], facts: Mapping[str, str], options: Mapping[str, str] = FLOAT32) -> None:
    """Write both files; those under other options than FLOAT32 say so in their names."""
    RESULTS.mkdir(exist_ok=True)
    others = [f"{name}-{value}" for name, value in options.items() if FLOAT32.get(name) != value]
    stem = "-".join([file_stem(facts), *others])
    (RESULTS / f"{stem}.md").write_text(document(reports_, facts, options), encoding="utf-8")
    whole = {
        "machine": facts,
        "options": dict(options),
        "settings": SETTINGS,
        "models": [asdict(report) for report in reports_],
    }
    (RESULTS / f"{stem}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
