"""One step of a recurrent layer, as ONNX defines it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.ir.weights import Array

State = tuple[Value | None, ...]
"""What a step hands to the next, its output first: (N, H) each, None where it is zero."""

Step = Callable[[Value, State], tuple[Value, ...]]

FUNCTIONS = ("Sigmoid", "Tanh", "Relu", "HardSigmoid", "Softsign", "Softplus")


@dataclass(frozen=True)
class Cell:
    """One direction of a recurrent layer.

    backward:    whether it goes from the end of the sequence to its start.
    w, r:        weights of the input (gates H, I) and of the state (gates H, H), the gates below each other.
    wb, rb:      their biases (gates H).
    p:           weights of the peepholes (3, H), None where there are none.
    functions:   the activations, by ONNX's names.
    clip:        the bound of what goes into an activation, None where there is none.
    coupled:     the forget gate of an LSTM is one minus its input gate.
    reset_after: the reset gate of a GRU comes behind the matrix product.
    """

    name: str
    backward: bool
    w: Array
    r: Array
    wb: Array
    rb: Array
    p: Array | None
    functions: tuple[str, ...]
    clip: float | None
    coupled: bool
    reset_after: bool

    @property
    def size(self) -> int:
        """H."""
        return int(self.r.shape[1])

    def dense(self, g: Builder, role: str, rows: slice) -> Dense:
        """The layer of some gates on input and state together."""
        w, r = self.w[rows], self.r[rows]
        weights = self.stored(g, f"{role} weight", np.concatenate([w, r], axis=1))
        return Dense(g, weights, self.stored(g, f"{role} bias", self.wb[rows] + self.rb[rows]), w.shape[1])

    def stored(self, g: Builder, role: str, array: Array) -> Value:
        return g.wrap(gs.Constant(g.model.fresh(f"{self.name}/{role}"), np.ascontiguousarray(array)))

    def activate(self, g: Builder, which: int, x: Value) -> Value:
        """Activation number `which` of x."""
        if self.clip is not None:
            x = g.op("Clip", x, g.constant(-self.clip, x.dtype), g.constant(self.clip, x.dtype))
        return g.op(self.functions[which], x)


@dataclass(frozen=True)
class Dense:
    """[x, h] w^T + b, where h may be left out. inputs: how many columns of w are for x."""

    g: Builder
    weights: Value
    bias: Value
    inputs: int

    def __call__(self, x: Value, h: Value | None) -> Value:
        if h is None:
            w = self.g.slice(self.weights, [0], [self.inputs], [1])
            return self.g.op("Gemm", x, w, self.bias, transB=1)
        return self.g.op("Gemm", self.g.concat([x, h], axis=1), self.weights, self.bias, transB=1)


def lstm(g: Builder, cell: Cell) -> Step:
    """Gates i, o, f and what is proposed, z:  C = f C + i z,  H = o h(C)."""
    gates = cell.dense(g, "gate", slice(None))
    peepholes = [None] * 3 if cell.p is None else [cell.stored(g, f"peephole {i}", p) for i, p in enumerate(cell.p)]

    def gate(x: Value, seen: Value | None, peephole: Value | None) -> Value:
        return cell.activate(g, 0, x if peephole is None or seen is None else x + peephole * seen)

    def step(x: Value, state: State) -> tuple[Value, ...]:
        h, before = state
        i, o, f, z = g.ops("Split", gates(x, h), outputs=4, axis=1, num_outputs=4)
        i = gate(i, before, peepholes[0])
        c = i * cell.activate(g, 1, z)
        if before is not None:
            c = c + (1 - i if cell.coupled else gate(f, before, peepholes[2])) * before
        return gate(o, c, peepholes[1]) * g.op(cell.functions[2], c), c

    return step


def gru(g: Builder, cell: Cell) -> Step:
    """Gates z and r, and what is proposed, n:  H = (1 - z) n + z H."""
    size = cell.size
    gates, proposed = cell.dense(g, "gate", slice(0, 2 * size)), cell.dense(g, "proposed", slice(2 * size, None))
    w, r = (cell.stored(g, f"proposed {k} weight", a[2 * size :]) for k, a in (("input", cell.w), ("state", cell.r)))
    wb, rb = (cell.stored(g, f"proposed {k} bias", a[2 * size :]) for k, a in (("input", cell.wb), ("state", cell.rb)))

    def propose(x: Value, h: Value | None, reset: Value) -> Value:
        if not cell.reset_after:
            return proposed(x, None if h is None else reset * h)
        after = rb if h is None else g.op("Gemm", h, r, rb, transB=1)
        return g.op("Gemm", x, w, wb, transB=1) + reset * after

    def step(x: Value, state: State) -> tuple[Value, ...]:
        (h,) = state
        z, reset = (cell.activate(g, 0, v) for v in g.ops("Split", gates(x, h), outputs=2, axis=1, num_outputs=2))
        n = cell.activate(g, 1, propose(x, h, reset))
        return ((1 - z) * n if h is None else (1 - z) * n + z * h,)

    return step


def rnn(g: Builder, cell: Cell) -> Step:
    """H = f([x, H] w^T + b)."""
    dense = cell.dense(g, "state", slice(None))
    return lambda x, state: (cell.activate(g, 0, dense(x, state[0])),)


@dataclass(frozen=True)
class Kind:
    """An operator. gates: blocks of rows in its weights. states: operands for the first state, output first."""

    step: Callable[[Builder, Cell], Step]
    functions: tuple[str, ...]
    gates: int
    states: tuple[int, ...] = (5,)


KINDS = {
    "LSTM": Kind(lstm, ("Sigmoid", "Tanh", "Tanh"), 4, (5, 6)),
    "GRU": Kind(gru, ("Sigmoid", "Tanh"), 3),
    "RNN": Kind(rnn, ("Tanh",), 1),
}
