"""What relevance keeps and which sign it has, on the samples of `shapes`.

    python benchmarks/conservation.py

Writes docs/lrp.md between its markers: for each method, under its defaults, how far the sum of the map is from what it
should be, as a share of the score, and which part of the map's magnitude is negative.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxplain  # noqa: E402
from benchmarks.page import put  # noqa: E402
from onnxplain.runtime.images import PictureInput, find, read  # noqa: E402
from onnxplain.runtime.preprocess import Preprocess  # noqa: E402

METHODS = (
    "lrp-0",
    "lrp-eps",
    "lrp-gamma",
    "lrp-alphabeta",
    "lrp-zplus",
    "lrp-epsilon-plus",
    "lrp-epsilon-alpha2-beta1",
    "lrp-epsilon-gamma-box",
    "lrp-composite",
    "deep-taylor",
    "deep-taylor-bounded",
    "deeplift",
    "integrated-gradients",
)

Shares = NDArray[np.float64]


def shares(method: str) -> tuple[Shares, Shares, int]:
    """|residual| / |score| and the negative part of the sum of magnitudes, of each sample, and how many there are."""
    folder = ROOT / "models/shapes"
    explain = onnxplain.Explainer(onnxplain.compile_model(folder / "shapes.onnx", method, preprocess="unit"), "cpu")
    pictures = PictureInput.of(explain.input, explain.layout, Preprocess.named("unit"))
    missing, negative = [], []
    for path in find([folder / "samples"]):
        result = explain(pictures.prepare(read(path))[0])
        relevance = result["attribution"][0].astype(np.float64)
        missing.append(abs(float(result["residual"][0]) / float(result["explained_score"][0])))
        negative.append(-relevance[relevance < 0].sum() / (np.abs(relevance).sum() or 1))
    return np.asarray(missing), np.asarray(negative), len(missing)


def main() -> None:
    """Measure, print, write."""
    lines = ["| method | residual, median | largest | negative part, least | largest |", "|---|---|---|---|---|"]
    for method in METHODS:
        missing, negative, count = shares(method)
        found = f"{np.median(missing):.2g} | {missing.max():.2g} | {negative.min():.1%} | {negative.max():.1%}"
        lines.append(f"| `{method}` | {found} |")
        print(lines[-1], flush=True)
    put(ROOT / "docs/lrp.md", "conservation", "\n".join([f"{count} samples of `shapes`.", "", *lines]))


if __name__ == "__main__":
    main()
