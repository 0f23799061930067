"""Random small graphs of core operators: valid by construction, with branches, broadcasting and computed shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]

MOST = 600
"""Elements of a tensor, the batch apart."""


@dataclass(frozen=True)
class Tensor:
    """A real tensor of the graph; the batch is the first axis and counts as one of its sizes."""

    name: str
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass
class Sketch:
    """A graph in the making.

    batch:     how many samples, and whether that is said by a name.
    repeating: whether elements may occur twice, so that a maximum has no one winner.
    """

    draw: Draw
    rng: np.random.Generator
    batch: int
    free: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    live: list[Tensor] = field(default_factory=list)
    repeating: bool = False
    count: int = 0

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def pick(self, options: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def integer(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def maybe(self) -> bool:
        return bool(self.draw(st.booleans()))

    def weight(self, array: Any, dtype: Any = np.float32) -> str:
        """A constant: stored, or the output of a Constant node."""
        values = numpy_helper.from_array(np.asarray(array, dtype), self.name())
        if self.maybe():
            self.weights.append(values)
        else:
            self.nodes.append(helper.make_node("Constant", [], [values.name], value=values))
        return str(values.name)

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        return self.weight(self.rng.standard_normal(shape) * scale)

    def ints(self, *values: int) -> str:
        return self.weight(list(values), np.int64)

    def node(self, op: str, *operands: str, outputs: int = 1, **attributes: Any) -> list[str]:
        names = [self.name() for _ in range(outputs)]
        given = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(helper.make_node(op, list(operands), names, name=f"n{len(self.nodes)}", **given))
        return names

    def op(self, op: str, *operands: str, **attributes: Any) -> str:
        return self.node(op, *operands, **attributes)[0]

    def axis(self, x: Tensor) -> int:
        """An axis that is not the batch; negative at times."""
        axis = self.integer(1, x.rank - 1)
        return axis - x.rank if self.maybe() else axis

    def result(self, name: str, shape: Sequence[int]) -> Tensor:
        return Tensor(name, tuple(int(size) for size in shape))


Step = Callable[[Sketch, Tensor], "Tensor | None"]
STEPS: dict[str, Step] = {}


def step(function: Step) -> Step:
    """Register a way to go on from a tensor; it returns None where it does not apply."""
    STEPS[function.__name__] = function
    return function


@dataclass(frozen=True)
class Drawn:
    """A finished graph and an input for it."""

    model: onnx.ModelProto
    x: Array
    classes: int

    def __repr__(self) -> str:
        return f"seeded input {self.x.shape}, " + onnx.printer.to_text(self.model)


@st.composite
def graphs(draw: Draw, steps: int = 7, of: Sequence[str] = ()) -> Drawn:
    """A classifier: some steps from the input, each from any tensor that is there, brought to (N, classes).

    of: the steps' names to choose among, by default all; one that is named twice is twice as frequent.
    """
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    batch, free = draw(st.integers(1, 3)), draw(st.booleans())
    sizes = draw(st.sampled_from([(6,), (4, 5), (2, 5, 6), (4, 4, 4), (3, 7, 5), (2, 3, 4, 4)]))
    s = Sketch(draw, rng, batch, free, live=[Tensor("x", (batch, *sizes))])
    for _ in range(draw(st.integers(1, steps))):
        source = s.live[-1] if draw(st.integers(0, 3)) else s.pick(s.live)
        made = STEPS[s.pick(of or sorted(STEPS))](s, source)
        if made is not None and made.rank > 1 and 0 < np.prod(made.shape[1:]) <= MOST:
            s.live.append(made)
    return finished(s, (batch, *sizes))


def finished(s: Sketch, shape: tuple[int, ...]) -> Drawn:
    last = s.live[-1]
    # A product, so that the scores are known to be here: what comes before may end in a softmax or a reshape too
    flat = s.op("Mul", s.op("Flatten", last.name), s.weight(1.25))
    classes = int(np.prod(last.shape[1:]))
    if s.maybe():
        flat, classes = s.op("Gemm", flat, s.normal(classes, 4), s.normal(4)), 4
    scores = s.op(s.pick(["Identity", "Softmax", "Sigmoid"]), flat)
    first: Any = "N" if s.free else shape[0]
    graph = helper.make_graph(
        s.nodes,
        "drawn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [first, *shape[1:]])],
        [helper.make_tensor_value_info(scores, TensorProto.FLOAT, [first, classes])],
        s.weights,
    )
    opset = s.pick([20, 21, 22, 26] if any(node.op_type == "Gelu" for node in s.nodes) else [18, 20, 21, 22, 26])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=13 if opset > 22 else 10
    )
    return Drawn(model, s.rng.standard_normal(shape).astype(np.float32), classes)
