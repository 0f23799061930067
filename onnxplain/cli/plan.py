"""`onnxplain plan`: which rule applies at which node, and what stands in the way, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from onnxplain.cli import options as o
from onnxplain.cli import report
from onnxplain.compiler import chosen_methods, explain, explained, reading
from onnxplain.errors import OnnxplainError, UnsupportedModel
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value, shown
from onnxplain.methods import REGISTRY
from onnxplain.methods.method import Method
from onnxplain.opening import Opened, Request, select
from onnxplain.passes.base import PassLog
from onnxplain.passes.explain.tap import Candidate, candidates, find_tap
from onnxplain.passes.explain.trace import Trace
from onnxplain.passes.explain.widen import widened
from onnxplain.rules.composite import Composite

if TYPE_CHECKING:
    from rich.console import Console

LAYERS = 12
"""How many layers are shown to choose from."""


@dataclass(frozen=True)
class Step:
    """One node of the walk. blocked: why it cannot be passed, or nothing."""

    node: str
    op: str
    rule: str
    blocked: str = ""


@dataclass(frozen=True)
class Layer:
    """A layer that a method of activations may look at, and whether it is the one it will."""

    node: str
    op: str
    shape: str
    chosen: bool


@dataclass(frozen=True)
class Plan:
    """What a method will do with a model.

    steps:   the walk, from the input to the score; empty where nothing is propagated.
    layers:  what a method of activations may look at, from the input on; empty for other methods.
    refused: why the method cannot explain this model, or nothing.
    """

    method: str
    steps: tuple[Step, ...]
    layers: tuple[Layer, ...]
    refused: str


def plan_command(
    model: Annotated[Path, typer.Argument(help="The trained model, an .onnx file.", show_default=False)],
    method: o.Method,
    target: o.Target = None,
    input: o.Input = None,
    output: o.Output = None,
    output_index: o.OutputIndex = None,
    at: o.At = None,
    class_axis: o.ClassAxis = None,
    layout: o.Layout = None,
    given: o.Set = None,
    layer: o.Layer = None,
    baseline: o.Baseline = None,
    noise: o.Noise = None,
    composite: o.Composite = None,
    preprocess: o.Named = None,
    scale: o.Scale = None,
    mean: o.Mean = None,
    std: o.Std = None,
    order: o.Order = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show the rule of every node and what is unsupported; nothing is written."""
    request = o.request(
        method,
        target=target,
        input=input,
        output=output,
        output_index=output_index,
        at=at,
        class_axis=class_axis,
        layout=layout,
        given=given,
        preprocess=o.preprocess(preprocess, scale, mean, std, order, None),
        sugar={"layer": layer, "baseline": baseline, "noise": noise, "composite": composite},
    )
    chosen = chosen_methods(request.method, request.parameters)
    with reading(model, request, chosen) as (opened, log):
        # The nodes are looked at before anything is emitted, since what is emitted joins the graph.
        plans = [_planned(opened, m, settings) for m, settings in chosen.items()]
    report.remark(opened.subject.remarks)
    tried = [_tried(opened, request, p, m, settings) for p, (m, settings) in zip(plans, chosen.items(), strict=True)]
    plans, refused = [plan for plan, _ in tried], [error for _, error in tried if error is not None]
    instead = _that_work(model, request, chosen) if refused else None
    if as_json:
        entries = _entries(model, opened, log, plans)
        typer.echo(json.dumps(entries if instead is None else {**entries, "would_work": instead}, indent=2))
    else:
        _show(model, opened, log, plans)
        if instead is not None:
            names = ", ".join(instead) if instead else "no method"
            report.console().print(f"\nwould work: {names}", markup=False)
    if refused:
        raise refused[0]


def _that_work(model: Path, request: Request, chosen: Mapping[Method, Any]) -> list[str]:
    """The other methods that take the model as they are, each tried in memory."""
    found = []
    for other in REGISTRY.values():
        if other in chosen:
            continue
        with suppress(OnnxplainError):
            explained(model, replace(request, method=other.name, parameters={}))
            found.append(other.name)
    return found


def _planned(opened: Opened, method: Method, settings: Mapping[str, Any]) -> Plan:
    """The plan; where the method finds no layer to look at by itself, those that may be named."""
    try:
        return plan_of(opened, method, settings)
    except UnsupportedModel as error:
        return Plan(method.name, (), _layers(opened, None) if "layer" in settings else (), str(error))


def plan_of(opened: Opened, method: Method, settings: Mapping[str, Any]) -> Plan:
    """The walk of a method over a model, node by node."""
    asked = str(settings.get("layer") or "")
    looks = method.coarse or "layer" in settings
    tapped = find_tap(opened.forward, opened.layout, asked).value if looks else None
    layers = () if tapped is None else _layers(opened, tapped.name)
    if method.composite is None:
        return Plan(method.name, (), layers, "")
    rules = method.composite(settings)
    walked = (
        opened.forward.since(tapped) if method.coarse and tapped is not None else opened.forward.stepping(rules.steps)
    )
    steps = tuple(
        Step(site.name, site.op, rules.label_for(site), _blocked(site, rules, walked)) for site in walked.sites
    )
    return Plan(method.name, steps, layers, "")


def _blocked(site: Site, rules: Composite, walked: Trace) -> str:
    """Why the walk cannot pass a node, or nothing."""
    if not rules.covers(site):
        left = site.y.g.model.left.get(site.name, "")
        return f"no rule: {left.splitlines()[0]}" if left else "no rule"
    lost = [x.name for i, x in enumerate(site.x) if x and x.name in walked.varying and i not in site.wrt]
    return f"not differentiated by its operand {lost[0]!r}" if lost else _refused(site, rules)


def _refused(site: Site, rules: Composite) -> str:
    """Why the rule does not take the node in its form, or nothing. It is tried alone, and what it emits thrown away."""
    g, entry = site.y.g, rules.entry_for(site)
    layer = tuple(replace(each, ref=each) for each in site.role.layer)
    try:
        with g.body():
            arrived = tuple(g.cast(g.full_like(y, 1), np.float32) for y in site.ys)
            alone = replace(site, arrived=arrived, ref=site, role=replace(site.role, layer=layer), bounds=_same)
            if entry is not None:
                entry.rule(g, widened(g, replace(alone, aside=lambda to, flow: None)), arrived[0])
    except UnsupportedModel as error:
        said = str(error).splitlines()[0]
        return said.rpartition(f"(node {site.name!r}) ")[2]
    return ""


def _same(x: Value) -> tuple[Value, Value]:
    return x, x


def _layers(opened: Opened, chosen: str | None) -> tuple[Layer, ...]:
    """What may be looked at. chosen: the tensor that will be."""
    found = candidates(opened.forward, opened.layout)
    return tuple(Layer(c.layer, c.op, _shape_of(c), c.value.name == chosen) for c in found)


def _shape_of(candidate: Candidate) -> str:
    """The maps' shape, and the tensor's own where that is another."""
    maps, own = shown(candidate.shape), shown(candidate.value.shape)
    return maps if maps == own else f"{maps} from {own}"


def _tried(
    opened: Opened, request: Request, plan: Plan, method: Method, settings: Mapping[str, Any]
) -> tuple[Plan, UnsupportedModel | None]:
    """The plan, and the error with which the method really refuses the model, if it does."""
    try:
        explain(opened, {method: settings}, select(opened, request.target))
    except UnsupportedModel as error:
        return replace(plan, refused=str(error)), error
    passed = (replace(s, rule="nothing arrives", blocked="") if s.blocked else s for s in plan.steps)
    return replace(plan, steps=tuple(passed)), None


def _show(model: Path, opened: Opened, log: PassLog, plans: list[Plan]) -> None:
    console = report.console()
    console.print(f"{model.name}: {opened.forward.score.name!r} by {opened.x.name!r}", markup=False)
    for name, done in log.entries:
        if done.changed or done.refusals:
            console.print(f"  {name}: {done.changed} changed", markup=False)
        for refusal in done.refusals:
            console.print(f"    not {refusal.where}: {refusal.why}", markup=False)
    for plan in plans:
        console.print(f"\n{plan.method}", style="bold", markup=False)
        if plan.layers:
            _show_layers(console, plan.layers)
        if not plan.steps:
            console.print(f"  {'refused' if plan.refused else 'nothing is propagated back'}", markup=False)
            continue
        table = report.table("node", "operator", "rule", "")
        for step in plan.steps:
            table.add_row(
                step.node, step.op, "" if step.blocked else step.rule, step.blocked, style="red" if step.blocked else ""
            )
        console.print(table)


def _show_layers(console: Console, layers: tuple[Layer, ...]) -> None:
    """The layer that is looked at, and those nearest the score."""
    table = report.table("", "layer", "operator", "shape")
    for layer in layers:
        if layer.chosen or layer in layers[-LAYERS:]:
            table.add_row("->" if layer.chosen else "", layer.node, layer.op, layer.shape)
    console.print(table)
    left = len(layers) - LAYERS
    if left > 0:
        console.print(f"  --layer may also name one of {left} earlier ones; --json lists them", markup=False)


def _entries(model: Path, opened: Opened, log: PassLog, plans: list[Plan]) -> dict[str, Any]:
    return {
        "model": str(model),
        "input": opened.x.name,
        "score": opened.forward.score.name,
        "passes": [
            {"name": name, "changed": done.changed, "refusals": [asdict(refusal) for refusal in done.refusals]}
            for name, done in log.entries
        ],
        "plans": [asdict(plan) for plan in plans],
    }
