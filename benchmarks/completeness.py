"""How complete Integrated Gradients are on trained models: the residual as a share of the score's difference.

    python benchmarks/completeness.py [--images 16]

Writes docs/methods.md between its markers. Models of other makers take part where a folder ../shared holds them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxplain  # noqa: E402
from benchmarks.page import put  # noqa: E402
from tests.catalogue import SPECIMENS, Specimen  # noqa: E402

Shares = NDArray[np.float64]

COLUMNS = (("gauss-legendre", 50), ("trapezoid", 50), ("middle", 50), ("gauss-legendre", 200))


def shares(specimen: Specimen, quadrature: str, steps: int, count: int) -> Shares:
    """|residual| / |S(x) - S(x')| of each picture, from a baseline of zeros."""
    proto = onnxplain.compile_model(specimen.load(), "integrated-gradients", quadrature=quadrature, steps=steps)
    explain = onnxplain.Explainer(proto)
    found = []
    for image in specimen.images(count, 0):
        result = explain(image[None])
        residual = float(result["residual"][0])
        found.append(abs(residual / (residual + float(result["attribution"].sum()))))
    return np.asarray(found)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    count = parser.parse_args().images
    head = " | ".join(f"{quadrature}, {steps}" for quadrature, steps in COLUMNS)
    lines = [f"| model | {head} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for specimen in SPECIMENS:
        if not specimen.trained or specimen.missing:
            continue
        cells = [shares(specimen, quadrature, steps, count) for quadrature, steps in COLUMNS]
        said = " | ".join(f"{np.median(c):.2%}, {c.max():.2%}, {np.sum(c <= 0.01)}/{count}" for c in cells)
        lines.append(f"| {specimen.name} | {said} |")
        print(lines[-1], flush=True)
    put(ROOT / "docs/methods.md", "completeness", "\n".join(lines))


if __name__ == "__main__":
    main()
