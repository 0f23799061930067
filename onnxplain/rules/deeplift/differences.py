"""Rules for operators whose differences from the baseline follow from their operands' one by one."""

from __future__ import annotations

from dataclasses import replace

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Flows, Rule, Site
from onnxplain.ir.value import Value
from onnxplain.rules.deeplift.slopes import secant_of
from onnxplain.rules.vjp.quantisation import along_axis, range_of


def at_baseline(s: Site) -> Site:
    """The site's twin on the baseline. Raises: ValueError in a walk without one."""
    if s.ref is None:
        raise ValueError(f"{s.name!r} needs a baseline, and the walk has none")
    return s.ref


def change(s: Site, index: int) -> Value:
    """How far an operand lies from its value at the baseline."""
    return s[index] - at_baseline(s)[index]


def slope(g: Builder, dy: Value, dx: Value, near: Value, limit: Value | float) -> Value:
    """dy / dx, and `limit` where the two points are too near for a quotient."""
    return g.where(near, limit, dy / g.where(near, 1, dx))


def only(s: Site, index: int, flow: Value | None) -> Flows:
    """What flows to one operand, in its place; nothing to the others."""
    return tuple(flow if i == index else None for i in s.wrt)


def linear(g: Builder, s: Site, m: Value) -> Flows:
    """Dy = w Dx, so the multiplier is w: the derivative. Source: Shrikumar et al. 2017, sec. 3.5.1; survey sec. 5.2."""
    return s.vjp(g, m)


def rescale(threshold: float) -> Rule:
    """m Dy/Dx for a function of one number, element by element; derivatives take over where Dx is within `threshold`.

    Source: Shrikumar et al. 2017, sec. 3.5.2; survey eq. 20 and the Rescale rule.
    """

    def rule(g: Builder, s: Site, m: Value) -> Flows:
        return only(s, s.varying.index(True), secant_of(s.op, threshold)(g, s, at_baseline(s), m))

    return rule


def step(g: Builder, s: Site, m: Value) -> Flows:
    """m Dy/Dx of a function that jumps, and nothing where the input does not move."""
    dx = change(s, 0)
    return only(s, 0, m * slope(g, s.y - at_baseline(s).y, dx, g.equal(dx, 0), 0))


def quantised(g: Builder, s: Site, m: Value) -> Flows:
    """Rescale for the clipping; rounding is passed straight through, and what it adds is left to the residual."""
    low, high = range_of(g, s)
    inside, before = (g.minimum(g.maximum(x, low), high) for x in (s[0], at_baseline(s)[0]))
    dx = change(s, 0)
    share = slope(g, inside - before, dx, g.equal(dx, 0), 1)
    return only(s, 0, m / along_axis(g, s, s[1]) * share)


def requantised(g: Builder, s: Site, m: Value) -> Flows:
    """The straight-through quotient at the mean of the two scales, to which `rescaled` multiplied.

    With a scale c and its value c0 at the baseline,  D(c q) = Dq (c + c0)/2 + Dc (q + q0)/2  is Dx but for rounding.
    The first part alone arrives here, and stands for both.
    """
    return (m * 2 / (s.ys[1] + at_baseline(s).ys[1]),)


def rescaled(g: Builder, s: Site, m: Value) -> Flows:
    """A product with a quantiser's own scale: the mean of the scale's two values."""
    i = s.varying.index(True)
    return only(s, i, m * (s[1 - i] + at_baseline(s)[1 - i]) * 0.5)


def reciprocal(g: Builder, s: Site, m: Value) -> Flows:
    """D(1/x) = -Dx / (x x0)."""
    return (-m * s.y * at_baseline(s).y,)


def root(g: Builder, s: Site, m: Value) -> Flows:
    """D(sqrt x) = Dx / (sqrt x + sqrt x0); nothing where both are zero."""
    both = s.y + at_baseline(s).y
    flow = m * g.mask(both > 0, m) / g.where(both > 0, both, 1)
    return only(s, 0, flow)


def halfway(s: Site) -> Site:
    """The site with operands and outputs halfway between sample and baseline."""
    ref = at_baseline(s)

    def mean(value: Value | None, other: Value | None) -> Value | None:
        return value if value is None or other is None or value.name == other.name else 0.5 * (value + other)

    return replace(
        s,
        x=tuple(mean(a, b) if varying else a for a, b, varying in zip(s.x, ref.x, s.varying, strict=True)),
        ys=tuple(0.5 * (a + b) for a, b in zip(s.ys, ref.ys, strict=True)),
    )


def midpoint(g: Builder, s: Site, m: Value) -> Flows:
    """The derivative halfway, exact for relations of degree two: products, and quotients read as y b = a.

    Products of two signals (gates, attention), quotients, Euclidean norms and squares. Of an Einsum no more than two
    operands may depend on the input.
    """
    if sum(s.varying) > 2:
        raise s.refused("of more than two operands that depend on the input")
    return halfway(s).vjp(g, m)


def product() -> Rule:
    """The symmetric rule; Rescale where the other factor changes without a derivative, as x * (x > 0) does.

    Such a product jumps, so that the derivative says nothing of any way that is not zero.
    """
    otherwise = rescale(0)

    def rule(g: Builder, s: Site, m: Value) -> Flows:
        ref = at_baseline(s)
        steady = [(a, b) for a, b, varying in zip(s.x, ref.x, s.varying, strict=True) if not varying]
        masked = any(a is not None and b is not None and a.name != b.name for a, b in steady)
        return otherwise(g, s, m) if masked else midpoint(g, s, m)

    return rule


def choice(threshold: float) -> Rule:
    """Where: as the derivative where sample and baseline choose alike; else Dy is shared by Da : Db squared.

    Dy = m_a Da + m_b Db has many solutions, and this is the smallest. It is Rescale where both come from one signal, as
    in a leaky ReLU written with Where.
    """

    def rule(g: Builder, s: Site, m: Value) -> Flows:
        ref, flows = at_baseline(s), s.vjp(g, m)
        if s[0].name == ref[0].name:
            return flows
        changes = {i: change(s, i) for i in s.wrt if s.varying[i]}
        size = g.total([d * d for d in changes.values()])
        near = size < threshold * threshold
        alike = g.equal(s[0], ref[0]) | near
        share = m * (s.y - ref.y) / g.where(near, 1, size)
        return tuple(
            g.where(alike, flow, share * changes[i]) if flow is not None and i in changes else None
            for i, flow in zip(s.wrt, flows, strict=True)
        )

    return rule


def magnitude_sum(g: Builder, s: Site, m: Value) -> Flows:
    """D|x| = Dx (x + x0)/(|x| + |x0|), summed as the operator sums: its derivative at one is that sum's."""
    x, x0 = s[0], at_baseline(s)[0]
    size = abs(x) + abs(x0)
    (back,) = s.with_operands(g.full_like(x, 1), *s.x[1:]).vjp(g, m)
    return (None if back is None else back * (x + x0) / g.where(size > 0, size, 1),)
