"""Passes that change what a graph costs and never what it computes."""

from __future__ import annotations

from collections.abc import Mapping

from onnxplain.ir.model import Model
from onnxplain.passes.base import Pass
from onnxplain.passes.optimise.blocked import BlockedMasks, EnterBlockedLayout
from onnxplain.passes.optimise.convolution import FlipUnitStride
from onnxplain.passes.optimise.dead_code import DropDeadCode

LOWERING: Mapping[str, tuple[Pass[Model], ...]] = {
    "portable": (DropDeadCode(),),
    "cpu": (DropDeadCode(), FlipUnitStride(), BlockedMasks(), DropDeadCode(), EnterBlockedLayout()),
    "cuda": (DropDeadCode(),),
}
"""What is done last, by the runtime that the graph is for. No rule knows of it."""
