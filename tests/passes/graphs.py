"""Models for the tests of passes, in ONNX's textual form: taken as far as a pass needs them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs
from onnx import ModelProto

from onnxplain.ir.emitter import PREFIX
from onnxplain.ir.load import load
from onnxplain.ir.model import Model
from onnxplain.ir.save import to_proto
from onnxplain.passes.base import Pass, PassLog, Refusal, run_passes
from onnxplain.passes.canonical import ON_PROTO, canonicalise
from onnxplain.passes.canonical.constants import LiftConstants
from tests.running import Array, Results, net, run


def typed(text: str, opset: int = 20) -> Model:
    """A graph with constants as initialisers and every tensor typed, and nothing else done to it."""
    source = load(net(text, opset))
    run_passes(source, ON_PROTO)
    model = Model.of(source)
    run_passes(model, [LiftConstants()])
    return model


def emitted(text: str, opset: int = 20) -> Model:
    """The same with its nodes named as the compiler names those that it emits: what a NodeRewrite visits."""
    model = typed(text, opset)
    for each in model.graph.nodes:
        each.name = f"{PREFIX}/{each.outputs[0].name}"
    return model


def canonical(model: ModelProto | str) -> tuple[Model, PassLog]:
    return canonicalise(load(net(model) if isinstance(model, str) else model))


def refusals(model: Model, each: Pass[Model]) -> tuple[int, tuple[Refusal, ...]]:
    """What a pass did: how many places it changed, and where it declined."""
    report = run_passes(model, [each]).entries[0][1]
    return report.changed, report.refusals


def node(model: Model, name: str) -> gs.Node:
    """The node that makes a tensor, or that has a name."""
    return next(n for n in model.graph.nodes if n.name == name or name in (t.name for t in n.outputs))


def operators(model: Model) -> list[str]:
    return [n.op for n in model.graph.nodes]


def numbers(model: Model, tensor: gs.Tensor) -> list[int]:
    return [int(v) for v in model.weights.array(tensor).ravel()]


def results(model: Model, *shape: int) -> Results:
    """The graph run on seeded normal numbers."""
    return run(to_proto(model), seeded(*shape))


def seeded(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def assert_unchanged(model: Model, text: str, shapes: Sequence[tuple[int, ...]], opset: int = 20) -> None:
    """The graph still computes what its text says."""
    for shape in shapes:
        found, expected = results(model, *shape), run(net(text, opset), seeded(*shape))
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)
