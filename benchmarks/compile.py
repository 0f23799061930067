"""What compiling takes: time, and how much larger the file becomes.

    python benchmarks/compile.py [--models 'light_resnet50,shapes'] [--methods gradient,grad-cam]

The goal for ResNet-50 is less than 3 seconds and at most 1.1 times the model's size. Models come from
tests/catalogue.py: the architectures of the `onnx` package with seeded weights, the project's own, and those in
../shared. Each is written to a file first, as a user has it; the time is that of `onnxplain.compile_file`, from file to
file, the best of three. On a busy machine it says little, so the processor's time stands beside it, which the goal is
held against: compiling uses one core.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxplain  # noqa: E402
from tests.catalogue import SPECIMENS, Specimen  # noqa: E402

SECONDS, TIMES = 3.0, 1.1
"""The goal for GOAL."""

GOAL = "light_resnet50"
MODELS = "light_resnet50,light_densenet121,light_squeezenet,light_inception_v2,shapes,cifar10_vit,vww_96"
METHODS = "gradient,guided-backprop,grad-cam,lrp-eps,lrp-epsilon-plus,deeplift,integrated-gradients,smoothgrad"


@dataclass(frozen=True)
class Row:
    """One method compiled into one model."""

    model: str
    method: str
    seconds: float
    busy: float
    before: int
    after: int

    @property
    def times(self) -> float:
        return self.after / self.before

    def __str__(self) -> str:
        size = f"{self.before / 1e6:8.2f} MB -> {self.after / 1e6:8.2f} MB"
        taken = f"{self.seconds:6.2f} s ({self.busy:.2f} s busy)"
        return f"{self.model:20} {self.method:22} {taken}  {size}  {self.times:5.2f}x"


def compiled(specimen: Specimen, methods: Sequence[str], runs: int) -> list[Row]:
    """Each method on one model; one that refuses the model is said and left out."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model, explained = Path(folder) / "model.onnx", Path(folder) / "explained.onnx"
        onnx.save(specimen.load(), model)
        for method in methods:
            taken: list[tuple[float, float]] = []
            try:
                for _ in range(runs):
                    began, busy = time.perf_counter(), time.process_time()
                    files = onnxplain.compile_file(model, explained, method)
                    taken.append((time.perf_counter() - began, time.process_time() - busy))
            except onnxplain.OnnxplainError as error:
                print(f"{specimen.name:20} {method:22} {str(error).splitlines()[0]}", flush=True)
                continue
            after = sum(file.stat().st_size for file in files)
            rows.append(
                Row(
                    specimen.name,
                    method,
                    min(t for t, _ in taken),
                    min(b for _, b in taken),
                    model.stat().st_size,
                    after,
                )
            )
            print(rows[-1], flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run. Returns: the exit status, 1 if ResNet-50 misses the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=MODELS, metavar="PATTERN[,PATTERN]")
    parser.add_argument("--methods", default=METHODS, metavar="NAME[,NAME]")
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args(arguments)
    patterns = asked.models.split(",")
    chosen = [s for s in SPECIMENS if not s.missing and any(fnmatchcase(s.name, p) for p in patterns)]
    rows = [row for s in chosen for row in compiled(s, asked.methods.split(","), asked.runs)]
    goal = [row for row in rows if row.model == GOAL]
    missed = [row for row in goal if row.busy >= SECONDS or row.times > TIMES]
    if goal:
        print(f"\n{GOAL}: goal less than {SECONDS:g} s and at most {TIMES:g} times the size")
        print("\n".join(f"  missed by {row.method}: {row.busy:.2f} s, {row.times:.2f}x" for row in missed) or "  met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
