"""Everything that is to be measured on an NVIDIA GPU, on the machine that this runs on.

    python benchmarks/on_cuda.py                        # all but the models with hundreds of megabytes
    python benchmarks/on_cuda.py --parts parity --models 'light_*' --methods 'lrp-*' --heavy
    python benchmarks/on_cuda.py --parts speed --networks ResNet-50 --rows '* gradient *,* float16 1'
    python benchmarks/on_cuda.py --parts parity --cuda use_tf32=0,prefer_nhwc=1
    python benchmarks/on_cuda.py --rehearse --models digits --networks tiny --batches 1    # on the CPU, nothing written

parity  every method on every model against the CPU, TF32 off, and where its nodes ran (benchmarks/cuda/parity.py)
speed   milliseconds and pictures a second in float32, TF32 and float16, with and without CUDA graphs, beside Captum and
        torch.compile, and the share of the card's arithmetic that is reached (benchmarks/cuda/speed.py)

Run it from a checkout, with onnxruntime-gpu installed; no network is needed. With PyTorch and pytest there are more
models: those of the `onnx` package with seeded weights, and those in ../shared. Without a GPU it says so and exits 0.

Results go to benchmarks/results/<card>*.md and .json, after each model, so that a run that is cut short leaves its
part.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxplain  # noqa: E402
from benchmarks.cuda import parity, speed  # noqa: E402
from benchmarks.cuda.graphs import Made, Wanted, made  # noqa: E402
from benchmarks.cuda.machine import RESULTS, machine, matching, why_no_cuda  # noqa: E402
from benchmarks.cuda.torch_peers import PEERS  # noqa: E402

PARTS = ("parity", "speed")


def run_parity(asked: argparse.Namespace, provider: str, facts: dict[str, str], until: float) -> bool:
    """Returns: whether every graph that was compiled ran."""
    found, why = parity.subjects()
    if why:
        print(f"models: {why}")
    chosen = [s for s in found if matching(s.name, asked.models) and (asked.heavy or not s.heavy)]
    methods = [
        method
        for method in onnxplain.methods()
        if matching(method.name, asked.methods) and parity.NEEDS_A_FILE not in {p.name for p in method.parameters}
    ]
    print(f"{facts['card']}, ONNX Runtime {facts['ONNX Runtime']}: {len(methods)} methods, {len(chosen)} models")
    print(parity.line(parity.Row(parity.COLUMNS[0], note=" ".join(f"{name:>9}" for name in parity.COLUMNS[1:]))))
    done: list[parity.Report] = []
    options = dict(each.split("=") for each in asked.cuda.replace(" ", "").split(","))
    for report in parity.reports(chosen, methods, provider, until, asked.workers, options):
        done.append(report)
        if not asked.rehearse:
            parity.save(done, facts, options)
    return not any(row.note.startswith("FAILED") for report in done for row in report.rows)


def run_speed(
    asked: argparse.Namespace, rows: Sequence[speed.Row], graphs: Mapping[Wanted, Made], provider: str,
    facts: dict[str, str], until: float,
) -> bool:  # fmt: skip
    """Returns: whether every graph that was compiled ran."""
    done: list[speed.Row] = []
    for row in speed.rows(rows, graphs, provider, until):
        done.append(row)
        print(speed.line(row), flush=True)
        if not asked.rehearse:
            speed.save(done, facts)
    return not any(row.note.startswith("FAILED") for row in done)


def chosen_rows(asked: argparse.Namespace, provider: str) -> list[speed.Row]:
    """What is timed."""
    batches = [int(batch) for batch in asked.batches.split(",")]
    peers = [peer for peer in PEERS if matching(peer.name, asked.peers)]
    rows = speed.asked(asked.networks.split(","), batches, asked.precisions.split(","), peers, provider)
    return [row for row in rows if matching(row.label, asked.rows)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run. Returns: the exit status, 1 without ONNX Runtime or if a graph was compiled and could not be run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), metavar="PART[,PART]")
    parser.add_argument("--models", default="*", metavar="PATTERN[,PATTERN]", help="of parity")
    parser.add_argument("--methods", default="*", metavar="PATTERN[,PATTERN]", help="of parity")
    parser.add_argument("--heavy", action="store_true", help="also AlexNet, VGG-19 and ZFNet: 240 to 570 MB each")
    parser.add_argument("--networks", default="ResNet-50,VGG-16,MobileNetV2", metavar="NAME[,NAME]", help="of speed")
    parser.add_argument("--batches", default="1,16,64,256", metavar="N[,N]", help="of speed")
    parser.add_argument("--precisions", default=",".join(speed.PRECISIONS), metavar="NAME[,NAME]", help="of speed")
    parser.add_argument("--peers", default="*", metavar="PATTERN[,PATTERN]", help="of speed, what PyTorch offers")
    parser.add_argument(
        "--rows", default="*", metavar="PATTERN[,PATTERN]", help="of speed: 'ResNet-50 gradient tf32 *'"
    )
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so many, with what there is")
    parser.add_argument("--cuda", default=parity.said(parity.FLOAT32), metavar="NAME=VALUE[,NAME=VALUE]",
                        help="of parity, options of ONNX Runtime's CUDA provider")  # fmt: skip
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that share the card for parity")
    parser.add_argument("--rehearse", action="store_true", help="the CPU in the place of CUDA; nothing is written")
    asked = parser.parse_args(arguments)
    unknown = [part for part in asked.parts.split(",") if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}: there are {', '.join(PARTS)}")
    until = time.monotonic() + 60 * asked.minutes
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401  # brings the CUDA libraries, and must come before ONNX Runtime
    try:
        lacking = "" if asked.rehearse else why_no_cuda()
    except onnxplain.OnnxplainError as error:
        print(error)
        return 1
    if lacking:
        print(f"nothing was measured: {lacking}")
        return 0
    provider, facts = "cpu" if asked.rehearse else "cuda", machine()
    parts, worked = asked.parts.split(","), []
    rows = chosen_rows(asked, provider) if "speed" in parts else []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as beside:
        graphs = beside.submit(made, speed.graphs_of(rows), Path(folder))  # while parity is looked at
        if "parity" in parts:
            worked.append(run_parity(asked, provider, facts, until))
        if "speed" in parts:
            worked.append(run_speed(asked, rows, graphs.result(), provider, facts, until))
    if not asked.rehearse:
        print(f"\nwritten to {RESULTS.relative_to(ROOT) if RESULTS.is_relative_to(ROOT) else RESULTS}")
    return 0 if all(worked) else 1


if __name__ == "__main__":
    sys.exit(main())
