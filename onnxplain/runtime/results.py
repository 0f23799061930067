"""A folder of explanations: for each picture an overlay, the raw attribution, and a line that says what it is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onnxplain import interface
from onnxplain.errors import UsageError
from onnxplain.ir.save import replacing
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.feeds import Array
from onnxplain.runtime.overlay import overlay
from onnxplain.runtime.scores import class_scores

LINES = "explanations.jsonl"
"""The file in the folder that holds one JSON object for each map."""

Record = dict[str, Any]


@dataclass
class Results:
    """Where explanations are written.

    sources:  the pictures, none of which is overwritten.
    colormap, alpha: see `overlay`.
    labels:   names of the classes by index.

    Used as a context: the lines are written at the end, also of a run that was interrupted.
    """

    folder: Path
    explain: Explainer
    sources: Sequence[Path]
    colormap: str
    alpha: float
    labels: Mapping[int, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    _taken: set[str] = field(default_factory=set)

    def __enter__(self) -> Results:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the folder {self.folder}: {error.strerror}.") from None
        return self

    def __exit__(self, *raised: object) -> None:
        with replacing(self.folder / LINES) as file:
            file.writelines(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in self.records)

    def add(self, source: Path, seen: Image.Image, result: Mapping[str, Array]) -> list[Record]:
        """Write what a call returned for one picture. Returns: a record for each map, by method and rank."""
        methods = self.explain.metadata.method.split(",")
        ranks = len(self._of(result, interface.CLASS))
        endings = {
            (method, rank): (f".{method}" if len(methods) > 1 else "") + (f".{rank + 1}" if ranks > 1 else "")
            for method in methods
            for rank in range(ranks)
        }
        stem = self._stem(source, list(endings.values()))
        added = []
        for method in methods:
            suffix = f"_{method}" if len(methods) > 1 else ""
            heatmaps = self._of(result, interface.HEATMAP + suffix)
            attributions = self._of(result, interface.ATTRIBUTION + suffix)
            for rank, heatmap in enumerate(heatmaps):
                name = stem + endings[method, rank]
                record = self._record(source, method, suffix, rank, result)
                missing = int(np.count_nonzero(~np.isfinite(attributions[rank])))
                if missing:
                    record["not_finite"] = missing
                self._write(name, overlay(seen, heatmap, self.colormap, self.alpha), attributions[rank])
                added.append(record | {"overlay": f"{name}.png", "attribution": f"{name}.npy"})
        self.records += added
        return added

    def _of(self, result: Mapping[str, Array], role: str) -> Array:
        """What belongs to the only sample, with an axis of ranks: one, or K under topk:K."""
        array: Array = result[self.explain.key(role)][0]
        ranked = result[self.explain.key(interface.CLASS)].ndim == 2
        return array if ranked else array[None]

    def _record(self, source: Path, method: str, suffix: str, rank: int, result: Mapping[str, Array]) -> Record:
        classes = self._of(result, interface.CLASS)
        index = int(classes[rank])
        record: Record = {"file": str(source), "method": method, "class": index}
        if index in self.labels:
            record["label"] = self.labels[index]
        record["score"] = _number(self._of(result, interface.SCORE)[rank])
        output = result.get(str(self.explain.metadata.parameters.get("output")))
        scores = None if output is None else class_scores(output, self.explain.metadata.parameters)
        if scores is not None:
            record["predicted"] = int(scores[0].argmax())
        if len(classes) > 1:
            record["rank"] = rank + 1
        if interface.RESIDUAL + suffix in self.explain.metadata.outputs:
            record["residual"] = _number(self._of(result, interface.RESIDUAL + suffix)[rank])
        return record

    def _write(self, name: str, picture: Image.Image, attribution: Array) -> None:
        with replacing(self.folder / f"{name}.png") as file:
            picture.save(file, format="PNG")
        with replacing(self.folder / f"{name}.npy") as file:
            np.save(file, attribution)

    def _stem(self, source: Path, endings: Sequence[str]) -> str:
        """How the names of a picture's files begin: none is another's of this run, or that of a picture of this run."""
        kept = {path.resolve() for path in self.sources}

        def free(stem: str) -> bool:
            return not any(
                (stem + ending).casefold() in self._taken
                or (self.folder / f"{stem}{ending}.png").resolve() in kept
                or (self.folder / f"{stem}{ending}.npy").resolve() in kept
                for ending in endings
            )

        numbered = (f"{source.stem}-{number}" for number in count(2))
        stem = next(stem for stem in chain([source.stem], numbered) if free(stem))
        self._taken.update((stem + ending).casefold() for ending in endings)
        return stem


def read_labels(path: str | Path) -> list[str] | dict[int, str]:
    """Names of classes: a text file with one in each line, or JSON, a list or {"0": name, ...}. Raises: UsageError."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
        if path.suffix.lower() != ".json":
            return [line.strip() for line in text.rstrip().splitlines()]
        entries = json.loads(text)
        if isinstance(entries, dict):
            return {int(index): str(label) for index, label in entries.items()}
        return [str(label) for label in entries]
    except OSError as error:
        raise UsageError(f"labels cannot be read from {path}: {error.strerror}.") from None
    except (ValueError, TypeError):
        raise UsageError(
            f"{path} does not hold labels: one in each line, or JSON, a list or an object of indices."
        ) from None


def labels_by_class(names: list[str] | dict[int, str], classes: int | None, path: Path) -> dict[int, str]:
    """The names by class. One name too many, such as that of a background, would shift all others.

    Raises: UsageError if they are not of these classes.
    """
    if isinstance(names, list):
        if classes not in (None, len(names)):
            raise UsageError(
                f"{path} has {len(names)} labels, and the model has {classes} classes.\n"
                "  Give one for each class, in their order, or a JSON object by index for some of them."
            )
        return dict(enumerate(names))
    for index in names:
        if index < 0 or (classes is not None and index >= classes):
            known = "classes count from 0" if classes is None else f"the model's classes are 0 to {classes - 1}"
            raise UsageError(f"{path} has a label for class {index}: {known}.")
    return names


def _number(value: Any) -> float | None:
    """A number as JSON can hold it."""
    number = float(value)
    return number if math.isfinite(number) else None
