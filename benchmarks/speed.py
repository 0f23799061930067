"""What each method costs on CPU, in forward passes of the same model in the same runtime, beside Captum and zennit.

    python benchmarks/speed.py [--turns 8] [--runs 5] [--batch 1] [--networks ResNet-50,...] [--peers]

Each graph runs in a process of its own, the forward pass and the explanation in turns, until neither gets shorter; the
figure is the shortest run over the shortest (benchmarks/settled.py). A torch method is timed in this process likewise,
and divided by the same network's forward pass in ONNX Runtime, which is what a user would run otherwise.
Writes benchmarks/results/cpu.json and, between its markers, docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

import onnxplain  # noqa: E402
from benchmarks.networks import NETWORKS, seeded  # noqa: E402
from benchmarks.page import put  # noqa: E402
from benchmarks.peers import PEERS  # noqa: E402
from benchmarks.settled import least, shortest  # noqa: E402

Goals = tuple[float, float, float]

STEPS = 10
_BOX = {"low": -3, "high": 3}
_WHOLE = {"sign_analysis": False}


@dataclass(frozen=True)
class Case:
    """A method with settings, and the goals for ResNet-50, VGG-16 and MobileNetV2 in forward passes."""

    method: str
    goals: Goals | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    divisor: int = 1


CASES: dict[str, Case] = {
    "gradient": Case("gradient", (2.15, 2.1, 2.6)),
    "guided-backprop": Case("guided-backprop", (2.15, 2.1, 2.6)),
    "deconvnet": Case("deconvnet", (2.15, 2.1, 2.6)),
    "grad-cam": Case("grad-cam", (1.05, 1.05, 1.1)),
    "fem": Case("fem", (1.05, 1.05, 1.1)),
    "lrp-0": Case("lrp-0"),
    "lrp-eps": Case("lrp-eps", (2.3, 2.2, 2.8)),
    "lrp-epsilon-plus": Case("lrp-epsilon-plus", (3.3, 3.2, 4.0)),
    "lrp-epsilon-plus, no sign analysis": Case("lrp-epsilon-plus", None, _WHOLE),
    "lrp-epsilon-gamma-box": Case("lrp-epsilon-gamma-box", (3.3, 3.2, 4.0), _BOX),
    "lrp-epsilon-gamma-box, no sign analysis": Case("lrp-epsilon-gamma-box", None, _BOX | _WHOLE),
    "lrp-epsilon-alpha2-beta1": Case("lrp-epsilon-alpha2-beta1", (4.4, 4.3, 5.0)),
    "lrp-epsilon-alpha2-beta1, no sign analysis": Case("lrp-epsilon-alpha2-beta1", None, _WHOLE),
    "deeplift-rescale": Case("deeplift-rescale", (2.3, 2.2, 2.8), {"fold_baseline": "yes"}),
    "deeplift-rescale, run-time baseline": Case("deeplift-rescale", (3.3, 3.3, 3.3), {"baseline": "input"}),
    "integrated-gradients": Case("integrated-gradients", (2.1, 2.1, 2.5), {"steps": STEPS}, STEPS),
}


@dataclass(frozen=True)
class Row:
    """One method on one network: forward passes (also the least and the most of a turn), the file over the model."""

    network: str
    method: str
    passes: float
    least: float
    most: float
    forward_ms: float
    size: float
    compile_s: float
    reorders: int
    goal: float | None
    peers: dict[str, float | None]


def export(name: str, folder: Path) -> tuple[torch.nn.Module, Path]:
    """The network and its ONNX file with a dynamic batch."""
    net = seeded(name)
    path = folder / f"{name}.onnx"
    torch.onnx.export(
        net, (torch.randn(1, 3, 224, 224),), str(path), dynamo=False, opset_version=17,
        input_names=["image"], output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )  # fmt: skip
    return net, path


def timed(run: Callable[[], object]) -> float:
    """Milliseconds of one run."""
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) * 1e3


def measured(network: str, column: int, net: torch.nn.Module, model: Path, name: str, args: argparse.Namespace) -> Row:
    """Compile a method for CPU and measure it in turns with its forward pass."""
    case = CASES[name]
    explained = model.with_suffix(".explained.onnx")
    began = time.perf_counter()
    onnxplain.compile_file(model, explained, case.method, runtime=args.runtime, **case.settings)
    seconds = time.perf_counter() - began
    found = shortest(model, explained, batch=args.batch, runs=args.runs, turns=args.turns)
    ratios, nodes = [ratio / case.divisor for ratio in found.ratios], found.nodes
    image = torch.randn(args.batch, 3, 224, 224)
    peers = {}
    for peer, methods in PEERS.items() if args.peers else ():
        if name in methods:
            peers[peer] = _peer(methods[name], net, image, found.forward * case.divisor, args.turns)
    row = Row(
        network, name, found.passes / case.divisor, min(ratios), max(ratios), found.forward,
        explained.stat().st_size / model.stat().st_size, seconds,
        nodes.get("nchwc.ReorderInput", 0) + nodes.get("nchwc.ReorderOutput", 0),
        case.goals[column] if case.goals and args.batch == 1 else None, peers,
    )  # fmt: skip
    explained.unlink()
    print(f"{network:12} {name:44} {row.passes:6.2f} ({row.least:.2f} to {row.most:.2f})  goal {row.goal}  {peers}",
          flush=True)  # fmt: skip
    return row


def _peer(
    explain: Callable[..., Callable[[], object]], net: torch.nn.Module, image: Any, forward: float, turns: int
) -> float | None:
    try:
        run = explain(net, image, STEPS)
        run()
        return least(lambda: timed(run), turns) / forward
    except Exception as error:  # a peer that cannot do it is a result
        print(f"    fails: {type(error).__name__}: {str(error)[:100]}")
        return None


def table(rows: list[Row]) -> str:
    """Methods by networks."""
    names = [name for name in NETWORKS if any(row.network == name for row in rows)]
    lines = ["| method | " + " | ".join(names) + " | goals | peers |", "|---" * (len(names) + 3) + "|"]
    for method in CASES:
        mine = {row.network: row for row in rows if row.method == method}
        if not mine:
            continue
        cells = [f"{mine[n].passes:.2f}" if n in mine else "" for n in names]
        goals = " · ".join(f"{mine[n].goal}" for n in names if n in mine and mine[n].goal is not None)
        every = dict.fromkeys(peer for row in mine.values() for peer in row.peers)
        peers = "; ".join(f"{p} " + " · ".join(_said(mine[n].peers.get(p)) for n in names if n in mine) for p in every)
        method, _, how = method.partition(", ")
        lines.append(f"| `{method}`{how and ', ' + how} | " + " | ".join(cells) + f" | {goals} | {peers} |")
    return "\n".join(lines)


def _said(passes: float | None) -> str:
    return "fails" if passes is None else f"{passes:.1f}"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runtime", default="cpu")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--methods", default=";".join(CASES), help="separated by ;")
    parser.add_argument("--peers", action="store_true", help="Captum and zennit beside it")
    parser.add_argument("--update", action="store_true", help="keep the results that are not measured again")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/cpu.json")
    args = parser.parse_args()
    torch.set_num_threads(2)
    rows = _kept(args)
    args.out.parent.mkdir(exist_ok=True, parents=True)
    machine = {"processor": _processor(), "threads": 2, "onnxruntime": version("onnxruntime"), "batch": args.batch}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.networks.split(","):
            column = list(NETWORKS).index(name)
            net, model = export(name, Path(folder))
            rows += [measured(name, column, net, model, method, args) for method in args.methods.split(";")]
            args.out.write_text(json.dumps({"machine": machine, "rows": [asdict(r) for r in rows]}, indent=1) + "\n")
            write_page()
    print(table(rows))


def _kept(args: argparse.Namespace) -> list[Row]:
    """Earlier results that are not measured again."""
    if not args.update or not args.out.exists():
        return []
    again = {(n, m) for n in args.networks.split(",") for m in args.methods.split(";")}
    rows = [Row(**row) for row in json.loads(args.out.read_text(encoding="utf-8"))["rows"]]
    return [row for row in rows if (row.network, row.method) not in again]


def write_page() -> None:
    """Put the tables of all results that there are between the markers of docs/performance.md."""
    for file in sorted((ROOT / "benchmarks/results").glob("cpu*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        machine = found["machine"]
        where = f"{machine['processor']}, {machine['threads']} threads, batch {machine['batch']}"
        said = f"{where}, ONNX Runtime {machine['onnxruntime']}."
        put(ROOT / "docs/performance.md", file.stem, f"{said}\n\n{table([Row(**row) for row in found['rows']])}")


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
