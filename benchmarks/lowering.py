"""What each lowering for CPU brings, one added after the other: forward passes, and reorderings of the layout.

    python benchmarks/lowering.py [--turns 8] [--runs 5]

Writes docs/performance.md between its markers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxplain  # noqa: E402
from benchmarks.page import put  # noqa: E402
from benchmarks.settled import shortest  # noqa: E402
from benchmarks.speed import export  # noqa: E402
from onnxplain.ir.model import Model  # noqa: E402
from onnxplain.passes.base import Pass  # noqa: E402
from onnxplain.passes.optimise import LOWERING  # noqa: E402

COLUMNS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("ResNet-50", "gradient"): {},
    ("ResNet-50", "lrp-eps"): {},
    ("ResNet-50", "lrp-epsilon-gamma-box"): {"low": -3, "high": 3},
    ("ResNet-50", "lrp-epsilon-alpha2-beta1"): {},
    ("MobileNetV2", "gradient"): {},
    ("MobileNetV2", "lrp-eps"): {},
}
"""What is measured: network and method, and the method's settings."""

NONE = "nothing"
STEPS = {
    "BentLines": "gamma's denominators by LeakyRelu",
    "ShareOfItself": "`y d / (y + eps)` without the sign of y",
    "ShiftIntoBias": "stabilisers in biases",
    "FlipUnitStride": "flipped convolutions",
    "JoinedTransposes": "sums of strided transposed convolutions as one",
    "DepthwiseStrides": "strided depthwise convolutions by repetition",
    "PointStrides": "strided shortcuts before their zeros",
    "BlockedMasks": "masks in the blocked layout",
    "SteepClips": "choices between numbers by Clip",
    "ShiftInBlocks": "stabilised ReLUs by one operator",
    "EnterBlockedLayout": "ways back into the blocked layout",
}
"""Passes in the order in which they are added; those that touch none of these networks are left out."""


def variants() -> dict[str, tuple[Pass[Model], ...]]:
    """The lowering for CPU cut down to its first steps, by the name of the last."""
    found = {}
    for last in (NONE, *STEPS):
        left_out = list(STEPS)[list(STEPS).index(last) + 1 if last in STEPS else 0 :]
        found[last] = tuple(p for p in LOWERING["cpu"] if p.name not in left_out)
    return found


def cell(
    model: Path, explained: Path, method: str, settings: Mapping[str, Any], passes: tuple[Pass[Model], ...],
    turns: int, runs: int,
) -> str:  # fmt: skip
    """Forward passes, the shortest run over the shortest, and reorderings."""
    with patch("onnxplain.compiler.LOWERING", {**LOWERING, "cpu": passes}):
        onnxplain.compile_file(model, explained, method, runtime="cpu", **settings)
    found = shortest(model, explained, batch=1, runs=runs, turns=turns)
    reorders = found.nodes.get("nchwc.ReorderInput", 0) + found.nodes.get("nchwc.ReorderOutput", 0)
    return f"{found.passes:.2f} ({reorders})"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    lines = [
        "| lowering | " + " | ".join(f"{name}, `{method}`" for name, method in COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        models = {name: export(name, Path(folder))[1] for name in dict.fromkeys(name for name, _ in COLUMNS)}
        for last, passes in variants().items():
            cells = [
                cell(models[name], Path(folder) / "explained.onnx", method, settings, passes, args.turns, args.runs)
                for (name, method), settings in COLUMNS.items()
            ]
            lines.append(f"| {'and ' + STEPS[last] if last in STEPS else last} | " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    put(ROOT / "docs/performance.md", "lowering", "\n".join(lines))


if __name__ == "__main__":
    main()
