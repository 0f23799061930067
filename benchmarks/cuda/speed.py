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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from statistics import median
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

import onnxplain
from benchmarks.cuda.machine import RESULTS, file_stem
from benchmarks.cuda.torch_peers import PEERS, measured_peer
from onnxplain.runtime.bound import Bound
from onnxplain.runtime.session import open_session

Array = NDArray[Any]

METHODS: dict[str, dict[str, Any]] = {
    "forward": {},
    "gradient": {},
    "grad-cam": {},
    "lrp-epsilon-plus": {},
    "integrated-gradients": {"steps": 50, "chunk": 50},
}
"""What is measured, with its parameters; "forward" is the model alone."""

SINGLE = frozenset({"integrated-gradients"})
"""Measured for one picture only: 50 steps of it are a batch of 50."""

PRECISIONS = ("float32", "tf32", "float16")
SIDE = {"cuda": 8192, "cpu": 512}
"""Of the matrices whose product gives the device's rate."""

WARM_UP, REPEATS, SECONDS = 5, 100, 2.0


@dataclass(frozen=True)
class Row:
    """One measurement. `share` is of the device's rate; `note` says why there are no numbers."""

    network: str
    what: str
    precision: str
    batch: int
    graph: bool = False
    ms: float | None = None
    share: float | None = None
    note: str = ""

    @property
    def pictures(self) -> float | None:
        """Pictures a second."""
        return None if self.ms is None else 1e3 * self.batch / self.ms


def rows(networks: Sequence[str], batches: Sequence[int], provider: str, until: float) -> Iterator[Row]:
    """Every measurement, each as soon as it is done."""
    for network in networks:
        for batch in batches:
            source = exported(network, batch)
            for precision in PRECISIONS if provider == "cuda" else ("float32", "float16"):
                model = half(source) if precision == "float16" else source
                for what, settings in METHODS.items():
                    if what in SINGLE and batch > 1:
                        continue
                    if time.monotonic() > until:
                        yield Row(network, what, precision, batch, note="left out, the time is up")
                        continue
                    yield from measured(Row(network, what, precision, batch), model, settings, provider)
                for peer in PEERS:
                    ms, note = measured_peer(peer, network, batch, precision, provider)
                    yield Row(network, peer, precision, batch, ms=ms, note=note)


def measured(row: Row, model: onnx.ModelProto, settings: Mapping[str, Any], provider: str) -> Iterator[Row]:
    """A graph without, and on a card with, a CUDA graph."""
    try:
        proto = model
        if row.what != "forward":
            proto = onnxplain.compile_model(model, row.what, runtime="cuda", **settings)
        work = arithmetic(proto)
        peak = rate(row.precision, provider)
        for graph in (False, True) if provider == "cuda" else (False,):
            ms = milliseconds(proto, provider, tf32=row.precision == "tf32", graph=graph)
            share = None if work is None else work / (ms / 1e3) / peak
            yield Row(row.network, row.what, row.precision, row.batch, graph, ms, share)
    except Exception as error:  # one graph that fails must not end the run
        note = f"FAILED: {' '.join(str(error).split())[:200]}"
        yield Row(row.network, row.what, row.precision, row.batch, note=note)


def milliseconds(proto: onnx.ModelProto, provider: str, *, tf32: bool, graph: bool = False) -> float:
    """The median run, inputs and outputs bound to the device."""
    plain = open_session(proto, provider, use_tf32=tf32)
    feeds = {i.name: _numbers(i) for i in plain.get_inputs()}
    names = [output.name for output in plain.get_outputs()]
    like = dict(zip(names, plain.run(names, feeds), strict=True))
    session = plain
    if graph:
        del plain
        session = open_session(proto, provider, use_tf32=tf32, cuda={"enable_cuda_graph": True})
    bound = Bound(session, feeds, like)
    for _ in range(WARM_UP):
        bound.run()
    took: list[float] = []
    while len(took) < REPEATS and (len(took) < 3 or sum(took) < SECONDS):
        began = time.perf_counter()
        bound.run()
        took.append(time.perf_counter() - began)
    return 1e3 * median(took)


def _numbers(port: Any) -> Array:
    dtype = np.float16 if port.type == "tensor(float16)" else np.float32
    numbers: Array = np.random.default_rng(0).standard_normal(port.shape).astype(dtype)
    return numbers


@cache
def rate(precision: str, provider: str) -> float:
    """Operations a second of a large product of matrices, an addition and a multiplication counted as two."""
    side, kind = SIDE[provider], TensorProto.FLOAT16 if precision == "float16" else TensorProto.FLOAT
    a, b, c = (helper.make_tensor_value_info(name, kind, [side, side]) for name in "abc")
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "rate", [a, b], [c])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return 2 * side**3 / (milliseconds(proto, provider, tf32=precision == "tf32") / 1e3)


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


def exported(network: str, batch: int) -> onnx.ModelProto:
    """The network of benchmarks/networks.py for a fixed batch, in ONNX."""
    import io

    import torch

    from benchmarks.cuda.torch_peers import built

    file: Any = io.BytesIO()  # which torch takes, though its types say otherwise
    torch.onnx.export(
        built(network), (torch.randn(batch, 3, 224, 224),), file, dynamo=False, opset_version=17,
        input_names=["image"], output_names=["logits"],
    )  # fmt: skip
    return onnx.load_model_from_string(file.getvalue())


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in float16, its input and output too."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    converted: onnx.ModelProto = convert_float_to_float16(copy)
    return converted


# What is shown

COLUMNS = ("network", "what", "precision", "batch", "CUDA graph", "ms", "pictures/s", "share")


def cells(row: Row) -> list[str]:
    """A row as text, in the order of COLUMNS."""
    first = [row.network, row.what, row.precision, str(row.batch), "yes" if row.graph else "no"]
    if row.ms is None:
        return [*first, row.note, "", ""]
    share = "" if row.share is None else f"{row.share:.0%}"
    return [*first, f"{row.ms:.2f}", f"{row.pictures:.0f}", share]


def line(row: Row) -> str:
    """For a terminal."""
    return " ".join(f"{cell:>{width}}" for cell, width in zip(cells(row), (12, 22, 9, 5, 4, 9, 9, 5), strict=True))


def document(done: Sequence[Row], facts: Mapping[str, str]) -> str:
    """The Markdown file."""
    lines = [
        f"# {facts['card']}: speed",
        "",
        ", ".join(f"{n} {v}" for n, v in facts.items() if n not in ("card", "tf32")),
    ]
    lines += ["", "| " + " | ".join(COLUMNS) + " |", "|---|---|---|--:|---|--:|--:|--:|"]
    lines += ["| " + " | ".join(cells(row)).replace("\n", " ") + " |" for row in done]
    return "\n".join(lines) + "\n"


def save(done: Sequence[Row], facts: dict[str, str]) -> None:
    """Write both files."""
    RESULTS.mkdir(exist_ok=True)
    stem = f"{file_stem(facts)}-speed"
    (RESULTS / f"{stem}.md").write_text(document(done, facts), encoding="utf-8")
    whole = {"machine": facts, "rows": [asdict(row) | {"pictures": row.pictures} for row in done]}
    (RESULTS / f"{stem}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
