"""A tensor that reads like mathematics: `0.5 * x * (1 + g.erf(x * 2**-0.5))` emits ONNX nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs
from onnx.helper import tensor_dtype_to_np_dtype

from onnxplain.errors import UnsupportedModel

if TYPE_CHECKING:
    from onnxplain.ir.builder import Builder

Dim: TypeAlias = int | str | None
"""A size: known, symbolic (the model's own name for it), or unknown."""


def shown(shape: Iterable[Dim] | None) -> str:
    """A shape as messages show it.

    >>> shown((None, 3, "height", 32)), shown(["N"]), shown(None)
    ('(?, 3, height, 32)', '(N,)', '(unknown)')
    """
    if shape is None:
        return "(unknown)"
    sizes = ["?" if size is None else str(size) for size in shape]
    return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"


HALF = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))

Operand: TypeAlias = "Value | int | float"


def is_sized(tensor: gs.Tensor) -> bool:
    """Whether all sizes of a tensor are known as numbers."""
    return tensor.shape is not None and all(isinstance(size, int) for size in tensor.shape)


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph together with the builder that emits what is computed from it.

    A Python number in an expression becomes a constant of the tensor's own type.
    """

    tensor: gs.Tensor
    g: Builder

    @property
    def name(self) -> str:
        return str(self.tensor.name)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        kept = self.tensor.dtype
        # graphsurgeon keeps types that NumPy lacks, such as bfloat16, as ONNX's number of them.
        dtype: np.dtype[np.generic] = tensor_dtype_to_np_dtype(kept) if isinstance(kept, int) else np.dtype(kept)
        return dtype

    @property
    def is_half(self) -> bool:
        """Whether it holds real numbers of sixteen bits."""
        return self.tensor.dtype is not None and self.dtype in HALF

    @property
    def shape(self) -> tuple[Dim, ...]:
        """Sizes, axis by axis. Raises: UnsupportedModel if not even the rank is known."""
        if self.tensor.shape is None:
            raise UnsupportedModel(
                f"how many axes {self.name!r} has is known only at run time, and the explanation depends on it.\n"
                "  Export the model with fixed sizes for all axes but the batch."
            )
        return tuple(self.tensor.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_constant(self) -> bool:
        return isinstance(self.tensor, gs.Constant)

    @property
    def spatial(self) -> range:
        """Axes after batch and channels, in the layout (N, C, *S)."""
        return range(2, self.rank)

    def __repr__(self) -> str:
        return f"Value({self.name}: {self.tensor.dtype} {self.tensor.shape})"

    def __add__(self, other: Operand) -> Value:
        return self.g.binary("Add", self, other)

    def __radd__(self, other: Operand) -> Value:
        return self.g.binary("Add", other, self)

    def __sub__(self, other: Operand) -> Value:
        return self.g.binary("Sub", self, other)

    def __rsub__(self, other: Operand) -> Value:
        return self.g.binary("Sub", other, self)

    def __mul__(self, other: Operand) -> Value:
        return self.g.binary("Mul", self, other)

    def __rmul__(self, other: Operand) -> Value:
        return self.g.binary("Mul", other, self)

    def __truediv__(self, other: Operand) -> Value:
        return self.g.binary("Div", self, other)

    def __rtruediv__(self, other: Operand) -> Value:
        return self.g.binary("Div", other, self)

    def __pow__(self, other: Operand) -> Value:
        return self.g.binary("Pow", self, other)

    def __matmul__(self, other: Value) -> Value:
        return self.g.op("MatMul", self, other)

    def __neg__(self) -> Value:
        return self.g.op("Neg", self)

    def __abs__(self) -> Value:
        return self.g.op("Abs", self)

    def __gt__(self, other: Operand) -> Value:
        return self.g.binary("Greater", self, other)

    def __lt__(self, other: Operand) -> Value:
        return self.g.binary("Less", self, other)

    def __ge__(self, other: Operand) -> Value:
        return self.g.binary("GreaterOrEqual", self, other)

    def __le__(self, other: Operand) -> Value:
        return self.g.binary("LessOrEqual", self, other)

    def __and__(self, other: Value) -> Value:
        return self.g.op("And", self, other)

    def __or__(self, other: Value) -> Value:
        return self.g.op("Or", self, other)

    def __invert__(self) -> Value:
        return self.g.op("Not", self)
