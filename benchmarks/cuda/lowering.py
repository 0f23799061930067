"""What each lowering for CUDA, and each option of the session, brings on a card: milliseconds, side by side.

    python benchmarks/cuda/lowering.py [--columns 'ResNet-50*,* 1 *'] [--minutes 3] [--kernels]

A graph of one picture runs as a CUDA graph, since its launches would hide what the kernels take; one of 64 runs node
by node. Results go to benchmarks/results/<card>-lowering.md. --kernels also prints which kernels take the time, as
CUPTI tells PyTorch's profiler.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402  # brings the CUDA libraries, and must come before ONNX Runtime

from benchmarks.cuda import speed  # noqa: E402
from benchmarks.cuda.graphs import Made, Wanted, made  # noqa: E402
from benchmarks.cuda.machine import RESULTS, file_stem, machine, matching, why_no_cuda  # noqa: E402
from benchmarks.cuda.timing import bound_to_numbers, tf32, timings  # noqa: E402
from onnxplain.ir.model import Model  # noqa: E402
from onnxplain.passes.base import Pass  # noqa: E402
from onnxplain.passes.optimise import LOWERING  # noqa: E402
from onnxplain.passes.optimise.convolution import FlipUnitStride  # noqa: E402
from onnxplain.passes.optimise.strides import PointStrides  # noqa: E402
from onnxplain.runtime.agreement import relative_error  # noqa: E402
from onnxplain.runtime.session import open_session  # noqa: E402


@dataclass(frozen=True)
class Variant:
    """A lowering and options of ONNX Runtime's CUDA provider."""

    name: str
    passes: tuple[Pass[Model], ...]
    options: Mapping[str, Any]


def variants() -> tuple[Variant, ...]:
    """What is compared, the first being what `--for cuda` does with the options that ONNX Runtime has by default."""
    kept = LOWERING["cuda"]
    channels_last = {"prefer_nhwc": True}

    def without(*names: str) -> tuple[Pass[Model], ...]:
        return tuple(p for p in kept if p.name not in names)

    return (
        Variant("--for cuda", kept, {}),
        Variant("without rewriting depthwise convolutions", without("FlipDepthwise", "DepthwiseStrides"), {}),
        Variant("without rewriting strided depthwise ones", without("DepthwiseStrides"), {}),
        Variant("masks as products", without("KeptByChoice"), {}),
        Variant("all convolutions of stride 1 flipped", (*kept, FlipUnitStride()), {}),
        Variant("strides of 1x1 convolutions by repetition", (*kept, FlipUnitStride(), PointStrides()), {}),
        Variant("prefer_nhwc", kept, channels_last),
        Variant("fuse_conv_bias", kept, {"fuse_conv_bias": True}),
        Variant("prefer_nhwc, fuse_conv_bias", kept, {**channels_last, "fuse_conv_bias": True}),
        Variant("cudnn_conv_algo_search HEURISTIC", kept, {"cudnn_conv_algo_search": "HEURISTIC"}),
    )


@dataclass(frozen=True)
class Column:
    """What is timed."""

    network: str
    what: str
    batch: int
    precision: str

    def graph(self, variant: Variant) -> Wanted:
        """With a lowering."""
        return Wanted(self.network, self.what, self.batch, self.precision == "float16", variant.name)

    def __str__(self) -> str:
        return f"{self.network} {self.what} {self.batch} {self.precision}"


COLUMNS = tuple(
    Column(*each, precision)
    for each in (
        ("ResNet-50", "gradient", 64),
        ("MobileNetV2", "gradient", 64),
        ("ResNet-50", "lrp-epsilon-plus", 64),
        ("ResNet-50", "gradient", 1),
        ("MobileNetV2", "gradient", 1),
        ("MobileNetV2", "lrp-epsilon-plus", 1),
        ("ResNet-50", "integrated-gradients", 1),
        ("tiny", "gradient", 1),
    )
    for precision in speed.PRECISIONS
)


def kernels(graph: Made, options: Mapping[str, Any], precision: str, provider: str) -> list[str]:
    """The kernels of one run by the time they take, a line each."""
    session = open_session(graph.path, provider, use_tf32=tf32(precision), cuda=options)
    bound = bound_to_numbers(session)
    bound.run()
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CUDA if provider == "cuda" else activity.CPU]) as seen:
        bound.run()
    events = sorted(seen.key_averages(), key=lambda e: -float(e.device_time_total))
    whole = sum(float(e.device_time_total) for e in events) or 1.0
    return [
        f"{whole / 1e3:.2f} ms in kernels",
        *(f"{e.device_time_total / whole:6.1%} {e.count:4} {e.key[:110]}" for e in events),
    ]


def cell(column: Column, variant: Variant, graph: Made, provider: str) -> str:
    """Milliseconds of the median run and the error against float32 on the CPU, or what fails."""
    try:
        if graph.fault:
            return f"fails: {graph.fault[:200]}"
        *_, timed = timings(graph.path, provider, column.precision, variant.options, graphs=column.batch == 1)
        error = "" if graph.expected is None else relative_error(timed.outputs[graph.output][:1], graph.expected)
        return f"{timed.ms:.2f} ({error:.0e})"
    except Exception as fault:  # one graph that fails must not end the run
        return f"fails: {' '.join(str(fault).split())[:200]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", default="*", metavar="PATTERN[,PATTERN]", help="'ResNet-50 gradient 64 tf32'")
    parser.add_argument("--variants", default="*", metavar="PATTERN[,PATTERN]")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so many, with what there is")
    parser.add_argument("--kernels", action="store_true", help="which kernels take the time, of the first variant")
    parser.add_argument("--rehearse", action="store_true", help="the CPU in the place of CUDA; nothing is written")
    asked = parser.parse_args(arguments)
    lacking = "" if asked.rehearse else why_no_cuda()
    if lacking:
        print(f"nothing was measured: {lacking}")
        return 0
    provider, until = "cpu" if asked.rehearse else "cuda", time.monotonic() + 60 * asked.minutes
    columns = [column for column in COLUMNS if matching(str(column), asked.columns)]
    compared = [variant for variant in variants() if matching(variant.name, asked.variants)]
    cells: dict[tuple[str, Column], str] = {}
    with tempfile.TemporaryDirectory() as folder:
        lowerings = {variant.name: variant.passes for variant in compared}
        graphs = made((column.graph(v) for column in columns for v in compared), Path(folder), lowerings)
        for column in columns:
            for variant in compared:
                if time.monotonic() > until:
                    break
                cells[variant.name, column] = cell(column, variant, graphs[column.graph(variant)], provider)
                print(f"{column}, {variant.name}: {cells[variant.name, column]}", flush=True)
            if asked.kernels and time.monotonic() < until:
                graph = graphs[column.graph(compared[0])]
                print("\n".join(kernels(graph, compared[0].options, column.precision, provider)[:24]), flush=True)
    page = table(columns, compared, cells)
    print(page)
    if not asked.rehearse:
        facts = machine()
        said = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "card")
        text = f"# {facts['card']}: lowerings\n\n{said}.\n\n{page}\n"
        (RESULTS / f"{file_stem(facts)}-lowering.md").write_text(text, encoding="utf-8")
    return 0


def table(columns: Sequence[Column], compared: Sequence[Variant], cells: Mapping[tuple[str, Column], str]) -> str:
    """In Markdown, a row for each variant."""
    titles = [f"{c.network}, `{c.what}`, {c.batch}, {c.precision}" for c in columns]
    lines = ["| ms (error) | " + " | ".join(titles) + " |", "|---" + "|--:" * len(columns) + "|"]
    lines += [f"| {v.name} | " + " | ".join(cells.get((v.name, c), "") for c in columns) + " |" for v in compared]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
