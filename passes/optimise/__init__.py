"""Passes that change what a graph costs and never what it computes."""

from __future__ import annotations

from collections.abc import Mapping

from onnxplain.ir.model import Model
from onnxplain.passes.base import Pass
from onnxplain.passes.optimise.blocked import EnterBlockedLayout
from onnxplain.passes.optimise.choices import BentLines, SteepClips
from onnxplain.passes.optimise.convolution import FlipDepthwise, FlipUnitStride
from onnxplain.passes.optimise.dead_code import DropDeadCode
from onnxplain.passes.optimise.joined import JoinedTransposes
from onnxplain.passes.optimise.kept import KeptByChoice
from onnxplain.passes.optimise.loops import OwnWeights
from onnxplain.passes.optimise.masks import BlockedMasks
from onnxplain.passes.optimise.means import MeanOfRepeats
from onnxplain.passes.optimise.picked import PickedRow
from onnxplain.passes.optimise.placement import CountOnDevice, WideDequantisation
from onnxplain.passes.optimise.repeats import RepeatedWinners
from onnxplain.passes.optimise.scatter import PlainScatter
from onnxplain.passes.optimise.shares import ShareOfItself
from onnxplain.passes.optimise.shifts import ShiftInBlocks, ShiftIntoBias
from onnxplain.passes.optimise.strides import DepthwiseStrides, PointStrides
from onnxplain.passes.optimise.winners import PlainWinners

_ANYWHERE = (
    DropDeadCode(),
    ShareOfItself(),
    DropDeadCode(),
    ShiftIntoBias(),
    PickedRow(),
    MeanOfRepeats(),
    DropDeadCode(),
)

LOWERING: Mapping[str, tuple[Pass[Model], ...]] = {
    "portable": (*_ANYWHERE, PlainWinners(), PlainScatter(), DropDeadCode()),
    "cpu": (
        BentLines(),
        *_ANYWHERE,
        FlipUnitStride(),
        JoinedTransposes(),
        DropDeadCode(),
        DepthwiseStrides(),
        PointStrides(),
        RepeatedWinners(),
        DropDeadCode(),
        BlockedMasks(),
        SteepClips(),
        ShiftInBlocks(),
        DropDeadCode(),
        EnterBlockedLayout(),
        OwnWeights(),
    ),
    "cuda": (
        BentLines(),
        *_ANYWHERE,
        FlipDepthwise(),
        DepthwiseStrides(),
        KeptByChoice(),
        CountOnDevice(),
        WideDequantisation(),
        DropDeadCode(),
    ),
}
"""What is done last, by the runtime that the graph is for. No rule knows of it."""
