"""What a method is given: the model, the class to explain, and the words tap, walk and twin."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnxplain.ir.builder import Builder
from onnxplain.ir.layout import Layout
from onnxplain.ir.model import Model
from onnxplain.ir.value import Value
from onnxplain.passes.explain.backward import walk
from onnxplain.passes.explain.tap import find_tap
from onnxplain.passes.explain.target import Target
from onnxplain.passes.explain.trace import Trace
from onnxplain.rules.composite import DERIVATIVE, Composite


@dataclass(frozen=True)
class Study:
    """One model, one explained class per sample.

    x:      the explained input (N, ...).
    trace:  the forward nodes from x to the scores.
    target: the explained class, its score and the seed of a walk.
    layout: of x.
    """

    g: Builder
    model: Model
    x: Value
    trace: Trace
    target: Target
    layout: Layout

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

    def explaining(self, target: Target) -> Study:
        """The same study of another class."""
        return replace(self, target=target)
