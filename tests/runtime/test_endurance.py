"""Explanations do not get slower, and memory does not creep."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import onnxplain
from tests.catalogue import SPECIMENS

RUN = """
import json, sys, time
import numpy as np
import onnxplain

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def busy(work):
    began = time.process_time()
    work()
    return time.process_time() - began

def yardstick():
    matrices @ matrices

explain = onnxplain.Explainer(sys.argv[1], "cpu", threads=1)
matrices = np.random.default_rng(0).normal(size=(100, 48, 48))
runs, shape = int(sys.argv[2]), [2 if isinstance(d, str) else d for d in explain.input.shape]
images = [np.random.default_rng(i).uniform(size=shape).astype(np.float32) for i in range(10)]
took, memory = [], []
for i in range(runs):
    before = busy(yardstick)
    took.append(busy(lambda: explain(images[i % 10])) / (before + busy(yardstick)))
    if i in (runs // 10, runs - 1):
        memory.append(resident())
part = runs // 10
print(json.dumps([*(float(np.median(t)) for t in (took[part : 2 * part], took[-part:])), *memory]))
"""


def endured(folder: Path, method: str, runs: int) -> tuple[float, float]:
    """How much longer the last tenth of the runs took than the second, and by how many bytes the process grew.

    Each run is measured in matrix products before and behind it, since a shared machine slows down for minutes.
    """
    if not Path("/proc/self/statm").exists():
        pytest.skip("the size of a process is read from /proc")
    (digits,) = (s for s in SPECIMENS if s.name == "digits")
    onnxplain.compile_file(digits.load(), folder / "explained.onnx", method)
    command = [sys.executable, "-c", RUN, str(folder / "explained.onnx"), str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, last, before, after = json.loads(done.stdout)
    return last / first, after - before


def steadiest(folder: Path, method: str, runs: int) -> tuple[float, float]:
    """The best of at most three measurements: what grows with the runs grows in each, other programs come and go."""
    found = [endured(folder, method, runs)]
    while found[-1][0] >= 1.5 and len(found) < 3:
        found.append(endured(folder, method, runs))
    return min(slower for slower, _ in found), max(growth for _, growth in found)


def test_a_thousand_runs(tmp_path: Path) -> None:
    slower, growth = steadiest(tmp_path, "gradient,lrp-eps", 1000)
    assert growth < 4e6
    assert slower < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradient,grad-cam,lrp-epsilon-plus", "deeplift", "integrated-gradients"])
def test_ten_thousand_runs(tmp_path: Path, method: str) -> None:
    slower, growth = steadiest(tmp_path, method, 10_000)
    print(f"{method}: the last thousand took {slower:.2f} times as long, the process grew by {growth / 1e6:.1f} MB")
    assert growth < 4e6
    assert slower < 1.5
