"""One forward node as a rule sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import onnx_graphsurgeon as gs

from onnxplain.errors import UnsupportedOp
from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value
from onnxplain.ir.weights import Array

Bounds = Callable[[Value], tuple[Value, Value]]

Flows = tuple[Value | None, ...]
"""What a rule returns: one value for each operand in `Site.wrt`, None where nothing flows."""

Rule = Callable[[Builder, "Site", Value], Flows]
"""rule(g, site, dy): one value for each operand in `site.wrt`, None where nothing flows.

dy is what arrived at the site's output: a cotangent, a relevance or a multiplier. For an operator with several outputs
(Split) `site.arrived` holds one for each."""


@dataclass(frozen=True)
class Facts:
    """What sign analysis has proven of a site.

    nonnegative: no element of the signal operand is negative.
    rectified:   nothing arrives where the output is not positive.
    analysed:    whether signs were looked at; if not, every term is computed as it is written.
    """

    nonnegative: bool = False
    rectified: bool = False
    analysed: bool = False


@dataclass(frozen=True)
class Role:
    """What composites go by that a node does not show by itself.

    first:  a layer with weights, no other between the input and it.
    depth:  which share of the layers with weights comes before, from 0 to 1.
    signal: for a product of two operands that depend on the input, the one that the other was computed from, or that is
            no gate where the other is; None where neither tells.
    layer:  the layer with weights that its operand comes from, then what only scales, shifts or reshapes in between;
            empty where something else lies between.
    bias:   of a layer with weights, the sum behind it whose other operand is the layer's bias, whatever its shape.
    of_layer: for such a sum, that it is one.
    """

    first: bool = False
    depth: float = 0.0
    signal: int | None = None
    layer: tuple[Site, ...] = ()
    bias: Site | None = None
    of_layer: bool = False


@dataclass(frozen=True, eq=False)
class Site:
    """A node with its operands and outputs as values.

    x:       operands, None where an optional one is left out.
    ys:      outputs; `y` is the first.
    wrt:     the operands for which rules return a value (those the derivative table declares differentiable).
    differentiable: whether the derivative table knows the operator.
    ref:     the same node's twin on the baseline, for rules of differences (DeepLIFT).
    arrived: what arrived at each output, None where nothing did.
    varying: whether each operand depends on the explained input.
    role:    its place among the others.
    facts:   what was proven of the operands and of what arrives.
    bounds:  gives a tensor's value at the lowest and at the highest input, for rules that need them.
    rms:     gives each sample's root mean square of a tensor, so that it broadcasts against it; None where the samples
             cannot be told apart.
    aside:   sends a value to a tensor that the site depends on, past its own operands (RevealCancel).
    """

    node: gs.Node
    x: tuple[Value | None, ...]
    ys: tuple[Value, ...]
    wrt: tuple[int, ...]
    derivative: Rule
    differentiable: bool = True
    ref: Site | None = None
    arrived: tuple[Value | None, ...] = ()
    varying: tuple[bool, ...] = ()
    role: Role = Role()
    facts: Facts = Facts()
    bounds: Bounds | None = None
    rms: Callable[[Value], Value | None] | None = None
    aside: Callable[[Value, Value], None] | None = None

    @property
    def op(self) -> str:
        return str(self.node.op)

    @property
    def name(self) -> str:
        return str(self.node.name)

    @property
    def y(self) -> Value:
        return self.ys[0]

    @property
    def operands(self) -> tuple[Value, ...]:
        """The operands that are there."""
        return tuple(v for v in self.x if v is not None)

    def __getitem__(self, index: int) -> Value:
        """Operand `index`, which the operator requires."""
        value = self.x[index]
        if value is None:
            raise IndexError(f"{self.op} node {self.name!r} lacks operand {index}")
        return value

    def optional(self, index: int) -> Value | None:
        """Operand `index`, None where it is left out."""
        return self.x[index] if index < len(self.x) else None

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute of the node."""
        return self.node.attrs.get(name, default)

    def numbers(self, g: Builder, index: int) -> Array:
        """Operand `index` in numbers. Raises: UnsupportedOp if it is computed at run time."""
        value = self[index]
        if not value.is_constant:
            raise self.refused(f"whose operand {value.name!r} is computed at run time")
        return g.values(value)

    def refused(self, how: str) -> UnsupportedOp:
        """The error to raise for a node of a form that has no rule; `how` says which form."""
        return UnsupportedOp(f"there is no derivative for {self.op!r} (node {self.name!r}) {how}.")

    def unsized(self, what: str) -> UnsupportedOp:
        """The error for a node of which `what`, sizes or what follows from them, is known only when the graph runs."""
        known = self.refused(f"{what} known only at run time")
        return UnsupportedOp(f"{known}\n  Export the model with fixed sizes for all axes but the batch.")

    def vjp(self, g: Builder, dy: Value) -> tuple[Value | None, ...]:
        """The derivative of this operator: the vector-Jacobian product, one value for each operand in `wrt`."""
        return self.derivative(g, self, dy)

    def with_operands(self, *x: Value | None) -> Site:
        """The same operator on other operands; its output is emitted when a rule asks for it with `rerun`."""
        return replace(self, x=x)

    def rerun(self, g: Builder) -> Value:
        """The operator's output on its present operands.

        For operands that were widened from half precision it need not be `y`: the runtime computes such operands in
        either precision, and a comparison with what was rounded elsewhere finds nothing equal.
        """
        return g.ops(self.op, *self.x, outputs=len(self.ys), domain=self.node.domain, **self.node.attrs)[0]
