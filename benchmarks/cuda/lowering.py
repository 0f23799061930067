"""What each lowering for CUDA, and each option of the session, brings on a card: milliseconds, side by side.

    python benchmarks/cuda/lowering.py [--columns 'ResNet-50*'] [--precisions tf32,float16] [--minutes 3] [--kernels]

A graph of one picture runs as a CUDA graph, since its launches would hide what the kernels take; one of 64 runs node
by node. Results go to benchmarks/results/<card>-lowering.md. --kernels also prints which kernels take the time, as
CUPTI tells PyTorch's profiler.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402  # brings the CUDA libraries, and must come before ONNX Runtime

import onnxplain  # noqa: E402
from benchmarks.cuda import speed  # noqa: E402
from benchmarks.cuda.machine import RESULTS, file_stem, machine, why_no_cuda  # noqa: E402
from onnxplain.ir.model import Model  # noqa: E402
from onnxplain.passes.base import Pass  # noqa: E402
from onnxplain.passes.optimise import LOWERING  # noqa: E402
from onnxplain.passes.optimise.convolution import FlipUnitStride  # noqa: E402
from onnxplain.passes.optimise.strides import DepthwiseStrides, PointStrides  # noqa: E402


@dataclass(frozen=True)
class Variant:
    """A lowering and options of ONNX Runtime's CUDA provider."""

    name: str
    passes: tuple[Pass[Model], ...]
    options: Mapping[str, Any]


def variants() -> tuple[Variant, ...]:
    """What is compared, the first being what `--for cuda` does with the options that ONNX Runtime has by default."""
    kept = LOWERING["cuda"]
    flipped = (*kept, FlipUnitStride())
    channels_last = {"prefer_nhwc": True}
    return (
        Variant("--for cuda", kept, {}),
        Variant("channels last (prefer_nhwc)", kept, channels_last),
        Variant("flipped convolutions", flipped, {}),
        Variant("flipped convolutions, channels last", flipped, channels_last),
        Variant("flipped, strides by repetition", (*flipped, DepthwiseStrides(), PointStrides()), {}),
        Variant("masks as products", tuple(p for p in kept if p.name != "KeptByChoice"), {}),
        Variant("algorithms by heuristics", kept, {"cudnn_conv_algo_search": "HEURISTIC"}),
    )


COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("ResNet-50", "gradient", 64),
    ("MobileNetV2", "gradient", 64),
    ("ResNet-50", "lrp-epsilon-plus", 64),
    ("ResNet-50", "gradient", 1),
    ("MobileNetV2", "gradient", 1),
)
"""Network, method and pictures."""


def milliseconds(
    network: str, method: str, batch: int, variant: Variant, precision: str, provider: str
) -> tuple[float, float]:
    """The median run, and the seconds until the first one was done. Raises: whatever fails."""
    model = speed.for_batch(speed.exported(network), batch)
    model = speed.half(model) if precision == "float16" else model
    with patch("onnxplain.compiler.LOWERING", {**LOWERING, "cuda": variant.passes}):
        proto = onnxplain.compile_model(model, method, runtime="cuda", **speed.METHODS[method].settings)
    began = time.monotonic()
    tf32 = precision == "tf32"
    *_, timed = speed.timings(proto, provider, tf32=tf32, cuda=variant.options, graphs=batch == 1)
    return timed.ms, time.monotonic() - began


def kernels(network: str, method: str, batch: int, variant: Variant, precision: str, provider: str) -> list[str]:
    """The kernels of one run by the time they take, a line each."""
    from onnxplain.runtime.bound import Bound
    from onnxplain.runtime.session import open_session

    model = speed.for_batch(speed.exported(network), batch)
    model = speed.half(model) if precision == "float16" else model
    with patch("onnxplain.compiler.LOWERING", {**LOWERING, "cuda": variant.passes}):
        proto = onnxplain.compile_model(model, method, runtime="cuda", **speed.METHODS[method].settings)
    session = open_session(proto, provider, use_tf32=precision == "tf32", cuda=variant.options)
    feeds = {i.name: speed.numbers(i) for i in session.get_inputs()}
    names = [output.name for output in session.get_outputs()]
    bound = Bound(session, feeds, dict(zip(names, session.run(names, feeds), strict=True)))
    bound.run()
    on_card = provider == "cuda"
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CUDA if on_card else activity.CPU]) as seen:
        bound.run()
    events = sorted(seen.key_averages(), key=lambda e: -float(e.device_time_total))
    whole = sum(float(e.device_time_total) for e in events) or 1.0
    head = f"{network}, {method}, {batch} pictures, {precision}, {variant.name}: {whole / 1e3:.2f} ms in kernels"
    return [head, *(f"{e.device_time_total / whole:6.1%} {e.count:4} {e.key[:110]}" for e in events)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", default="*", metavar="PATTERN", help="such as 'ResNet-50 gradient 64'")
    parser.add_argument("--variants", default="*", metavar="PATTERN")
    parser.add_argument("--precisions", default="tf32,float16", metavar="NAME[,NAME]")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so many, with what there is")
    parser.add_argument("--kernels", action="store_true", help="which kernels take the time, of the first variant")
    parser.add_argument("--rehearse", action="store_true", help="the CPU in the place of CUDA; nothing is written")
    asked = parser.parse_args(arguments)
    lacking = "" if asked.rehearse else why_no_cuda()
    if lacking:
        print(f"nothing was measured: {lacking}")
        return 0
    provider, until = "cpu" if asked.rehearse else "cuda", time.monotonic() + 60 * asked.minutes
    precisions = asked.precisions.split(",")
    chosen = [c for c in COLUMNS if fnmatchcase(" ".join(map(str, c)), asked.columns)]
    compared = [v for v in variants() if fnmatchcase(v.name, asked.variants)]
    heads = [(*column, precision) for column in chosen for precision in precisions]
    cells = {(variant.name, head): "" for variant in compared for head in heads}
    for head in heads:
        network, method, batch, precision = head
        for variant in compared:
            if time.monotonic() > until:
                break
            try:
                ms, waited = milliseconds(network, method, batch, variant, precision, provider)
                cells[variant.name, head] = f"{ms:.2f}"
                print(
                    f"{network} {method} {batch} {precision}, {variant.name}: {ms:.3f} ms, {waited:.1f} s", flush=True
                )
            except Exception as fault:  # one graph that fails must not end the run
                cells[variant.name, head] = "fails"
                print(f"{network} {method} {batch} {precision}, {variant.name}: {' '.join(str(fault).split())[:300]}")
        if asked.kernels and time.monotonic() < until:
            try:
                print("\n".join(kernels(network, method, batch, compared[0], precision, provider)[:24]), flush=True)
            except Exception as fault:
                print(f"no kernels: {' '.join(str(fault).split())[:300]}")
    titles = [f"{network}, `{method}`, {batch}, {precision}" for network, method, batch, precision in heads]
    table = ["| ms | " + " | ".join(titles) + " |", "|---" + "|--:" * len(heads) + "|"]
    table += [f"| {v.name} | " + " | ".join(cells[v.name, head] for head in heads) + " |" for v in compared]
    print("\n".join(table))
    if not asked.rehearse:
        facts = machine()
        said = ", ".join(f"{name} {value}" for name, value in facts.items() if name != "card")
        page = [f"# {facts['card']}: lowerings", "", f"{said}.", "", *table]
        (RESULTS / f"{file_stem(facts)}-lowering.md").write_text("\n".join(page) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
