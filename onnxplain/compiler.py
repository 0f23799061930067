"""The pipeline: load, canonicalise, select the target, explain, attach outputs, optimise, save."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import onnx

from onnxplain import interface
from onnxplain.errors import UsageError, nearest
from onnxplain.interface import Metadata
from onnxplain.ir.load import load
from onnxplain.ir.model import Model
from onnxplain.ir.save import to_proto, write
from onnxplain.ir.value import Value
from onnxplain.ir.wellformed import blaming_the_file
from onnxplain.methods import named
from onnxplain.methods.method import Explanation, Method
from onnxplain.methods.study import Study
from onnxplain.opening import Opened, Request, Selection, open_model, select
from onnxplain.passes.base import Pass, PassLog, run_passes
from onnxplain.passes.canonical import canonicalise
from onnxplain.passes.canonical.negated import NegateLayers
from onnxplain.passes.canonical.normalisation import FoldBatchNorm
from onnxplain.passes.explain.diagnostics import Ledger
from onnxplain.passes.explain.outputs import attach
from onnxplain.passes.explain.target import Target
from onnxplain.passes.optimise import LOWERING
from onnxplain.passes.optimise.dead_code import DropDeadCode
from onnxplain.runtime.preprocess import Preprocess
from onnxplain.version import __version__

ModelLike = str | Path | onnx.ModelProto


def compile_model(
    model: ModelLike,
    method: str = "gradient",
    *,
    target: str | int = "top1",
    input: str | None = None,
    output: str | None = None,
    output_index: int | None = None,
    at: str | None = None,
    class_axis: int | None = None,
    layout: str | int = "auto",
    preprocess: Preprocess | Mapping[str, Any] | str | None = None,
    runtime: str = "portable",
    diagnostics: bool = False,
    **parameters: Any,
) -> onnx.ModelProto:
    """Compile a classifier into a graph that returns its prediction and the explanation of it.

    model:        a path or a ModelProto, which stays as it is. It takes (N, ...) and returns scores (N, classes) or
                  (N), or, with places, (N, tokens, classes) and the like.
    method:       a name that `onnxplain.methods()` lists, or several separated by commas.
    target:       "top1", "topk:K", "input" (a run-time input), or the index of a class.
    input:        the name of the input to explain, where the model has several.
    output, output_index: the name, or the number, of the output with the scores, where it has several.
    at:           of scores with places, the place to explain ("12,40"), or "mean".
    class_axis:   the axis of the classes in such scores; found from the graph by default.
    layout:       "auto", "channels-first", "channels-last", "none", or the number of the axis that holds
                  channels.
    preprocess:   how pictures become the input: a name such as "imagenet", or a dict; kept in the metadata.
    runtime:      "portable", "cpu" or "cuda": whose kernels the graph is lowered for.
    diagnostics:  True for how much relevance arrives at each node and is passed on.
    parameters:   of the method, by their names.

    Returns: a ModelProto with the model's own inputs and outputs, then `attribution`, `heatmap`, `explained_class`,
             `explained_score`.
    Raises:  OnnxplainError, whose message says what to do.
    """
    request = _request(
        parameters, method=method, target=target, input=input, output=output, output_index=output_index, at=at,
        class_axis=class_axis, layout=layout, preprocess=preprocess, runtime=runtime, diagnostics=diagnostics,
    )  # fmt: skip
    return to_proto(explained(model, request))


def compile_file(
    model: ModelLike,
    path: str | Path,
    method: str = "gradient",
    *,
    target: str | int = "top1",
    input: str | None = None,
    output: str | None = None,
    output_index: int | None = None,
    at: str | None = None,
    class_axis: int | None = None,
    layout: str | int = "auto",
    preprocess: Preprocess | Mapping[str, Any] | str | None = None,
    runtime: str = "portable",
    diagnostics: bool = False,
    **parameters: Any,
) -> list[Path]:
    """As `compile_model`, writing the result; models over 2 GB keep their weights in a data file beside it.

    path: where to write. The file appears there when it is whole, and replaces one that is there, unless the model is
          read from it.
    All others are as for `compile_model`. (`output` is the name of the model's output.)

    Returns: the files written.
    Raises:  OnnxplainError, whose message says what to do.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise UsageError(f"path must be where to write, a text or a Path, not {path!r}.")
    request = _request(
        parameters, method=method, target=target, input=input, output=output, output_index=output_index, at=at,
        class_axis=class_axis, layout=layout, preprocess=preprocess, runtime=runtime, diagnostics=diagnostics,
    )  # fmt: skip
    return write(explained(model, request), Path(path))


def explained(model: ModelLike, request: Request) -> Model:
    """The pipeline itself."""
    chosen = chosen_methods(request.method, request.parameters)
    if request.runtime not in LOWERING:
        raise UsageError(
            f"there is no runtime {request.runtime!r}. {nearest(request.runtime, LOWERING, kind='runtimes')}"
        )
    with reading(model, request, chosen) as (opened, log):
        subject = opened.subject
        selected = select(opened, request.target)
        ledger = Ledger(opened.g) if request.diagnostics else None
        outputs = explain(opened, chosen, selected, ledger)
        finish(opened, request, chosen, attach(opened.g, opened.names, outputs), ledger)
        last = [each for method, settings in chosen.items() for each in method.afterwards(settings)]
        run_passes(subject, [DropDeadCode(), *dict.fromkeys(last), *LOWERING[request.runtime]], log)
        return subject


@contextmanager
def reading(
    model: ModelLike, request: Request, chosen: Mapping[Method, Mapping[str, Any]]
) -> Iterator[tuple[Opened, PassLog]]:
    """The model opened for some methods: canonical, and rewritten as they want it.

    What goes wrong inside, with a file that is not well formed, is blamed on the file.
    """
    source = load(model)
    with blaming_the_file(source.given, source.name):
        subject, log = canonicalise(source)
        run_passes(subject, _wanted(chosen), log)
        yield open_model(subject, request, coarse=all(method.coarse for method in chosen)), log


def _wanted(chosen: Mapping[Method, Mapping[str, Any]]) -> list[Pass[Model]]:
    """The rewrites that methods want, each once, and norms folded when all else is done, whoever wants that first.

    A layer that is asked for by name keeps its norm and sign apart.
    """
    wanted = {each.name: each for method, settings in chosen.items() for each in method.passes(settings)}
    layers = frozenset(str(settings["layer"]) for settings in chosen.values() if settings.get("layer"))
    sharing = next((method.name for method in chosen if method.shares), "")
    folds_last = sorted(wanted.values(), key=lambda each: isinstance(each, FoldBatchNorm))
    return [
        replace(each, apart=layers, needed=sharing) if isinstance(each, FoldBatchNorm | NegateLayers) else each
        for each in folds_last
    ]


def chosen_methods(names: str, parameters: Mapping[str, Any]) -> dict[Method, dict[str, Any]]:
    """The methods asked for with their settings; a parameter goes to each method that has it.

    Raises: UsageError for an unknown method, one named twice, or a parameter that none of them has.
    """
    methods = [named(name.strip()) for name in names.split(",")]
    if len(set(methods)) < len(methods):
        raise UsageError(f"a method is named twice in {names!r}.")
    if len(methods) > 1:
        known = {p.name for method in methods for p in method.parameters}
        for name in parameters:
            if name not in known:
                raise UsageError(f"none of {names} has a parameter {name!r}. {nearest(name, known, kind='parameters')}")
        return {
            m: m.settings({p.name: parameters[p.name] for p in m.parameters if p.name in parameters}) for m in methods
        }
    return {methods[0]: methods[0].settings(parameters)}


def explain(
    opened: Opened,
    chosen: Mapping[Method, Mapping[str, Any]],
    selected: Selection,
    ledger: Ledger | None = None,
) -> dict[str, Value]:
    """Emit every method for every class: the values to become outputs, by role.

    Raises: UsageError if diagnostics are asked for where there is not one walk of relevance.
    """
    g = opened.g

    def stacked(values: Sequence[Value]) -> Value:
        return g.concat([g.unsqueeze(v, [1]) for v in values], axis=1) if selected.ranked else values[0]

    maps: dict[str, dict[str, Value]] = {interface.ATTRIBUTION: {}, interface.HEATMAP: {}, interface.RESIDUAL: {}}
    for method, settings in chosen.items():
        suffix = f"_{method.name}" if len(chosen) > 1 else ""
        each = [_explain_one(opened, method, settings, target, ledger) for target in selected.targets]
        maps[interface.ATTRIBUTION][suffix] = stacked([e.attribution for e in each])
        maps[interface.HEATMAP][suffix] = stacked([e.heatmap for e in each])
        residuals = [e.residual for e in each if e.residual is not None]
        if residuals:
            maps[interface.RESIDUAL][suffix] = stacked(residuals)
    maps[interface.CLASS] = {"": stacked([t.classes for t in selected.targets])}
    maps[interface.SCORE] = {"": stacked([t.score for t in selected.targets])}
    if ledger is not None:
        if len(chosen) > 1 or selected.ranked or not ledger.rows:
            raise UsageError(
                "diagnostics are for one method that propagates relevance, and one class.\n"
                "  Such are lrp-*, excitation-backprop and deep-taylor*."
            )
        table = g.named(ledger.table(), [opened.x.shape[0], len(ledger.rows), 2])
        maps[interface.DIAGNOSTICS] = {"": _poisoned(table, selected.targets[0])}
    roles = [interface.ATTRIBUTION, interface.HEATMAP, interface.CLASS, interface.SCORE, interface.RESIDUAL]
    roles += [interface.DIAGNOSTICS] if ledger is not None else []
    return {role + suffix: value for role in roles for suffix, value in maps[role].items()}


def _explain_one(
    opened: Opened, method: Method, settings: Mapping[str, Any], target: Target, ledger: Ledger | None
) -> Explanation:
    g = opened.g
    study = Study(
        g,
        opened.x,
        opened.forward,
        target,
        opened.layout,
        opened.run_time_input,
        opened.preprocess,
        ledger,
        loops=opened.loops,
    )
    explanation = method.explain(study, settings)
    return Explanation(
        _poisoned(explanation.attribution, target),
        _poisoned(explanation.heatmap, target),
        None if explanation.residual is None else _poisoned(explanation.residual, target),
    )


def _poisoned(value: Value, target: Target) -> Value:
    """A value (N, ...), NaN for samples whose class does not exist."""
    g, poison = value.g, target.poison
    return value if poison is None else value + g.cast(g.unsqueeze(poison, list(range(1, value.rank))), value)


def finish(
    opened: Opened,
    request: Request,
    chosen: Mapping[Method, Mapping[str, Any]],
    outputs: dict[str, str],
    ledger: Ledger | None = None,
) -> None:
    """Write down in the model what it is."""
    parameters: dict[str, Any] = {
        "target": str(request.target),
        "layout": opened.layout.name,
        "output": opened.output,
        "classes": opened.logits.shape[1],
    }
    if opened.place is not None:
        at = opened.place.at
        parameters["at"] = list(at) if isinstance(at, tuple) else at
        parameters["class_axis"] = opened.place.axis if opened.told else None
    metadata = Metadata(
        version=__version__,
        method=",".join(method.name for method in chosen),
        parameters={**parameters, **{method.name: dict(settings) for method, settings in chosen.items()}},
        source_sha256=opened.subject.sha256,
        outputs=outputs,
        inputs=opened.inputs,
        preprocess=dict(request.preprocess) if request.preprocess is not None else None,
        diagnostics=None if ledger is None else ledger.rows,
    )
    opened.subject.notes.model.update(metadata.entries())


_WANTED: dict[str, tuple[type | tuple[type, ...], str]] = {
    "method": (str, "a name, or several in one text separated by commas ('gradient,grad-cam')"),
    "target": ((str, Integral), "'top1', 'topk:K', 'input', or the index of a class"),
    "input": (str, "the name of an input"),
    "output": (str, "the name of an output"),
    "output_index": (Integral, "the number of an output"),
    "at": (str, "a text: the place to explain ('12,40'), or 'mean'"),
    "class_axis": (Integral, "the number of an axis"),
    "layout": ((str, Integral), "'auto', 'channels-first', 'channels-last', 'none', or the number of an axis"),
    "runtime": (str, "'portable', 'cpu' or 'cuda'"),
    "diagnostics": (bool, "True or False"),
}
"""What the arguments of `compile_model` are, and that in words; what is None was not given."""


def _request(
    parameters: Mapping[str, Any], *, preprocess: Preprocess | Mapping[str, Any] | str | None, **given: Any
) -> Request:
    """Raises: UsageError for an argument of a wrong type."""
    for name, (kinds, wanted) in _WANTED.items():
        if not isinstance(given[name], kinds) and (name == "method" or given[name] is not None):
            raise UsageError(f"{name} must be {wanted}, not {given[name]!r}.")
    read = None if preprocess is None else Preprocess.of(preprocess).to_dict()
    return Request(parameters=parameters, preprocess=read, **given)
