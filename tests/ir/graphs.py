"""A builder over a small model, and the numbers of what it emits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxplain.ir.builder import Builder
from onnxplain.ir.load import load
from onnxplain.ir.model import Model
from onnxplain.ir.save import to_proto
from onnxplain.ir.value import Value
from onnxplain.passes.canonical import canonicalise
from tests.running import Array, net, run

MODEL = "g (float[{sizes}] x) => (float[{sizes}] y) {{ y = Relu(x) }}"


class Bench:
    """x of the given sizes (numbers or names), y = relu(x), and a builder that emits more."""

    def __init__(self, *sizes: int | str, text: str = MODEL) -> None:
        self.model: Model = canonicalise(load(net(text.format(sizes=",".join(map(str, sizes))))))[0]
        self.g = Builder(self.model)
        self.x, self.y = (self.g.wrap(self._tensor(name)) for name in "xy")

    def _tensor(self, name: str) -> object:
        return next(t for t in (*self.model.graph.inputs, *self.model.graph.outputs) if t.name == name)

    @property
    def operators(self) -> list[str]:
        """Of what was emitted beside the model's own node."""
        return [node.op for node in self.model.graph.nodes[1:]]

    def numbers(self, x: Sequence[object] | Array, *values: Value) -> list[Array]:
        """What values are when the graph runs on x."""
        for k, value in enumerate(values):
            self.model.graph.outputs.append(self.g.publish(value, f"asked{k}").tensor)
        returned = run(to_proto(self.model), np.asarray(x, np.float32))
        for _ in values:
            self.model.graph.outputs.pop()
            self.model.graph.nodes.pop()
        return [returned[f"asked{k}"] for k in range(len(values))]
