"""What explanations cost on a card: milliseconds, pictures a second, and the share of the card's arithmetic reached.

Each network is exported with a fixed batch, since CUDA graphs need fixed sizes. Inputs and outputs stay on the card.
The card's own rate is that of a large product of two matrices in the same precision and the same runtime; the
arithmetic of a graph is that of its convolutions and products, counted from the shapes in it.

The aims: a gradient for one picture at least 4 times faster than Captum, for 64 at least 1.3 times; Integrated
Gradients with 50 steps on ResNet-50 for one picture in float16 under 15 ms on an H200.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import product
from statistics import median
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

import onnxplain
from benchmarks.cuda.machine import RESULTS, file_stem
from benchmarks.cuda.parity import relative_error
from benchmarks.cuda.torch_peers import Peer, measured_peer
from onnxplain.interface import ATTRIBUTION, Metadata
from onnxplain.runtime.bound import Bound
from onnxplain.runtime.session import open_session, runtime

Array = NDArray[Any]


@dataclass(frozen=True)
class Asked:
    """What is measured of a method: its parameters, and for how many pictures at a time it makes sense."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    batches: Callable[[int], bool] = lambda _: True


def _few(batch: int) -> bool:
    return batch in (1, 64)


def _one(batch: int) -> bool:
    return batch == 1


FORWARD = "forward"
METHODS: dict[str, Asked] = {
    FORWARD: Asked(),
    "gradient": Asked(),
    "guided-backprop": Asked(batches=_few),
    "grad-cam": Asked(batches=_few),
    "fem": Asked(batches=_few),
    "lrp-eps": Asked(batches=_few),
    "lrp-epsilon-plus": Asked(batches=_few),
    "lrp-epsilon-gamma-box": Asked({"low": -3, "high": 3}, _few),
    "lrp-epsilon-alpha2-beta1": Asked(batches=_few),
    "deeplift-rescale": Asked(batches=_few),
    "integrated-gradients": Asked({"steps": 50, "chunk": 50}, _one),
}
"""Integrated Gradients with 50 steps are a batch of 50 already."""

PRECISIONS = ("float32", "tf32", "float16")
SIDE = {"cuda": 8192, "cpu": 512}
"""Of the matrices whose product gives the device's rate."""

WARM_UP, REPEATS, SECONDS = 3, 100, 0.4
"""Runs before timing; the most runs timed; the time after which no more are."""

NO_GRAPH = "-1"
"""The gpu_graph_id with which a session that may record CUDA graphs runs without."""


@dataclass(frozen=True)
class Row:
    """One measurement. `share` is of the device's rate; `note` says why there are no numbers.

    error: ||a - b|| / ||b|| of the attribution against the same method in float32 on the CPU, for one picture.
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


def rows(
    networks: Sequence[str], batches: Sequence[int], precisions: Sequence[str], peers: Sequence[Peer],
    provider: str, until: float,
) -> Iterator[Row]:  # fmt: skip
    """Every measurement, each as soon as it is done."""
    for network, batch, precision in product(networks, batches, precisions):
        source = for_batch(exported(network), batch)
        model = half(source) if precision == "float16" else source
        for what, asked in METHODS.items():
            if not asked.batches(batch):
                continue
            row = Row(network, what, precision, batch)
            if time.monotonic() > until:
                yield replace(row, note="left out, the time is up")
                continue
            yield from measured(row, model, asked.settings, provider)
        for peer in peers:
            if time.monotonic() < until and peer.measures(network, batch):
                ms, note = measured_peer(peer, network, batch, precision, provider)
                yield Row(network, peer.name, precision, batch, ms=ms, note=note)


def measured(row: Row, model: onnx.ModelProto, settings: Mapping[str, Any], provider: str) -> Iterator[Row]:
    """A graph without, and on a card with, a CUDA graph."""
    try:
        proto = model if row.what == FORWARD else onnxplain.compile_model(model, row.what, runtime="cuda", **settings)
        work = arithmetic(proto)
        peak = rate(row.precision, provider)
        error = None
        for timed in timings(proto, provider, tf32=row.precision == "tf32"):
            if row.what != FORWARD and row.batch == 1 and error is None:
                found = timed.outputs[_attribution(proto)]
                error = relative_error(found, reference(row.network, row.what))
            share = None if work is None else work / (timed.ms / 1e3) / peak
            yield replace(row, graph=timed.graph, ms=timed.ms, share=share, error=error)
    except Exception as fault:  # one graph that fails must not end the run
        yield replace(row, note=f"FAILED: {' '.join(str(fault).split())[:200]}")


@dataclass(frozen=True)
class Timed:
    """The median run of a session, with a CUDA graph or without, and what it returned."""

    ms: float
    graph: bool
    outputs: dict[str, Array]


def timings(
    proto: onnx.ModelProto, provider: str, *, tf32: bool, cuda: Mapping[str, Any] | None = None, graphs: bool = True
) -> Iterator[Timed]:
    """Runs with inputs and outputs bound to the device: node by node, and then, on a card, as a CUDA graph."""
    graphs = graphs and provider == "cuda"
    options = {**(cuda or {}), **({"enable_cuda_graph": True} if graphs else {})}
    session = open_session(proto, provider, use_tf32=tf32, cuda=options)
    feeds = {i.name: numbers(i) for i in session.get_inputs()}
    names = [output.name for output in session.get_outputs()]
    node_by_node = runtime().RunOptions()
    if graphs:
        node_by_node.add_run_config_entry("gpu_graph_id", NO_GRAPH)
    like = dict(zip(names, session.run(names, feeds, node_by_node), strict=True))
    bound = Bound(session, feeds, like)
    for graph in (False, True) if graphs else (False,):
        chosen = None if graph else node_by_node
        ms = median_ms(lambda chosen=chosen: bound.run(chosen), WARM_UP, REPEATS, SECONDS)  # type: ignore[misc]
        yield Timed(ms, graph, {name: bound.get(name) for name in names})


def median_ms(run: Callable[[], None], warm_up: int, repeats: int, seconds: float) -> float:
    """The median of runs, which wait until they are done."""
    for _ in range(warm_up):
        run()
    took: list[float] = []
    while len(took) < repeats and (len(took) < 3 or sum(took) < seconds):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return 1e3 * median(took)


def numbers(port: Any) -> Array:
    """Seeded numbers for an input of a session."""
    dtype = np.float16 if port.type == "tensor(float16)" else np.float32
    numbers: Array = np.random.default_rng(0).standard_normal(port.shape).astype(dtype)
    return numbers


@cache
def reference(network: str, method: str) -> Array:
    """The attribution for one picture in float32 on the CPU."""
    settings = {**METHODS[method].settings}
    if "chunk" in settings:
        settings["chunk"] = 10
    proto = onnxplain.compile_model(exported(network), method, runtime="cpu", **settings)
    session = open_session(proto, "cpu")
    (image,) = (i for i in session.get_inputs())
    (found,) = session.run([_attribution(proto)], {image.name: numbers(image)})
    return np.asarray(found)


def _attribution(proto: onnx.ModelProto) -> str:
    metadata = Metadata.read({entry.key: entry.value for entry in proto.metadata_props})
    assert metadata is not None
    return metadata.outputs[ATTRIBUTION]


@cache
def rate(precision: str, provider: str) -> float:
    """Operations a second of a large product of matrices, an addition and a multiplication counted as two."""
    side, kind = SIDE[provider], TensorProto.FLOAT16 if precision == "float16" else TensorProto.FLOAT
    a, b, c = (helper.make_tensor_value_info(name, kind, [side, side]) for name in "abc")
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "rate", [a, b], [c])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (timed,) = timings(proto, provider, tf32=precision == "tf32", graphs=False)
    return 2 * side**3 / (timed.ms / 1e3)


def arithmetic(proto: onnx.ModelProto) -> float | None:
    """Additions and multiplications of a graph's convolutions and products; None if a size is unknown."""
    shapes = {t.name: list(t.dims) for t in proto.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[value.name] = [d.dim_value for d in value.type.tensor_type.shape.dim]
    total = 0.0
    for node in proto.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        x, w, y = (shapes.get(name, [0]) for name in (node.input[0], node.input[1], node.output[0]))
        if 0 in (*x, *w, *y):
            return None
        if node.op_type == "MatMul":
            each = math.prod(y) * x[-1]
        elif node.op_type == "Gemm":
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            each = math.prod(y) * x[0 if transposed else 1]
        else:
            # A convolution goes through all of w but its first axis for each element of its output; a transposed one
            # for each element of its input.
            each = math.prod(y if node.op_type == "Conv" else x) * math.prod(w[1:])
        total += 2.0 * each
    return total


@cache
def exported(network: str) -> onnx.ModelProto:
    """The network of benchmarks/networks.py for one picture, in ONNX."""
    import io

    import torch

    from benchmarks.cuda.torch_peers import built

    file: Any = io.BytesIO()  # which torch takes, though its types say otherwise
    torch.onnx.export(
        built(network), (torch.randn(1, 3, 224, 224),), file, dynamo=False, opset_version=17,
        input_names=["image"], output_names=["logits"],
    )  # fmt: skip
    return onnx.load_model_from_string(file.getvalue())


def for_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The network for so many pictures; none of those here has its batch written into a node."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    return copy


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in float16, its input and output too."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    converted: onnx.ModelProto = convert_float_to_float16(copy)
    return converted


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
