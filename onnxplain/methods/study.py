"""What a method is given: the model, the class to explain, and the words tap, walk and twin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from onnxplain import interface
from onnxplain.ir.builder import Builder
from onnxplain.ir.layout import Layout
from onnxplain.ir.value import Dim, Value
from onnxplain.passes.explain.backward import walk
from onnxplain.passes.explain.baseline import baseline_of
from onnxplain.passes.explain.tap import find_tap
from onnxplain.passes.explain.target import Target
from onnxplain.passes.explain.trace import Trace
from onnxplain.passes.explain.twin import stacks, twin
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
    """

    g: Builder
    x: Value
    trace: Trace
    target: Target
    layout: Layout
    inputs: RunTimeInputs
    preprocess: Mapping[str, Any] | None = None

    def walk(self, composite: Composite = DERIVATIVE, to: Value | None = None) -> Value:
        """Propagate the explained class's score back to the input, or to a tap, under a composite.

        Shapes: that of the input or tap.
        """
        trace = self.trace if to is None else self.trace.since(to)
        return walk(self.g, trace, composite, self.seed)

    def tap(self, layer: str = "") -> Value:
        """The activations of a layer (N, C, *S): the one named, or the last convolution's."""
        return find_tap(self.trace, layer)

    @property
    def seed(self) -> Value:
        """The derivative of the explained score by the score tensor, in that tensor's shape."""
        scores = self.trace.score
        return self.g.unsqueeze(self.target.seed, list(range(2, scores.rank)))

    def baseline(self, settings: Mapping[str, Any]) -> Value:
        """The baseline that `settings` name: batch 1 or N."""
        if settings["baseline"] == "input":
            return self.run_time_input(interface.BASELINE, [None, *self.x.shape[1:]])
        return baseline_of(
            self.g, self.x, self.layout, settings["baseline"], preprocess=self.preprocess, blur=settings["blur_sigma"]
        )

    def run_time_input(self, role: str, shape: Sequence[Dim]) -> Value:
        """An input of the compiled graph beside the model's own, of the explained input's type."""
        return self.inputs(role, self.x.dtype, shape)

    def stacks(self, times: int) -> bool:
        """Whether the model takes `times` batches at once."""
        return stacks(self.g, self.trace, times)

    def along(self, points: Value, attribute: Callable[[Study], Value]) -> Value:
        """An attribution at other inputs, of the class explained here.

        Shapes: points (K, N, ...) -> (K, N, ...).
        """
        g, x = self.g, self.x
        times, rest = points.shape[0], g.shape(x, 1)
        stacked = g.named(g.reshape(points, g.concat([g.ints([-1]), rest], axis=0)), [None, *x.shape[1:]])
        if times == 1:
            stacked = g.named(stacked, x.shape)
        if not isinstance(times, int):
            raise ValueError("the number of points must be known")
        seed = self.target.seed if times == 1 else g.op("Tile", self.target.seed, g.ints([times, 1]))
        other = twin(g, self.trace, stacked, "path")
        study = replace(self, x=stacked, trace=other.trace(self.trace), target=replace(self.target, seed=seed))
        return g.reshape(attribute(study), g.concat([g.ints([times, -1]), rest], axis=0))

    def score_at(self, x: Value) -> Value:
        """The explained class's score (N,) at other inputs of batch 1 or N."""
        g = self.g
        scores = twin(g, self.trace, x, "baseline").score
        return g.sum(g.squeeze(scores, list(range(2, scores.rank))) * self.target.seed, [1], keepdims=False)
