"""Small graphs in ONNX's textual form, explained by the lines that all composites share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from onnxplain.ir.builder import Builder
from onnxplain.ir.load import load
from onnxplain.ir.save import to_proto
from onnxplain.passes.canonical import canonicalise
from onnxplain.passes.explain.backward import walk
from onnxplain.passes.explain.trace import Trace, trace
from onnxplain.passes.optimise import signs
from onnxplain.passes.optimise.dead_code import DropDeadCode
from onnxplain.rules.composite import Composite
from onnxplain.rules.lrp.composites import Options, base
from tests.oracle import Oracle
from tests.running import run

Floats = NDArray[np.float64]
SHARED = Composite("shared", base(Options()))


def small(
    body: str, x: tuple[int, ...], weights: Mapping[str, Floats] | None = None, dtype: type = np.float32
) -> onnx.ModelProto:
    """A model of nodes between input x and output y; in front of the nodes, <constants> may stand."""
    kind = {np.float32: "float", np.float64: "double"}[dtype]
    constants, _, nodes = body.partition("> ") if body.startswith("<") else ("", "", body)
    graph = f"small ({kind}{list(x)} x) => ({kind}[] y) {constants and constants + '>'} {{ {nodes} }}"
    text = f'<ir_version: 10, opset_import: ["": 20]> {graph}'
    model = parser.parse_model(text)
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    for name, array in (weights or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(dtype), name))
    return model


def opened(model: onnx.ModelProto) -> tuple[Builder, Trace]:
    """The canonical graph, and what lies between its input and its output."""
    subject, _ = canonicalise(load(model))
    g = Builder(subject)
    x, y = g.wrap(subject.graph.inputs[0]), g.wrap(subject.graph.outputs[0])
    return g, trace(g, list(subject.graph.nodes), x, y)


def relevance(
    model: onnx.ModelProto, x: Floats, r: Floats, composite: Composite = SHARED, analyse: bool = True
) -> Floats:
    """The relevance of x when r arrives at y, computed in the model's type."""
    g, seen = opened(model)
    seed = g.input("r", seen.score.dtype, seen.score.shape)
    facts = signs.facts(g, seen, composite, nonnegative_input=False) if analyse else None
    flow = walk(g, seen, composite, seed, facts=facts)
    g.graph.outputs.append(g.publish(flow, "relevance").tensor)
    DropDeadCode().run(g.model)
    explained = to_proto(g.model)
    if flow.dtype == np.float32:
        found = run(explained, {"x": x.astype(np.float32), "r": r.astype(np.float32)})["relevance"]
    else:
        with torch.no_grad():
            found = Oracle(explained).run({"x": torch.tensor(x), "r": torch.tensor(r)})["relevance"].numpy()
    assert found.dtype == flow.dtype
    return np.asarray(found)


def output(model: onnx.ModelProto, x: Floats) -> Floats:
    """y in float64."""
    with torch.no_grad():
        return np.asarray(Oracle(model).run({"x": torch.tensor(x)})["y"].numpy())
