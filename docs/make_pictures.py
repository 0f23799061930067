"""The pictures in README.md and docs/, made from the project's own models and samples.

    python docs/make_pictures.py

Writes docs/pictures/methods.png and docs/pictures/cleverhans.png. Each picture is one run of one compiled graph: all
methods of its columns are compiled together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont, ImageOps

import onnxplain
from onnxplain.runtime.images import PictureInput, read
from onnxplain.runtime.overlay import overlay
from onnxplain.runtime.preprocess import Preprocess

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs/pictures"

TIMES, GAP, MARGIN = 2, 8, 12
"""How much samples are enlarged; pixels between and around them."""

ALPHA = 0.6
TEXT, PAPER = (32, 32, 32), (255, 255, 255)

COLUMNS = (
    "gradient",
    "guided-backprop",
    "smoothgrad",
    "integrated-gradients",
    "deeplift",
    "lrp-eps",
    "lrp-composite",
    "grad-cam",
    "fem",
)
SAMPLES = ("0003_square", "0000_cross", "0006_heart", "0011_triangle")
STORY = ("deeplift", "grad-cam", "lrp-composite")
SCENES = ("0001_circle", "0006_heart")


@dataclass(frozen=True)
class Cell:
    """A picture with words under it."""

    image: Image.Image
    below: str = ""
    bold: bool = False


def explained(model: Path, methods: Sequence[str], samples: Sequence[Path]) -> list[tuple[str, list[Cell]]]:
    """For each sample the decision, then the sample itself and what each method shows of it."""
    proto = onnxplain.compile_model(model, ",".join(methods), preprocess="unit")
    explain = onnxplain.Explainer(proto, "cpu")
    labels = (model.parent / "labels.txt").read_text(encoding="utf-8").split()
    pictures = PictureInput.of(explain.input, explain.layout, Preprocess.named("unit"))
    rows = []
    for path in samples:
        sample, seen = pictures.prepare(read(path))
        result = explain(sample)
        share = probability(result[str(explain.metadata.parameters["output"])][0])
        found = labels[int(result["explained_class"][0])]
        grey = ImageOps.autocontrast(seen.convert("L"), cutoff=1)
        maps = [overlay(grey, result[f"heatmap_{method}"][0], alpha=ALPHA) for method in methods]
        rows.append((f"{found} {share:.0%}", [Cell(enlarged(image)) for image in (seen, *maps)]))
    return rows


def probability(scores: np.ndarray) -> float:
    """What a softmax gives the best class."""
    return float(1 / np.exp(scores - scores.max()).sum())


def enlarged(image: Image.Image) -> Image.Image:
    """At TIMES the samples' size of 64 pixels, each pixel a square."""
    return image.resize((64 * TIMES, 64 * TIMES), Image.Resampling.NEAREST)


def font(size: int, weight: str = "normal") -> ImageFont.FreeTypeFont:
    """The font that Matplotlib brings, so that pictures look the same everywhere."""
    name = font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight=weight))
    return ImageFont.truetype(name, size)


def grid(header: Sequence[str], rows: Sequence[Sequence[Cell]], apart: int | None = None) -> Image.Image:
    """Cells in rows and columns; a long name at the top of a column takes two lines.

    apart: the column before which a wider gap is left.
    """
    side, small, line = 64 * TIMES, font(15), 19
    above = line * max(len(lines(text)) for text in header) + 6
    below = line + 4 if any(cell.below for row in rows for cell in row) else 0
    lefts = [
        MARGIN + i * (side + GAP) + (3 * GAP if apart is not None and i >= apart else 0) for i in range(len(header))
    ]
    size = (
        lefts[-1] + side + MARGIN,
        2 * MARGIN + above + len(rows) * (side + below) + (len(rows) - 1) * GAP,
    )
    paper = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(paper)
    for column, text in enumerate(header):
        for i, part in enumerate(reversed(lines(text))):
            draw.text((lefts[column] + side // 2, MARGIN + above - 6 - line * i), part, TEXT, small, anchor="md")
    for i, row in enumerate(rows):
        top = MARGIN + above + i * (side + below + GAP)
        for left, cell in zip(lefts, row, strict=True):
            paper.paste(cell.image, (left, top))
            words = font(15, "bold") if cell.bold else small
            draw.text((left + side // 2, top + side + 4), cell.below, TEXT, words, anchor="ma")
    return paper


def lines(text: str) -> list[str]:
    """A method's name in as many lines as a column is wide.

    >>> lines("integrated-gradients")
    ['integrated-', 'gradients']
    """
    head, hyphen, tail = text.rpartition("-")
    return [f"{head}-", tail] if hyphen and len(text) > 13 else [text]


def save(image: Image.Image, name: str) -> None:
    """Write a picture, its colours in steps of four: nobody sees it, and the file is a third smaller."""
    path = PICTURES / name
    path.parent.mkdir(exist_ok=True)
    image.point(lambda value: value // 4 * 4 + 2).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {image.width}x{image.height}, {path.stat().st_size // 1024} KB")


def methods_picture() -> Image.Image:
    """Scenes of models/shapes, and what each method shows of them."""
    folder = ROOT / "models/shapes"
    rows = explained(folder / "shapes.onnx", COLUMNS, [folder / f"samples/{name}.png" for name in SAMPLES])
    cells = [[Cell(row[0].image, said), *row[1:]] for said, row in rows]
    return grid(["", *COLUMNS], cells)


def story() -> Image.Image:
    """Scenes without and with the watermark, side by side, and where each decision looks."""
    folder = ROOT / "models/cleverhans"
    names = [f"{name}{mark}" for name in SCENES for mark in ("", "_watermark")]
    rows = explained(folder / "cleverhans.onnx", STORY, [folder / f"samples/{name}.png" for name in names])
    cells = [[Cell(row[0].image, said, said.startswith("triangle")), *row[1:]] for said, row in rows]
    sides: Mapping[int, list[list[Cell]]] = {k: cells[k::2] for k in (0, 1)}
    both = [[*plain, *marked] for plain, marked in zip(sides[0], sides[1], strict=True)]
    return grid(["as it is", *STORY, "with watermark", *STORY], both, apart=1 + len(STORY))


def main() -> None:
    """Make them all."""
    save(methods_picture(), "methods.png")
    save(story(), "cleverhans.png")


if __name__ == "__main__":
    main()
