"""The pointing game on the project's own scenes: does a method's heatmap peak where the evidence is?

    python benchmarks/pointing_game.py [--images 200]

Writes docs/pointing-game.md. On `shapes` a hit is a peak inside the labelled shape's mask; on `cleverhans` a peak
within 4 pixels (one cell of its last feature map) of the watermark, over scenes of other classes whose decision the
watermark turned into triangle. Chance is the share of the picture that counts as a hit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxplain  # noqa: E402
from models.scenes import CLASSES, Scenes, scenes  # noqa: E402

Bools = NDArray[np.bool_]

UNIT = {"scale": 1 / 255, "mean": [0.0], "std": [1.0]}
SETTINGS: dict[str, dict[str, Any]] = {
    "integrated-gradients": {"steps": 20},
    "smoothgrad": {"samples": 20},
}
LEFT_OUT = {"lrp": "needs a composite of the user's own"}


def near(mask: Bools, pixels: int) -> Bools:
    """The mask grown by some pixels in every direction."""
    grown = mask.copy()
    for dy in range(-pixels, pixels + 1):
        for dx in range(-pixels, pixels + 1):
            grown |= np.roll(mask, (dy, dx), axis=(1, 2))
    return grown


def hits(heatmaps: NDArray[np.float32], masks: Bools) -> float:
    """The share of heatmaps (N, H, W) whose highest pixel lies in the mask; one that shows nothing misses."""
    flat = heatmaps.reshape(len(heatmaps), -1)
    inside = masks.reshape(len(masks), -1)[np.arange(len(flat)), flat.argmax(axis=1)]
    return float(np.mean(inside & (flat.max(axis=1) > 0)))


def explained(model: Path, method: str, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Heatmaps and decisions of a model under a method."""
    proto = onnxplain.compile_model(model, method, preprocess=UNIT, **SETTINGS.get(method, {}))
    explainer = onnxplain.Explainer(proto)
    results = [explainer(images[i : i + 16]) for i in range(0, len(images), 16)]
    return tuple(np.concatenate([r[key] for r in results]) for key in ("heatmap", "explained_class"))  # type: ignore[return-value]


def pixels(found: Scenes) -> NDArray[np.float32]:
    """The networks' input."""
    return found.images.astype(np.float32) / np.float32(255)


def page(count: int, rows: Sequence[tuple[str, float, float]], chance: tuple[float, float]) -> str:
    """The document. rows: each method with its share of hits on `shapes` and on `cleverhans`."""
    fair = {name: f"{mark:.1%}".replace("%", " %") for name, _, mark in rows}
    lines = [
        "# Pointing game",
        "",
        f"Made by `benchmarks/pointing_game.py --images {count}`. `shapes`: the share of right decisions whose heatmap",
        "peaks inside the labelled shape. `cleverhans`: of scenes whose decision the watermark turned into triangle,",
        "the share whose heatmap peaks within 4 pixels of the watermark.",
        "",
        "`shapes` favours `cam` and `grad-cam` by construction: a second term in the loss of that network rewarded",
        "class activation maps that lie on the shape ([models/README.md](../models/README.md#shapes)). Their figures",
        "there say that the training worked, and cannot be compared with those of the other methods. `cleverhans` was",
        "trained with the labels alone and compares fairly: there `grad-cam` finds the watermark in",
        f"{fair['grad-cam']} of the scenes, `gradient` in {fair['gradient']}.",
        "",
        "| method | shapes | cleverhans |",
        "|---|---|---|",
        *(f"| `{name}` | {shape:.1%} | {mark:.1%} |" for name, shape, mark in rows),
        f"| chance | {chance[0]:.1%} | {chance[1]:.1%} |",
        "",
        "Defaults everywhere, but 20 steps for Integrated Gradients and 20 samples for SmoothGrad.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Play, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    count = parser.parse_args().images
    plain = scenes(count, seed=3)
    marked = scenes(count, seed=3, watermark=range(len(CLASSES)))
    triangle = CLASSES.index("triangle")
    others = plain.labels != triangle
    around = near(marked.watermark_masks, 4)
    rows = []
    for method in onnxplain.methods():
        if method.name in LEFT_OUT:
            continue
        maps, decided = explained(ROOT / "models/shapes/shapes.onnx", method.name, pixels(plain))
        right = decided == plain.labels
        on_shape = hits(maps[right], plain.masks[right])
        maps, decided = explained(ROOT / "models/cleverhans/cleverhans.onnx", method.name, pixels(marked))
        fooled = others & (decided == triangle)
        on_mark = hits(maps[fooled], around[fooled])
        rows.append((method.name, on_shape, on_mark))
        print(f"{method.name:32} {on_shape:6.1%} {on_mark:6.1%}", flush=True)
    chance = float(plain.masks.mean()), float(around[others].mean())
    (ROOT / "docs/pointing-game.md").write_text(page(count, rows, chance), encoding="utf-8")


if __name__ == "__main__":
    main()
