"""The compiled graph's interface: names and metadata that users' code and other languages depend on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PREFIX = "onnxplain_"

TARGET, BASELINE, NOISE = "target", "baseline", "noise"
DIAGNOSTICS = "diagnostics"
ATTRIBUTION, HEATMAP, CLASS, SCORE, RESIDUAL = (
    "attribution",
    "heatmap",
    "explained_class",
    "explained_score",
    "residual",
)


@dataclass
class Names:
    """Hands out the names of inputs and outputs; one that the model already uses gets a prefix."""

    taken: set[str]

    @staticmethod
    def beside(used: Iterable[str]) -> Names:
        return Names(set(used))

    def pick(self, name: str) -> str:
        """The name, or its prefixed form where the model has a tensor of that name."""
        chosen = name
        while chosen in self.taken:
            chosen = PREFIX + chosen
        self.taken.add(chosen)
        return chosen


@dataclass(frozen=True)
class Metadata:
    """What a compiled graph says of itself, under the keys `onnxplain.*`.

    outputs:    what each output is: {"attribution": <name>, "heatmap_grad-cam": <name>, ...}.
    parameters: of each method, with the target, the layout and the like.
    preprocess: how a picture becomes the input, or None where it was not said.
    diagnostics: the rows of that output: (node, operator, rule), from the score to the input.
    """

    version: str
    method: str
    parameters: dict[str, Any]
    source_sha256: str
    outputs: dict[str, str]
    inputs: dict[str, str]
    preprocess: dict[str, Any] | None = None
    diagnostics: list[tuple[str, str, str]] | None = None

    def entries(self) -> dict[str, str]:
        """As ONNX metadata_props."""
        entries = {
            "onnxplain.version": self.version,
            "onnxplain.method": self.method,
            "onnxplain.parameters": json.dumps(self.parameters, sort_keys=True),
            "onnxplain.source_sha256": self.source_sha256,
            "onnxplain.outputs": json.dumps(self.outputs),
            "onnxplain.inputs": json.dumps(self.inputs),
        }
        if self.preprocess is not None:
            entries["onnxplain.preprocess"] = json.dumps(self.preprocess, sort_keys=True)
        if self.diagnostics is not None:
            entries["onnxplain.diagnostics"] = json.dumps(self.diagnostics)
        return entries

    @staticmethod
    def read(props: dict[str, str]) -> Metadata | None:
        """From a model's metadata_props; None if the model was not compiled by this package."""
        if "onnxplain.outputs" not in props:
            return None
        return Metadata(
            version=props.get("onnxplain.version", ""),
            method=props.get("onnxplain.method", ""),
            parameters=json.loads(props.get("onnxplain.parameters", "{}")),
            source_sha256=props.get("onnxplain.source_sha256", ""),
            outputs=json.loads(props["onnxplain.outputs"]),
            inputs=json.loads(props.get("onnxplain.inputs", "{}")),
            preprocess=json.loads(props["onnxplain.preprocess"]) if "onnxplain.preprocess" in props else None,
            diagnostics=[tuple(row) for row in json.loads(props["onnxplain.diagnostics"])]
            if "onnxplain.diagnostics" in props
            else None,
        )
