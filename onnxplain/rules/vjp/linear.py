"""Derivatives of convolutions and matrix products."""

from __future__ import annotations

from string import ascii_letters

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Dim, Value
from onnxplain.ir.window import Window
from onnxplain.rules.table import ALL, vjp
from onnxplain.rules.vjp.windows import cut, transposed


@vjp("Conv")
def conv(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """Transposed convolution with the same filters.

    Shapes: x (N, C, *S), w (M, C/group, *K), dy (N, M, *T) -> (N, C, *S).
    Source: ONNX ConvTranspose-11; Dumoulin and Visin 2016, sec. 4.
    """
    return (transposed(g, dy, s[1], s[0], Window.of(s), s.attr("group", 1)),)


@vjp("ConvTranspose")
def conv_transpose(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """A convolution with the same filters; the transpose of a transpose.

    Shapes: x (N, C, *S), w (C, M/group, *K), dy (N, M, *T) -> (N, C, *S).
    """
    x, w, window = s[0], s[1], Window.of(s)
    if s.attr("output_shape"):
        raise s.unsized("with output_shape and sizes")
    d = g.op("Conv", dy, w, strides=window.strides, dilations=window.dilations, pads=window.pads, group=s.attr("group"))
    return (cut(g, d, x, [0] * len(window.kernel), exact=not any(s.attr("output_padding", [0]))),)


@vjp("Gemm", wrt=(0, 1, 2))
def gemm(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """Y = alpha A' B' + beta C."""
    a, b = s[0], s[1]
    alpha, beta = s.attr("alpha", 1.0), s.attr("beta", 1.0)
    ta, tb = s.attr("transA", 0), s.attr("transB", 0)
    da = (
        g.op("Gemm", b, dy, alpha=alpha, transA=tb, transB=1) if ta else g.op("Gemm", dy, b, alpha=alpha, transB=1 - tb)
    )
    db = (
        g.op("Gemm", dy, a, alpha=alpha, transA=1, transB=ta) if tb else g.op("Gemm", a, dy, alpha=alpha, transA=1 - ta)
    )
    return (da, db, dy * beta)[: len(s.wrt)]


@vjp("MatMul", wrt=(0, 1))
def matmul(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """dA = dY B', dB = A' dY; a vector operand is a matrix of one row or column."""
    a, b = s[0], s[1]
    row, column = a.rank == 1, b.rank == 1
    if column:
        dy, b = g.unsqueeze(dy, [dy.rank]), g.unsqueeze(b, [1])
    if row:
        dy, a = g.unsqueeze(dy, [dy.rank - 1]), g.unsqueeze(a, [0])
    if a.rank == b.rank == 2:
        da, db = g.op("Gemm", dy, b, transB=1), g.op("Gemm", a, dy, transA=1)
    else:
        da, db = dy @ g.swap_last(b), g.swap_last(a) @ dy
    # A vector stands for any batch of matrices: its own axis last, the batch summed by the walk.
    return g.squeeze(da, [da.rank - 2]) if row else da, g.squeeze(db, [db.rank - 1]) if column else db


@vjp("Einsum", wrt=ALL)
def einsum(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """dy takes the operand's place in the product, and its indices the result's.

    An index that only this operand has was summed: the derivative is the same all along it. An axis of one may have
    been stretched to the size that its index has elsewhere; the walk sums that back.
    """
    terms, result = einsum_indices(s)
    sizes: dict[str, set[Dim]] = {}
    for index, size in zip("".join(terms), (n for x in s.operands for n in x.shape), strict=True):
        sizes.setdefault(index, set()).add(size)
    flows = []
    for i, term in enumerate(terms):
        others = terms[:i] + terms[i + 1 :]
        found = "".join(index for index in term if index in set(result).union(*others))
        d = g.op(
            "Einsum", dy, *s.operands[:i], *s.operands[i + 1 :], equation=f"{','.join([result, *others])}->{found}"
        )
        if not d.is_constant:
            d.tensor.shape = [
                n if len(sizes[index]) == 1 or isinstance(n, int) else None
                for index, n in zip(found, d.shape, strict=True)
            ]
        lone = [axis for axis, index in enumerate(term) if index not in found]
        flows.append(g.expand_like(g.unsqueeze(d, lone), s[i]) if lone else d)
    return tuple(flows)


def einsum_indices(s: Site) -> tuple[list[str], str]:
    """The operands' indices and the result's, with letters in the place of an ellipsis.

    Raises: UnsupportedOp for a diagonal.
    """
    left, arrow, result = s.attr("equation").replace(" ", "").partition("->")
    ranks = [x.rank - len(term) + 3 for x, term in zip(s.operands, left.split(","), strict=True) if "..." in term]
    free = "".join(sorted(set(ascii_letters) - set(left)))[: max(ranks, default=0)]
    if not arrow:
        letters = sorted(index for index in set(left) - {",", "."} if left.count(index) == 1)
        result = "".join(["..." * ("..." in left), *letters])
    terms = left.replace("...", free).split(",")
    if any(len(set(term)) < len(term) for term in terms):
        raise s.refused(f"for the equation {s.attr('equation')!r}")
    return terms, result.replace("...", free)
