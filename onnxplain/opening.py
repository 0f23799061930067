"""Opening a model: what is asked for, and the input, the scores and the classes found in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxplain import interface
from onnxplain.errors import UnsupportedModel, UsageError
from onnxplain.interface import Metadata, Names
from onnxplain.ir.builder import Builder
from onnxplain.ir.layout import AUTO, Layout, refuse_other_count
from onnxplain.ir.model import Model
from onnxplain.ir.names import tensor_names
from onnxplain.ir.value import Dim, Value, shown
from onnxplain.passes.canonical.inputs import select_input
from onnxplain.passes.canonical.remarks import refuse_decision, remark_on
from onnxplain.passes.canonical.scores import Scores, scores_of, select_output
from onnxplain.passes.explain import target as targets
from onnxplain.passes.explain.channels import layout_of
from onnxplain.passes.explain.following import grids
from onnxplain.passes.explain.place import MEAN, Place, place_of
from onnxplain.passes.explain.stacking import across
from onnxplain.passes.explain.target import Target
from onnxplain.passes.explain.trace import Trace, trace


@dataclass(frozen=True)
class Request:
    """What to compile.

    method:     one name, or several separated by commas.
    target:     "top1", "topk:K", "input", or a class index.
    input:      the input to explain, where the model has several.
    output:     the output that holds the classes, where the model has several; `output_index` is its number instead.
    at:         where the scores are (N, tokens, classes) or the like: which token or pixel ("12,40"), or "mean".
    class_axis: along which axis of the scores the classes lie; found from the graph by default.
    layout:     "auto", "channels-first", "channels-last", "none", or the number of the axis that holds channels.
    preprocess: how a picture becomes the input; kept in the metadata.
    parameters: of the method.
    runtime:    "cpu", "cuda" or "portable": which kernels the graph is lowered for; the results are the same.
    diagnostics: whether a method of relevance also returns how much arrives at each node and is passed on.
    """

    method: str = "gradient"
    target: str | int = "top1"
    input: str | None = None
    output: str | None = None
    output_index: int | None = None
    at: str | None = None
    class_axis: int | None = None
    layout: str | int = AUTO
    preprocess: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    diagnostics: bool = False
    runtime: str = "portable"


@dataclass
class Opened:
    """A canonical model with what is explained found in it: the input, the scores and what lies between."""

    subject: Model
    g: Builder
    forward: Trace
    logits: Value
    layout: Layout
    names: Names
    inputs: dict[str, str]
    output: str
    preprocess: Mapping[str, Any] | None
    loops: bool
    place: Place | None = None
    """Where in the scores to look, if a place was asked for."""
    told: bool = True
    """Whether the output itself has the scores' axes, so that a run's output tells the best class."""

    @property
    def x(self) -> Value:
        return self.forward.source

    def run_time_input(self, role: str, dtype: np.dtype[np.generic], shape: Sequence[Dim]) -> Value:
        """The input of that role beside the model's own, made when it is first asked for."""
        if role not in self.inputs:
            self.inputs[role] = self.names.pick(role)
            return self.g.input(self.inputs[role], dtype, shape)
        return self.g.wrap(next(t for t in self.subject.graph.inputs if t.name == self.inputs[role]))


def open_model(subject: Model, request: Request, *, coarse: bool = False) -> Opened:
    """Find the input and the scores. Raises: UsageError or UnsupportedModel where the model is no such classifier.

    coarse: whether maps are of a layer alone, for which the input may hold integers.
    """
    compiled = Metadata.read(subject.notes.model)
    if compiled is not None:
        raise UsageError(
            f"{subject.name} is already compiled: it explains by {compiled.method}.\n"
            "  Compile the model that it was made from."
        )
    g = Builder(subject)
    x = g.wrap(select_input(subject, request.input, coarse=coarse))
    output = select_output(subject, request.output, request.output_index)
    refuse_decision(subject, output)
    found = scores_of(subject, output)
    remark = remark_on(subject, output, found.tensor)
    subject.remarks += [remark] if remark else []
    scores = g.wrap(found.tensor)
    _refuse_other_batch(x, scores)
    forward = trace(g, list(subject.graph.nodes), x, scores)
    layout = layout_of(forward, str(request.layout))
    for name in ("mean", "std"):
        refuse_other_count(f"preprocess: {name}", np.size((request.preprocess or {}).get(name, 0)), x.tensor, layout)
    _refuse_mixing(g, forward)
    place, logits = _place(g, forward, layout, found, request)
    if scores.rank < 2 or place.axis != 1 or place.at is not None:
        # What is explained is then a part of the scores: the walk starts behind what selects it.
        forward = trace(g, list(subject.graph.nodes), x, logits)
    names = Names.beside(tensor_names(subject.graph))
    return Opened(
        subject,
        g,
        forward,
        g.wide(logits),
        layout,
        names,
        {"input": x.name},
        output.name,
        request.preprocess,
        loops=request.runtime != "cuda",
        place=place if place.at is not None else None,
        told=scores.name == output.name or (place.at != MEAN and scores.shape == tuple(output.shape or ())),
    )


def _refuse_other_batch(x: Value, scores: Value) -> None:
    """Raises: UnsupportedModel where the first axes of input and scores are seen not to be one batch.

    A name of the input's batch with one sample in the scores is let pass: exporters write a Reshape to (1, ...).
    """
    of_input, of_scores = x.shape[0], scores.shape[0]
    if isinstance(of_scores, int) and isinstance(of_input, int):
        other = of_scores != of_input
    elif isinstance(of_scores, int):
        other = of_scores != 1 or (x.rank == 3 and x.shape[1] == 1)  # (T, 1, F): the batch of one comes second
    else:
        named = isinstance(of_scores, str) and of_scores != of_input
        other = (named and of_scores in x.shape[1:]) or (named and of_input in scores.shape[1:])
    if other:
        raise UnsupportedModel(
            f"input {x.name!r} has shape {shown(x.shape)} and the scores {scores.name!r} have {shown(scores.shape)}: "
            "their first axes are not one batch.\n"
            "  Both must begin with it, (N, ...) and (N, classes): each sample is explained by itself.\n"
            "  Export the model with a batch axis in front, of one if there is but one sample."
        )


def _refuse_mixing(g: Builder, forward: Trace) -> None:
    """Raises: UnsupportedModel where samples of one batch are seen to change each other's scores."""
    mixer = None if forward.source.shape[0] == 1 else across(g, forward)
    if mixer is not None:
        raise UnsupportedModel(
            f"{mixer} works along the batch, so that one sample's scores depend on the others: none can be explained "
            "by itself.\n"
            "  Export the model with a batch of one; of several samples each is then explained alone."
        )


def _place(g: Builder, forward: Trace, layout: Layout, found: Scores, request: Request) -> tuple[Place, Value]:
    """Where in the scores to look, and the scores (N, classes) there. One score for each sample is one class."""
    scores = forward.score
    if scores.rank == 1:
        if request.at is not None:
            raise UsageError(f"the scores {scores.name!r} are one for each sample: leave --at out.")
        return Place(1, None), g.unsqueeze(scores, [1])
    grid = grids(forward, layout).get(scores.name)
    place = place_of(scores, request.at, request.class_axis, found.class_axis, grid)
    with g.scope("score"):
        return place, place.scores(g, scores)


@dataclass(frozen=True)
class Selection:
    """The classes to explain. `ranked` says that outputs have an axis for them after the batch, be it of one."""

    targets: list[Target]
    ranked: bool = False


def select(opened: Opened, target: str | int) -> Selection:
    """The classes to explain: one, or the k best. Raises: UsageError."""
    g, logits, asked = opened.g, opened.logits, str(target)
    if asked == "top1":
        return Selection(targets.top(g, logits))
    if asked == "input":
        classes = opened.run_time_input(interface.TARGET, np.dtype(np.int64), [logits.shape[0]])
        return Selection([targets.given(g, logits, classes)])
    if _is_number(asked):
        return Selection([targets.fixed(g, logits, int(asked))])
    count = asked.removeprefix("topk:")
    if count != asked and _is_number(count) and int(count) > 0:
        return Selection(targets.top(g, logits, int(count)), ranked=True)
    raise UsageError(f"target {asked!r} is none of: top1, topk:K, input, or a class index from 0.")


def _is_number(text: str) -> bool:
    """Whether it is written in the digits 0 to 9, and not in those of another script."""
    return text.isascii() and text.isdecimal()
