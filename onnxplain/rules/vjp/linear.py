"""Derivatives of convolutions and matrix products."""

from __future__ import annotations

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.rules.table import vjp


@vjp("Conv")
def conv(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """Transposed convolution with the same filters.

    Shapes: x (N, C, *S), w (M, C/group, *K), dy (N, M, *T) -> (N, C, *S).
    Source: ONNX ConvTranspose-11; Dumoulin and Visin 2016, sec. 4.
    """
    x, w = s[0], s[1]
    n = w.rank - 2
    return (
        transposed(
            g, dy, w, x,
            strides=s.attr("strides", [1] * n),
            dilations=s.attr("dilations", [1] * n),
            pads=s.attr("pads", [0] * 2 * n),
            group=s.attr("group", 1),
        ),
    )  # fmt: skip


def transposed(
    g: Builder, dy: Value, w: Value, x: Value, *, strides: list[int], dilations: list[int], pads: list[int], group: int
) -> Value:
    """The transpose of the convolution that made dy from x, cut to the extent of x.

    Pads stay symmetric, since runtimes place a ConvTranspose with others off the GPU; what is left over is cut off.
    Where sizes are unknown, output_padding of stride - 1 covers every remainder that the forward division dropped.
    """
    axes = list(w.spatial)
    before, after = pads[: len(axes)], pads[len(axes) :]
    low = [min(b, e) for b, e in zip(before, after, strict=True)]
    start = [b - p for b, p in zip(before, low, strict=True)]
    extra = []
    for i, axis in enumerate(axes):
        have, want, kernel = dy.shape[axis], x.shape[axis], w.shape[axis]
        slack = strides[i] - 1
        if isinstance(have, int) and isinstance(want, int) and isinstance(kernel, int):
            reached = (have - 1) * strides[i] + (kernel - 1) * dilations[i] + 1 - 2 * low[i]
            slack = min(max(start[i] + want - reached, 0), slack)
        extra.append(slack)
    full = g.op(
        "ConvTranspose", dy, w, strides=strides, dilations=dilations, group=group,
        pads=[*low, *low], output_padding=extra if any(extra) else None,
    )  # fmt: skip
    return _cut(g, full, x, start, axes, exact=before == after and all(k == 1 for k in strides))


def _cut(g: Builder, full: Value, x: Value, start: list[int], axes: list[int], *, exact: bool) -> Value:
    """The window of `full` that begins at `start` and has the extent of x, padded where it is too short.

    `exact` says that with start 0 the extent is right already, whatever the sizes are.
    """
    sizes, wants = [full.shape[a] for a in axes], [x.shape[a] for a in axes]
    if all(isinstance(n, int) for n in (*sizes, *wants)):
        after = [int(w or 0) + b - int(n or 0) for n, w, b in zip(sizes, wants, start, strict=True)]
        return g.pad(full, [-b for b in start], after, axes)
    if exact and not any(start):
        return full
    begin = g.ints(start)
    return g.slice(full, begin, begin + g.sizes(x, axes), axes)


@vjp("ConvTranspose")
def conv_transpose(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """A convolution with the same filters; the transpose of a transpose.

    Shapes: x (N, C, *S), w (C, M/group, *K), dy (N, M, *T) -> (N, C, *S).
    """
    x, w = s[0], s[1]
    axes = list(w.spatial)
    n = len(axes)
    strides, dilations = s.attr("strides", [1] * n), s.attr("dilations", [1] * n)
    pads = s.attr("pads", [0] * 2 * n)
    d = g.op("Conv", dy, w, strides=strides, dilations=dilations, group=s.attr("group"), pads=pads)
    return (_cut(g, d, x, [0] * n, axes, exact=not any(s.attr("output_padding", [0]))),)


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
