"""What compiling takes: seconds, the size of the file, memory, and how time grows with the number of nodes.

    python benchmarks/compile.py                                      # the tables of docs/performance.md
    python benchmarks/compile.py --models 'light_*,shapes' --methods gradient,grad-cam     # printed only

Goals: ResNet-50 in less than a second and at most 1.1 times the model's size; a transformer of 1.2 GB, the size of
ViT-L, in less than 10 seconds with less than 1.5 times the model in memory; time linear in nodes. Each model is a file,
as a user has it, and compiled by a process of its own, from file to file; the time, best of three, is without starting
Python and importing. Models that are asked for by name come from tests/catalogue.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxplain  # noqa: E402
from benchmarks.page import put  # noqa: E402
from tests.catalogue import SPECIMENS  # noqa: E402
from tests.ir.test_compile_cost import Cost, cost, growth, transformer  # noqa: E402

LARGE = "24 layers of a transformer, width 1024"
METHODS = ("gradient", "grad-cam", "lrp-eps", "lrp-epsilon-plus", "deeplift-rescale", "integrated-gradients")
GROWING = {"gradient": {}, "lrp-eps": {}, "deeplift-rescale": {}, "integrated-gradients": {"steps": 2}}
RUNTIMES = ("portable", "cpu", "cuda")


@dataclass(frozen=True)
class Goal:
    """Less than so many seconds, and at most so many times the model's size in the file and in memory."""

    seconds: float
    file: float
    memory: float


GOALS = {"ResNet-50": Goal(1.0, 1.1, 1.5), LARGE: Goal(10.0, 1.1, 1.5)}


@dataclass(frozen=True)
class Row:
    """One method compiled into one model, for one runtime."""

    model: str
    size: int
    method: str
    runtime: str
    cost: Cost

    def __str__(self) -> str:
        file, memory = self.cost.written / self.size, self.cost.memory / self.size
        return (
            f"| {self.model} | {self.size / 1e6:.1f} MB | `{self.method}` | {self.runtime} | {self.cost.seconds:.2f} "
            f"| {file:.2f} | {memory:.2f} |"
        )

    @property
    def missed(self) -> bool:
        goal = GOALS.get(self.model)
        found = (self.cost.seconds, self.cost.written / self.size, self.cost.memory / self.size)
        return goal is not None and not all(
            a <= b for a, b in zip(found, (goal.seconds, goal.file, goal.memory), strict=True)
        )


HEAD = (
    "| model | size | method | for | seconds | file, times the model | memory, times the model |",
    "|---|---|---|---|---|---|---|",
)


def rows(model: Path, name: str, methods: Sequence[str], runtimes: Sequence[str], runs: int) -> list[Row]:
    """Each method on one model; one that refuses the model is said and left out."""
    found = []
    for method in methods:
        try:
            onnxplain.compile_file(model, model.with_suffix(".tried.onnx"), method)
        except onnxplain.OnnxplainError as error:
            print(f"{name}, {method}: {str(error).splitlines()[0]}", flush=True)
            continue
        for runtime in runtimes:
            costs = [cost(model, method, runtime) for _ in range(runs)]
            best = min(costs, key=lambda c: c.seconds)
            found.append(Row(name, model.stat().st_size, method, runtime, best))
            print(found[-1], flush=True)
    return found


def goals(runs: int, folder: Path) -> list[Row]:
    """The models that there are goals for."""
    from benchmarks.speed import export

    resnet = export("ResNet-50", folder)[1]
    found = rows(resnet, "ResNet-50", METHODS, RUNTIMES, runs)
    resnet.unlink()
    transformer(folder / "model.onnx", 24, 1024)
    return found + rows(folder / "model.onnx", LARGE, ("gradient", "lrp-epsilon-plus"), RUNTIMES[:1], runs)


def chains(runs: int) -> list[str]:
    """How many times as long a chain of 10,000 nodes takes as one of 1,000, by method and runtime."""
    lines = ["| method | " + " | ".join(RUNTIMES) + " |", "|---" * (len(RUNTIMES) + 1) + "|"]
    for method, settings in GROWING.items():
        cells = [f"{growth(1000, method, runtime, runs, **settings):.1f}" for runtime in RUNTIMES]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run. Returns: the exit status, 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", metavar="PATTERN[,PATTERN]", help="models of tests/catalogue.py")
    parser.add_argument("--methods", default=",".join(METHODS), metavar="NAME[,NAME]", help="with --models")
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args(arguments)
    print("\n".join(HEAD), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if asked.models:
            patterns = asked.models.split(",")
            for specimen in SPECIMENS:
                if not specimen.missing and any(fnmatchcase(specimen.name, p) for p in patterns):
                    path = Path(folder) / f"{specimen.name}.onnx"
                    onnx.save(specimen.load(), path)
                    rows(path, specimen.name, asked.methods.split(","), RUNTIMES, asked.runs)
            return 0
        found = goals(asked.runs, Path(folder))
    page = ROOT / "docs/performance.md"
    put(page, "compiling", "\n".join([*HEAD, *map(str, found)]))
    put(page, "growth", "\n".join(chains(asked.runs)))
    missed = [row for row in found if row.missed]
    print("\n".join(f"missed: {row}" for row in missed) or "all goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
