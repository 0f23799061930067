"""Twins: the forward pass once more on another input, sharing everything that does not depend on it."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass, replace

import onnx_graphsurgeon as gs
from onnx.shape_inference import InferenceError

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Dim, Value
from onnxplain.passes.explain.stacking import mixing
from onnxplain.passes.explain.trace import Trace, trace
from onnxplain.rules.table import BROADCASTING

BASELINE, PATH, BOUND = "baseline", "path", "bound"
LABELS = (BASELINE, PATH, BOUND)
"""What the names of twins begin with: copies of the model's own nodes."""


@dataclass(frozen=True)
class Twin:
    """The forward pass on another input.

    values: the twin of each tensor that depends on the input, by the original's name.
    score:  the twin of the score tensor.
    """

    values: dict[str, Value]
    score: Value
    source: Value

    def of(self, value: Value) -> Value:
        """The twin of a tensor; the tensor itself where it does not depend on the input."""
        return self.values.get(value.name, value)

    def trace(self, original: Trace) -> Trace:
        """The twin's own nodes as sites, for a walk."""
        g = self.score.g
        produced = [self.values[t.name] for node in original.nodes for t in node.outputs if t.name in self.values]
        nodes = {value.tensor.inputs[0].name: value.tensor.inputs[0] for value in produced if value.tensor.inputs}
        return trace(g, list(nodes.values()), self.source, self.score)


def twin(g: Builder, original: Trace, x: Value, label: str) -> Twin:
    """Emit the forward pass on x. Nodes are named `onnxplain/<label>/<forward node>/<op>`.

    Shapes: x is like the original's source, with any batch size that the model takes.
    """
    values = {original.source.name: x}
    batch, other = _renamed(g, original, x)
    for node in original.nodes:
        if not any(t.name in values for t in node.inputs):
            continue
        operands = [None if t.is_empty() else values.get(t.name, g.wrap(t)) for t in node.inputs]
        with g.scope(f"{label}/{node.name}"):
            outputs = g.copy(node, operands)
        for tensor, output in zip(node.outputs, outputs, strict=True):
            values[tensor.name] = _sized_like(g, output, tensor, batch, other)
    return Twin(values, values.get(original.score.name, original.score), x)


def _renamed(g: Builder, original: Trace, x: Value) -> tuple[str | None, Dim]:
    """The name of the original's batch and what it is in the twin; None where a size of that name may be another.

    Of one sample it may where the batch of another input arrives: what is computed from both keeps that one's.
    """
    sizes = original.source.shape
    if not sizes or not isinstance(sizes[0], str) or sizes[0] in sizes[1:]:
        return None, None
    if isinstance(x.shape[0], str):
        return sizes[0], x.shape[0]
    alone = x.shape[0] == 1 and joins_others(g, original) is None
    return sizes[0], 1 if alone else None


def _sized_like(g: Builder, output: Value, original: gs.Tensor, batch: str | None, other: Dim) -> Value:
    """A twin with the sizes that its original has, where inference lost them: through a Reshape, say.

    Of a batch with a name, which is the other batch's in the twin; sizes that are numbers do not depend on it then.
    """
    if batch is None or original.shape is None or output.tensor.shape is None:
        return output
    sizes = [size if isinstance(size, int) else other if size == batch else None for size in original.shape]
    if len(sizes) != output.rank:
        return output
    return g.named(output, [have if size is None else size for size, have in zip(sizes, output.shape, strict=True)])


def value_at(g: Builder, original: Trace, value: Value, x: Value, label: str) -> Value:
    """A tensor's value at another input; only what it takes is emitted.

    Shapes: x (1, ...) -> the tensor's of one sample, or of as many as `original` has where one would not broadcast.
    """
    needed = {value.name}
    nodes = []
    for node in reversed(original.nodes):
        if any(t.name in needed for t in node.outputs):
            needed.update(t.name for t in node.inputs)
            nodes.append(node)
    sites = tuple(site for site in original.sites if any(y.name in needed for y in site.ys))
    part = replace(original, nodes=tuple(reversed(nodes)), sites=sites, score=value)
    return twin(g, part, x if broadcasts(g, part) else g.expand_like(x, original.source), label).score


def unstackable(g: Builder, original: Trace, times: int) -> str | None:
    """Why the model does not take `times` batches at once, each sample by itself; None where it does.

    A model with a symbolic batch is one that its exporter says takes any. Of one with a fixed batch it is tried: the
    forward pass is emitted on so many and thrown away, and followed operator by operator.
    """
    batch: Dim = original.source.shape[0]
    if times == 1:
        return None
    other = joins_others(g, original)
    if other is not None:
        return f"{other!r}, which comes from another input, has the batch too"
    if not isinstance(batch, int):
        return None
    with g.body():
        try:
            # A loop's body is thrown away whole, so the stand-in for the stacked input is too.
            stand_in = g.concat([original.source] * times, axis=0)
            return mixing(g, original, twin(g, original, stand_in, "trial").values, times)
        except (InferenceError, ValueError):
            return f"it is fixed to a batch of {batch}; exported with a dynamic one it may take them"


def broadcasts(g: Builder, original: Trace) -> bool:
    """Whether the forward pass on one input broadcasts against that on N, tensor by tensor.

    It is tried on one sample, as in `unstackable`. It does not where the batch is folded into another axis, as windows
    are in a Swin transformer: the first axis is then a multiple of the batch.
    """
    if original.source.shape[0] == 1:
        return True
    with g.body():
        try:
            first = g.slice(original.source, [0], [1], [0])
            one = twin(g, original, g.named(first, [1, *original.source.shape[1:]]), "trial")
        except (InferenceError, ValueError):
            return False
        if joins_others(g, original, besides=BROADCASTING) is not None:
            return False
        if any(_places_by_sample(site, one) for site in original.sites):
            return False
        return all(
            _stretches(one.of(y), y, original.source.shape[0])
            for site in original.sites
            for y in (*site.operands, *site.ys)
            if y.name in one.values
        )


def joins_others(g: Builder, original: Trace, besides: Container[str] = ()) -> str | None:
    """The first tensor of the whole batch that comes from another input and that an operator, `besides` some, takes.

    Of whatever type: a mask chooses sample by sample, an index looks up in its own.
    """
    made = {t.name for node in original.nodes for t in node.outputs} | {original.source.name}
    outside = {t.name for t in g.graph.inputs}
    for node in g.graph.nodes:
        if any(t.name in outside for t in node.inputs):
            outside.update(t.name for t in node.outputs)
    others = [x for site in original.sites if site.op not in besides for x in site.operands if x.name not in made]
    whole = (x for x in others if x.tensor.shape is None or list(x.tensor.shape)[:1] not in ([], [1]))
    return next((x.name for x in whole if x.name in outside), None)


def _places_by_sample(site: Site, one: Twin) -> bool:
    """Whether a site reads or writes at places stated for each sample, which ONNX's inference does not compare.

    Of ScatterND and GatherND a place begins with the sample's number.
    """
    if site.op not in ("ScatterElements", "ScatterND", "GatherND") or site[1].name in one.values:
        return False
    return site.op != "ScatterElements" or site[1].shape[0] != 1


def _stretches(one: Value, many: Value, batch: Dim) -> bool:
    """Whether a tensor of one sample is like that of many but for axes of size one.

    Where all sizes are known it must also be that much smaller: a Reshape to sizes with the batch in them is not, and
    would fail.
    """
    if one.tensor.shape is None or many.tensor.shape is None:
        return False
    sizes = [d for d in (*one.shape, *many.shape, batch) if isinstance(d, int)]
    if (
        len(sizes) == one.rank + many.rank + 1
        and math.prod(sizes[one.rank : -1]) != math.prod(sizes[: one.rank]) * sizes[-1]
    ):
        return False
    return all(
        have == 1 or (have == want if isinstance(want, int) else axis > 0)
        for axis, (have, want) in enumerate(zip(one.shape, many.shape, strict=True))
    )
