"""Layers to test rules on: one node each, and its matrix made by `dense`."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.rules.lrp import dense
from tests.rules.lrp.dense import Matrix, Shape

Floats = NDArray[np.float64]
Unroll = Callable[[Floats], tuple[Matrix, Shape]]


@dataclass(frozen=True)
class Case:
    """A node `y = op(x, w[, b])` on one signal x.

    unroll: weights -> (matrix, shape of one sample's output).
    single: x has no batch axis; the whole of it is one sample.
    scale:  what multiplies the bias where it is added, one number or the operator's beta.
    """

    name: str
    text: str
    shape: tuple[int, ...]
    w: Floats
    b: Floats | None
    unroll: Unroll
    single: bool = False
    beta: float = 1.0

    def __str__(self) -> str:
        return self.name

    @property
    def op(self) -> str:
        return self.text.split("=", 1)[1].split("<")[0].split("(")[0].strip()

    def draw(self, seed: int) -> Floats:
        return halves(np.random.default_rng(seed).standard_normal(self.shape))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.shape if self.single else self.shape[1:]

    def bias(self, y: Shape) -> Floats:
        """The bias at every element of one sample's output."""
        if self.b is None:
            return np.zeros(int(np.prod(y)))
        per_channel = self.op in ("Conv", "ConvTranspose")
        b = self.b.reshape(-1, *[1] * (len(y) - 1)) if per_channel else self.b
        return np.broadcast_to(self.beta * b, [1, *y] if b.ndim > len(y) else y).reshape(-1)


def halves(x: Floats) -> Floats:
    """Rounded so that float32 holds it exactly."""
    return np.asarray(x, np.float32).astype(np.float64)


def _draw(name: str, shape: Sequence[int]) -> Floats:
    return halves(np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape)))


def _attributes(**given: object) -> str:
    shown = [f"{k}={str(v).replace('(', '[').replace(')', ']')}" for k, v in given.items()]
    return f"<{', '.join(shown)}>" if shown else ""


def conv(name: str, x: Shape, w: Shape, *, bias: bool = True, transposed: bool = False, **attrs: object) -> Case:
    """A convolution, or a transposed one, with attributes as in ONNX."""
    rank, op = len(x) - 2, "ConvTranspose" if transposed else "Conv"
    strides, dilations = (list(attrs.get(k, [1] * rank)) for k in ("strides", "dilations"))  # type: ignore[call-overload]
    pads, group = list(attrs.get("pads", [0] * 2 * rank)), int(str(attrs.get("group", 1)))  # type: ignore[call-overload]
    extra = list(attrs.get("output_padding", [0] * rank))  # type: ignore[call-overload]

    def unroll(weights: Floats) -> tuple[Matrix, Shape]:
        size = x[2:]
        if transposed:
            return dense.conv_transpose(weights, size, strides, pads, dilations, group, extra)
        return dense.conv(weights, size, strides, pads, dilations, group)

    outputs = w[1] * group if transposed else w[0]
    text = f"y = {op}{_attributes(**attrs)}(x, w{', b' if bias else ''})"
    b = _draw(f"{name} bias", [outputs]) if bias else None
    return Case(f"{op}: {name}", text, tuple(x), _draw(name, w), b, unroll)


def gemm(name: str, x: Shape, w: Shape, b: Shape | None, **attrs: float) -> Case:
    """alpha x' w' + beta b."""
    alpha, turned = attrs.get("alpha", 1.0), attrs.get("transA", 0)

    def unroll(weights: Floats) -> tuple[Matrix, Shape]:
        plain = weights.T if attrs.get("transB", 0) else weights
        if not turned:
            matrix, shape = dense.product(plain, (1, x[1]), left=False)
            return alpha * matrix, shape[1:]
        # x (K, N) is turned: y = x' w, so that x[k, n] meets w[k, m] in y[n, m]
        matrix, shape = dense.product(plain.T, (x[0], x[1]), left=True)
        rows, columns = shape
        swapped = matrix.reshape(rows, columns, -1).transpose(1, 0, 2).reshape(rows * columns, -1)
        return alpha * swapped, [columns, rows]

    text = f"y = Gemm{_attributes(**attrs)}(x, w{', b' if b is not None else ''})"
    bias = None if b is None else _draw(f"{name} bias", b)
    return Case(
        f"Gemm: {name}", text, tuple(x), _draw(name, w), bias, unroll, single=bool(turned), beta=attrs.get("beta", 1.0)
    )


def matmul(name: str, x: Shape, w: Shape, *, left: bool = False) -> Case:
    """x w, or w x; a vector of weights is a matrix of one column or row whose axis goes."""
    single = left and len(x) == 2

    def unroll(weights: Floats) -> tuple[Matrix, Shape]:
        matrix = weights if weights.ndim == 2 else weights[None] if left else weights[:, None]
        sample = list(x) if single else list(x[1:])
        rows = sample if len(sample) > 1 else [1, *sample]
        unrolled, shape = dense.product(matrix, rows, left=left)
        if len(sample) == 1:
            shape = shape[1:]
        if weights.ndim == 1:
            shape = [*shape[:-2], shape[-1]] if left else shape[:-1]
        return unrolled, shape

    text = "y = MatMul(w, x)" if left else "y = MatMul(x, w)"
    return Case(f"MatMul: {name}", text, tuple(x), _draw(name, w), None, unroll, single=single)


def einsum(name: str, equation: str, x: Shape, w: Shape, *, left: bool = False) -> Case:
    """A matrix product under another name; weights first if `left`, and then (outputs, inputs)."""

    def unroll(weights: Floats) -> tuple[Matrix, Shape]:
        rows = list(x[1:]) if len(x) > 2 else [1, *x[1:]]
        matrix, shape = dense.product(weights.T if left else weights, rows, left=False)
        return matrix, shape if len(x) > 2 else shape[1:]

    text = f'y = Einsum<equation="{equation}">({"w, x" if left else "x, w"})'
    return Case(f"Einsum: {name}", text, tuple(x), _draw(name, w), None, unroll)


CASES = (
    conv("1-D", (2, 3, 9), (4, 3, 3)),
    conv("1-D, groups, strides, pads, dilations", (2, 4, 11), (6, 2, 3), group=2, strides=[2], pads=[1, 2],
         dilations=[2]),
    conv("same size", (2, 3, 6, 5), (4, 3, 3, 3), pads=[1, 1, 1, 1]),
    conv("no bias, strides, uneven pads", (2, 3, 7, 6), (4, 3, 3, 2), bias=False, strides=[2, 2], pads=[0, 1, 1, 0]),
    conv("depthwise, dilations", (2, 4, 7, 6), (4, 1, 3, 2), group=4, dilations=[2, 1], pads=[1, 1, 1, 1]),
    conv("groups, strides", (2, 4, 6, 6), (6, 2, 3, 3), group=2, strides=[2, 1]),
    conv("1x1", (2, 5, 3, 3), (4, 5, 1, 1)),
    conv("3-D", (2, 2, 4, 4, 3), (3, 2, 2, 2, 2), strides=[2, 1, 1], pads=[0, 1, 0, 0, 1, 0]),
    conv("3-D, groups, dilations", (1, 4, 5, 4, 3), (4, 2, 2, 2, 2), group=2, dilations=[2, 1, 1]),
    conv("1-D", (2, 3, 5), (3, 2, 3), transposed=True, strides=[2]),
    conv("pads, output padding", (2, 3, 4, 3), (3, 2, 3, 3), transposed=True, strides=[2, 2], pads=[1, 1, 1, 1],
         output_padding=[1, 0]),
    conv("groups, dilations", (2, 4, 4, 3), (4, 2, 2, 3), transposed=True, group=2, dilations=[2, 1]),
    conv("no bias, uneven pads", (2, 2, 4, 4), (2, 3, 3, 3), transposed=True, bias=False, pads=[0, 1, 1, 0]),
    conv("3-D", (1, 2, 3, 2, 2), (2, 2, 2, 2, 2), transposed=True, strides=[1, 2, 1]),
    gemm("plain", (3, 7), (7, 5), (5,)),
    gemm("transB", (3, 7), (5, 7), (5,), transB=1),
    gemm("no bias", (3, 7), (7, 5), None),
    gemm("alpha, beta", (3, 7), (7, 5), (1, 5), alpha=0.5, beta=2.0),
    gemm("negative alpha and beta", (3, 7), (5, 7), (5,), alpha=-0.5, beta=-1.0, transB=1),
    gemm("one number as bias", (3, 7), (7, 5), ()),
    gemm("transA", (7, 3), (7, 5), (5,), transA=1),
    gemm("transA, transB", (7, 3), (5, 7), None, transA=1, transB=1),
    matmul("weights right", (3, 7), (7, 5)),
    matmul("weights right of a stack", (2, 3, 6), (6, 4)),
    matmul("weights left", (7, 3), (5, 7), left=True),
    matmul("weights left of a stack", (2, 6, 3), (4, 6), left=True),
    matmul("a vector right", (2, 3, 6), (6,)),
    matmul("a vector left", (2, 6, 3), (6,), left=True),
    einsum("weights right", "nk,km->nm", (3, 7), (7, 5)),
    einsum("weights right of a stack", "nsk,km->nsm", (2, 3, 6), (6, 4)),
    einsum("weights first", "mk,nk->nm", (3, 7), (5, 7), left=True),
)  # fmt: skip
