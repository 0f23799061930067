"""What a method is given: the model, the class to explain, and the words tap, walk and twin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from onnxplain import interface
from onnxplain.errors import UnsupportedModel
from onnxplain.ir.builder import Builder
from onnxplain.ir.layout import Layout
from onnxplain.ir.value import Dim, Value
from onnxplain.ir.weights import Array
from onnxplain.passes.explain.backward import walk
from onnxplain.passes.explain.baseline import baseline_of, rows_of
from onnxplain.passes.explain.diagnostics import Ledger
from onnxplain.passes.explain.tap import Tap, find_tap
from onnxplain.passes.explain.target import Target
from onnxplain.passes.explain.trace import Trace
from onnxplain.passes.explain.twin import BASELINE, BOUND, PATH, Twin, broadcasts, twin, unstackable, value_at
from onnxplain.passes.optimise import signs
from onnxplain.rules.composite import DERIVATIVE, Composite


class RunTimeInputs(Protocol):
    """Makes a run-time input, or returns the one that was made for the role before."""

    def __call__(self, role: str, dtype: np.dtype[np.generic], shape: Sequence[Dim]) -> Value: ...


@dataclass(frozen=True)
class Study:
    """One model, one explained class per sample.

    x:      the explained input (N, ...).
    trace:  the forward nodes from x to the scores.
    target: the explained class, its score and the seed of a walk.
    layout: of x.
    inputs: asks for run-time inputs beside the model's own.
    preprocess: how a picture becomes x, where it is known.
    loops:  whether paths may be loops; a loop forbids CUDA graphs.
    ledger: collects how much relevance arrives at each node, where that was asked for.
    """

    g: Builder
    x: Value
    trace: Trace
    target: Target
    layout: Layout
    inputs: RunTimeInputs
    preprocess: Mapping[str, Any] | None = None
    ledger: Ledger | None = None
    loops: bool = True

    def walk(
        self, composite: Composite = DERIVATIVE, to: Value | None = None, *, reference: Twin | None = None
    ) -> Value:
        """Propagate the explained class's score back to the input, or to a tap, under a composite.

        reference: the forward pass on a baseline, for rules of differences.
        Shapes:    that of the input or tap.
        """
        trace = self.trace if to is None else self.trace.since(to)
        return walk(self.g, trace.stepping(composite.steps), composite, self.seed, reference=reference)

    def propagate(
        self,
        composite: Composite,
        start: Value,
        *,
        sign_analysis: bool = True,
        bounds: tuple[Value, Value] | None = None,
    ) -> Value:
        """Propagate relevance from the scores back to the input.

        start:  relevance in the shape of the score tensor.
        bounds: the lowest and the highest input, of batch 1, for rules that need them.
        """
        g, trace = self.g, self.trace
        facts = signs.facts(g, trace, composite, nonnegative_input=self.nonnegative) if sign_analysis else None

        def bounds_of(x: Value) -> tuple[Value, Value]:
            if bounds is None:
                raise ValueError("a rule needs the input's bounds, and none are known")
            low, high = (value_at(g, trace, x, each, BOUND) for each in bounds)
            return (low, high) if x.name == self.x.name else (g.minimum(low, high), g.maximum(low, high))

        observe = None if self.ledger is None else self.ledger.watching(composite, trace)
        return walk(g, trace, composite, start, facts=facts, bounds=bounds_of, observe=observe)

    @property
    def nonnegative(self) -> bool:
        """Whether the input is known to have no negative value: pixels that are only scaled."""
        if self.preprocess is None:
            return False
        scale, mean, std = (np.asarray(self.preprocess[name], np.float64) for name in ("scale", "mean", "std"))
        return all(bool(np.all((pixel * scale - mean) / std >= 0)) for pixel in (0, 255))

    def tap(self, layer: str = "") -> Tap:
        """A layer to look at: the one named, or the last of which every place still counts."""
        return find_tap(self.trace, self.layout, layer)

    @property
    def seed(self) -> Value:
        """The derivative of the explained score by the score tensor, in that tensor's shape."""
        scores = self.trace.score
        return self.g.unsqueeze(self.target.seed, list(range(2, scores.rank)))

    def baseline(self, settings: Mapping[str, Any]) -> Value:
        """The baseline that `settings` name: batch 1 or N."""
        if settings["baseline"] == "input":
            batch = 1 if self.x.shape[0] == 1 else None
            return self.run_time_input(interface.BASELINE, [batch, *self.x.shape[1:]])
        return baseline_of(
            self.g, self.x, self.layout, settings["baseline"], preprocess=self.preprocess, blur=settings["blur_sigma"]
        )

    def baseline_rows(self, settings: Mapping[str, Any]) -> Array | None:
        """Several baselines (K, ...) to average over, where `settings` name a file with more than one."""
        return rows_of(settings["baseline"], self.x)

    def run_time_input(self, role: str, shape: Sequence[Dim]) -> Value:
        """An input of the compiled graph beside the model's own, of the explained input's type."""
        return self.inputs(role, self.x.dtype, shape)

    def unstackable(self, times: int) -> str | None:
        """Why the model does not take `times` batches at once; None where it does."""
        return unstackable(self.g, self.trace, times)

    def along(self, points: Value, attribute: Callable[[Study], Value]) -> Value:
        """An attribution at other inputs, of the class explained here.

        Shapes: points (K, N, ...) -> (K, N, ...).
        """
        g, x = self.g, self.x
        times, rest = points.shape[0], g.shape(x, 1)
        if not isinstance(times, int):
            raise ValueError("the number of points must be known")
        seed = self.target.seed
        if times == 1:  # without a Reshape the runtime sees that the batch is the input's own
            stacked = g.named(g.squeeze(points, [0]), x.shape)
        else:
            batch = _times(x.shape[0], times)
            stacked = g.named(g.reshape(points, g.concat([g.ints([-1]), rest], axis=0)), [batch, *x.shape[1:]])
            seed = g.named(g.op("Tile", seed, g.ints([times, 1])), [batch, *seed.shape[1:]])
        stacked = g.cast(stacked, x)
        other = twin(g, self.trace, stacked, PATH)
        study = replace(self, x=stacked, trace=other.trace(self.trace), target=replace(self.target, seed=seed))
        try:
            found = attribute(study)
        except UnsupportedModel:
            # The same is wrong with the model's own nodes, whose names are known to whoever reads the message.
            with g.body():
                attribute(self)
            raise
        if times == 1:
            return g.unsqueeze(found, [0])
        return g.reshape(found, g.concat([g.ints([times, -1]), rest], axis=0))

    def reference(self, baseline: Value) -> Twin:
        """The forward pass on a baseline of batch 1 or N, which stays 1 where every tensor broadcasts.

        A baseline known in numbers becomes a Constant node, so that the emitter does not compute layer after layer.
        """
        g = self.g
        if baseline.is_constant:
            baseline = g.op("Constant", value=g.values(baseline))
        return twin(g, self.trace, self._of_batch(baseline), BASELINE)

    def missing(self, whole: Value, attribution: Value) -> Value:
        """What the sum (N,) of an attribution lacks of what it is a part of, in the type of that: scores may be of
        another precision than the input."""
        g, whole = self.g, self.g.wide(whole)
        return whole - g.cast(g.sum(attribution, range(1, attribution.rank), keepdims=False), whole)

    def score_at(self, x: Value) -> Value:
        """The explained class's score (N,) at other inputs of batch 1 or N."""
        return self.score_of(twin(self.g, self.trace, self._of_batch(x), BASELINE))

    def _of_batch(self, x: Value) -> Value:
        """One input as it is where its forward pass broadcasts against that on N, else N times."""
        return x if broadcasts(self.g, self.trace) else self.g.expand_like(x, self.x)

    def score_of(self, other: Twin) -> Value:
        """The explained class's score (N,) of a forward pass of batch 1 or N."""
        g, scores = self.g, other.score
        return g.sum(g.squeeze(scores, list(range(2, scores.rank))) * self.target.seed, [1], keepdims=False)


def _times(batch: Dim, times: int) -> Dim:
    """The size of so many batches. It has a name, or two tensors of a residual sum would not be known to be alike."""
    return batch * times if isinstance(batch, int) else f"{times}*{batch or 'batch'}"
