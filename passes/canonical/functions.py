"""Local functions, inlined: a rule is for an operator, and a function is none."""

from __future__ import annotations

from onnx import inliner

from onnxplain.ir.load import Source
from onnxplain.passes.base import Pass, Report


class InlineFunctions(Pass[Source]):
    """Replace calls of the model's local functions by their bodies."""

    def run(self, source: Source) -> Report:
        count = len(source.proto.functions)
        if count:
            source.proto.CopyFrom(inliner.inline_local_functions(source.proto))
            del source.proto.functions[:]  # what is left is called by no node
        return Report(count)

    def ensures(self, source: Source) -> None:
        assert not source.proto.functions
