"""Derivatives of reductions: what arrives is spread over the reduced axes."""

from __future__ import annotations

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.rules.table import vjp


def reduced_axes(g: Builder, s: Site) -> list[int]:
    """The axes a Reduce* node sums over, as non-negative numbers."""
    x, axes = s[0], s.optional(1)
    given = s.attr("axes") if axes is None else [int(a) for a in s.numbers(g, 1)]
    if not given:
        return [] if s.attr("noop_with_empty_axes", 0) else list(range(x.rank))
    return [int(a) % x.rank for a in given]


def spread(g: Builder, s: Site, v: Value) -> Value:
    """v, which has the shape of the node's output, with the reduced axes back as axes of size one."""
    return v if s.attr("keepdims", 1) == 1 else g.unsqueeze(v, reduced_axes(g, s))


@vjp("ReduceSum")
def reduce_sum(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (g.expand_like(spread(g, s, dy), s[0]),)


@vjp("ReduceMean")
def reduce_mean(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (g.expand_like(spread(g, s, dy) / g.count(s[0], reduced_axes(g, s), dy), s[0]),)


@vjp("ReduceMax", "ReduceMin")
def reduce_extreme(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """Shared equally among the elements that are the extreme, as in torch's amax."""
    winners = g.mask(g.equal(s[0], spread(g, s, s.rerun(g))), dy)
    return (winners * (spread(g, s, dy) / g.sum(winners, reduced_axes(g, s))),)


@vjp("ReduceProd")
def reduce_prod(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """The product of the others: of all but zeros, over x, wherever no other element is zero."""
    x, axes = s[0], reduced_axes(g, s)
    is_zero = g.mask(g.equal(x, 0), x)
    safe = x + is_zero
    alone = g.mask(g.equal(g.sum(is_zero, axes), is_zero), dy)
    return (spread(g, s, dy) * alone * g.reduce("ReduceProd", safe, axes) / safe,)


@vjp("ReduceL1")
def reduce_l1(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (spread(g, s, dy) * g.sign(s[0]),)


@vjp("ReduceL2")
def reduce_l2(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """x / ||x||, and zero at the origin, as in torch."""
    norm = spread(g, s, s.y)
    return (s[0] * (spread(g, s, dy) / g.where(norm > 0, norm, 1)),)


@vjp("ReduceSumSquare")
def reduce_sum_square(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (2 * s[0] * spread(g, s, dy),)


@vjp("ReduceLogSum")
def reduce_log_sum(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (g.expand_like(spread(g, s, dy / g.exp(s.y)), s[0]),)


@vjp("ReduceLogSumExp")
def reduce_log_sum_exp(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    return (spread(g, s, dy) * g.exp(s[0] - spread(g, s, s.y)),)


@vjp("CumSum")
def cumulative_sum(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """The same sum from the other end."""
    return (g.op("CumSum", dy, s[1], exclusive=s.attr("exclusive"), reverse=1 - s.attr("reverse", 0)),)
