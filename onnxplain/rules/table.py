"""The derivative table: one rule for each differentiable operator, and the operators through which nothing flows.

Every method reads this table. A rule is registered where its kind of operator lives, in `onnxplain/rules/vjp/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from onnxplain.ir.site import Rule


@dataclass(frozen=True)
class Derivative:
    """How one operator differentiates.

    wrt: operand indices the rule returns values for; None means all of them (Sum, Concat, Max).
    """

    rule: Rule
    wrt: tuple[int, ...] | None

    def operands(self, count: int) -> tuple[int, ...]:
        """The differentiable operands of a node with `count` operands."""
        return tuple(range(count)) if self.wrt is None else tuple(i for i in self.wrt if i < count)


VJP: dict[str, Derivative] = {}

ALL: None = None
"""For `wrt`: every operand is differentiable."""

BROADCASTING = frozenset(
    {
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Max",
        "Min",
        "Sum",
        "Mean",
        "Where",
        "PRelu",
        "MatMul",
        "Gemm",
        "Expand",
        "Mod",
        "Einsum",
    }
)
"""Operators that stretch an operand: what a rule returns for it may have the output's shape; the walk sums it back."""


def fixed_axes(op: str, index: int) -> int:
    """How many of an operand's last axes a BROADCASTING operator never stretches: those that a product sums over."""
    return 2 if op in ("MatMul", "Gemm") and index < 2 else 0


NONDIFFERENTIABLE = frozenset(
    {
        "Shape", "Size", "Constant", "ConstantOfShape", "EyeLike", "NonZero",
        "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not",
        "IsNaN", "IsInf", "Sign", "Floor", "Ceil", "Round", "Hardmax",
        "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    }
)  # fmt: skip
"""Operators whose derivative is zero wherever it exists, or whose output is no function of the input's values."""


def vjp(*op_types: str, wrt: Iterable[int] | None = (0,)) -> Callable[[Rule], Rule]:
    """Register the derivative of operators: `rule(g, site, dy)` returns one value for each operand in `wrt`.

    Shapes: a returned value has the operand's shape, or for BROADCASTING operators any shape that sums back to it.
    Units:  dy is d(score)/d(y); a returned value is d(score)/d(operand).
    """

    def register(rule: Rule) -> Rule:
        for op_type in op_types:
            if op_type in VJP:
                raise ValueError(f"two derivatives for {op_type}")
            VJP[op_type] = Derivative(rule, None if wrt is None else tuple(wrt))
        return rule

    return register
