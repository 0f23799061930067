"""Canonical passes: any exporter's graph becomes one that the rules know."""

from __future__ import annotations

from onnxplain.ir.load import Source
from onnxplain.ir.model import Model
from onnxplain.passes.base import PassLog, run_passes
from onnxplain.passes.canonical.affine import GridsByProduct
from onnxplain.passes.canonical.batch import FreeBatch
from onnxplain.passes.canonical.branches import InlineBranches
from onnxplain.passes.canonical.constants import FoldConstants, LiftConstants
from onnxplain.passes.canonical.decompositions import Decompose, PlainCasts
from onnxplain.passes.canonical.functions import InlineFunctions
from onnxplain.passes.canonical.names import NameNodes
from onnxplain.passes.canonical.opset import ConvertOpset
from onnxplain.passes.canonical.padded import PadsIntoConv
from onnxplain.passes.canonical.pads import ExplicitPads
from onnxplain.passes.canonical.quantisation import SpellOutQuantised
from onnxplain.passes.canonical.rectifiers import NameRectifiers
from onnxplain.passes.canonical.recurrent import UnrollRecurrent
from onnxplain.passes.canonical.refine import RefineShapes
from onnxplain.passes.canonical.shapes import InferShapes
from onnxplain.passes.canonical.softmax import SoftmaxInPlace
from onnxplain.passes.optimise.dead_code import DropDeadCode

ON_PROTO = (
    NameNodes(),
    InlineFunctions(),
    SpellOutQuantised(),
    Decompose(),
    ConvertOpset(),
    NameNodes(),
    InferShapes(),
)
ON_GRAPH = (
    LiftConstants(),
    PlainCasts(),
    FoldConstants(),
    InlineBranches(),
    RefineShapes(),
    GridsByProduct(),
    UnrollRecurrent(),
    FreeBatch(),
    FoldConstants(),
    InlineBranches(),
    PlainCasts(),
    SoftmaxInPlace(),
    NameRectifiers(),
    DropDeadCode(),
    ExplicitPads(),
    PadsIntoConv(),
)


def canonicalise(source: Source) -> tuple[Model, PassLog]:
    """The source as a graph of core operators in opset 20 or 21, every tensor typed."""
    log = run_passes(source, ON_PROTO)
    model = Model.of(source)
    return model, run_passes(model, ON_GRAPH, log)
