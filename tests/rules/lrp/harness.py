"""Run every rule on one layer, in one graph, and hold it against the plain computation."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser

from onnxplain.ir.builder import Builder
from onnxplain.ir.load import load
from onnxplain.ir.save import to_proto
from onnxplain.ir.site import Rule
from onnxplain.passes.canonical import canonicalise
from onnxplain.passes.explain.backward import walk
from onnxplain.passes.explain.trace import trace
from onnxplain.passes.optimise import signs
from onnxplain.passes.optimise.dead_code import DropDeadCode
from onnxplain.rules.composite import AtZero, Composite, Entry, op
from onnxplain.rules.lrp.affine import is_linear
from onnxplain.rules.lrp.signals import pass_through
from tests.oracle import Oracle
from tests.rules.lrp import dense
from tests.rules.lrp.cases import Case, Floats
from tests.rules.lrp.dense import Dense
from tests.running import run

Array = NDArray[np.floating]

SIGNED, BEHIND, BEFORE, BETWEEN = "signed", "behind a ReLU", "before a ReLU", "between ReLUs"
PLACES = (SIGNED, BEHIND, BEFORE, BETWEEN)
LOW, HIGH = -5.0, 6.0


@dataclass(frozen=True)
class Compared:
    """A rule of the project, and the same in plain numbers."""

    rule: Rule
    plain: dense.Rule
    at_zero: AtZero = "zero"


def composite(compared: Compared) -> Composite:
    return Composite("test", (
        Entry(is_linear, compared.rule, "rule", compared.at_zero),
        Entry(op("Relu"), pass_through, "pass", "inherits"),
    ))  # fmt: skip


def model_of(case: Case, place: str, dtype: type) -> onnx.ModelProto:
    """The layer with or without ReLUs around it: input x, output `score`."""
    node = parser.parse_node(case.text)
    node.name = "layer"
    nodes = [node]
    if place in (BEHIND, BETWEEN):
        nodes.insert(0, helper.make_node("Relu", ["x"], ["rectified"], "first"))
        node.input[list(node.input).index("x")] = "rectified"
    if place in (BEFORE, BETWEEN):
        nodes.append(helper.make_node("Relu", ["y"], ["score"], "last"))
    else:
        node.output[0] = "score"
    real = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weights = {"w": case.w} | ({} if case.b is None else {"b": case.b})
    graph = helper.make_graph(
        nodes,
        "case",
        [helper.make_tensor_value_info("x", real, case.shape)],
        [onnx.ValueInfoProto(name="score")],
        [numpy_helper.from_array(a.astype(dtype), name) for name, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def explained(
    case: Case, place: str, dtype: type, rules: Mapping[str, Compared], leaving: Container[str] = ()
) -> onnx.ModelProto:
    """The layer with each rule's relevance of x, under sign analysis and without, for relevance that is an input r.

    leaving: rules that are left out.
    In front of a ReLU, r is multiplied by the score: nothing arrives where that is zero, as sign analysis assumes.
    """
    model, _ = canonicalise(load(model_of(case, place, dtype)))
    g = Builder(model)
    x, score = g.wrap(model.graph.inputs[0]), g.wrap(model.graph.outputs[0])
    seen = trace(g, list(model.graph.nodes), x, score)
    r = g.input("r", score.dtype, score.shape)
    seed = r * score if place in (BEFORE, BETWEEN) else r
    low = 0.0 if place in (BEHIND, BETWEEN) else LOW
    sample = [1, *case.shape[1:]] if not case.single else list(case.shape)
    bounds = tuple(g.constant(np.full(sample, level, x.dtype)) for level in (low, HIGH))
    for name, compared in rules.items():
        if name in leaving:
            continue
        table = composite(compared)
        facts = signs.facts(g, seen, table, nonnegative_input=False)
        for how, known in (("analysed", facts), ("plain", None)):
            flow = walk(g, seen, table, seed, facts=known, bounds=lambda _: (bounds[0], bounds[1]))
            g.graph.outputs.append(g.publish(flow, f"{name} {how}").tensor)
    DropDeadCode().run(model)
    return to_proto(model)


def results(model: onnx.ModelProto, feeds: Mapping[str, Floats], dtype: type, *, runtime: bool) -> dict[str, Array]:
    """By ONNX Runtime, or by the oracle, which has the operators in float64 that the runtime lacks."""
    if runtime:
        return run(model, {name: value.astype(dtype) for name, value in feeds.items()})
    with torch.no_grad():
        found = Oracle(model).run({name: torch.tensor(value) for name, value in feeds.items()})
    return {name: value.numpy() for name, value in found.items()}


Setting = tuple[Floats, Floats, list[Dense], list[Floats], Floats]


def enough_relevance_for(case: Case, place: str) -> Setting:
    """The first draw where relevance arrives at a seventh of the outputs at least."""
    drawn = (relevance_for(case, seed, place) for seed in range(100))
    return next(each for each in drawn if np.mean(np.concatenate(each[3]) != 0) > 0.15)


def relevance_for(case: Case, seed: int, place: str) -> Setting:
    """(x, r, the layer of each sample, the relevance that arrives there, what sees what).

    r is zero where one of the totals that rules divide by is nearly lost to cancellation: it would test rounding.
    """
    x = case.draw(seed)
    inside = np.maximum(x, 0) if place in (BEHIND, BETWEEN) else x
    matrix, shape = case.unroll(case.w)
    b = case.bias(shape)
    low = 0.0 if place in (BEHIND, BETWEEN) else LOW
    samples = [inside.reshape(-1)] if case.single else [each.reshape(-1) for each in inside]
    layers = [Dense(matrix, b, s, np.full(len(s), low), np.full(len(s), HIGH)) for s in samples]
    r = np.random.default_rng(seed + 1).standard_normal((len(layers), len(b)))
    r *= np.stack([_well_conditioned(d) for d in layers])
    r = np.asarray(r, np.float32).astype(np.float64)
    arriving = [r[n] * np.maximum(d.y, 0) if place in (BEFORE, BETWEEN) else r[n] for n, d in enumerate(layers)]
    given = r.reshape(shape if case.single else [len(layers), *shape])
    seen = (case.unroll(np.ones_like(case.w))[0] != 0).astype(np.float64)
    return x, given, layers, arriving, seen


def _well_conditioned(d: Dense) -> NDArray[np.bool_]:
    up, down = np.maximum(d.z, 0).sum(axis=1), np.minimum(d.z, 0).sum(axis=1)
    raw = (np.maximum(d.w, 0) * d.x).sum(axis=1)
    size = up - down + np.abs(d.b)
    totals = [d.y, d.y - d.b, up + d.b, down + d.b, raw + d.b, d.y + 0.25 * raw]
    small = [np.maximum(d.b, 0) + up, np.minimum(d.b, 0) + down, up, down]
    kept = np.all([np.abs(t) > 0.02 * size for t in totals], axis=0)
    return np.asarray(kept & np.all([(t == 0) | (np.abs(t) > 0.02 * size) for t in small], axis=0))
