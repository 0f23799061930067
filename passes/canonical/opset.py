"""One opset in, so that rules need to know one form of each operator."""

from __future__ import annotations

import re

import onnx
from onnx import version_converter

from onnxplain.errors import UnsupportedModel
from onnxplain.ir.load import Source
from onnxplain.passes.base import Pass, Report

LOW, HIGH = 20, 21
"""What is written. From 22 on, ONNX Runtime lacks CUDA kernels for MaxPool and others."""

NEWEST = 26
OLDEST = 7


class ConvertOpset(Pass[Source]):
    """Bring the standard domain to opset 20, or 21 where the model is newer than 20."""

    def requires(self, source: Source) -> None:
        version = opset_of(source.proto)
        if version > NEWEST:
            raise UnsupportedModel(
                f"{source.name} uses opset {version}; up to {NEWEST} can be read.\n  Export it with an older opset."
            )

    def run(self, source: Source) -> Report:
        have = opset_of(source.proto)
        want = LOW if have <= LOW else HIGH
        if have == want:
            return Report()
        # What was inferred for the old form may contradict the new one.
        del source.proto.graph.value_info[:]
        # Before version 4 every weight had to be an input too, and the converter insists.
        source.proto.ir_version = max(source.proto.ir_version, 4)
        try:
            converted = version_converter.convert_version(source.proto, want)
        except Exception as error:  # the converter's C++ side raises whatever it likes
            raise UnsupportedModel(
                f"{source.name} (opset {have}) cannot be converted to opset {want}: {_reason(error)}.\n"
                f"  Export the model with an opset between {LOW} and {HIGH}."
            ) from None
        source.proto.CopyFrom(converted)
        return Report(1)

    def ensures(self, source: Source) -> None:
        assert opset_of(source.proto) in (LOW, HIGH)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard domain that a model imports, 1 where it names none."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def _reason(error: Exception) -> str:
    """The converter's message without its source positions."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return re.sub(r"^\S+\.(?:h|cc|cpp):\d+:?\s*(?:\w+:\s*)?", "", text).rstrip(". ")
