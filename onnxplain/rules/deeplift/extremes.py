"""Rules for maxima and minima.

Let y = max(x) and let the maximum rise. Then the element that is the maximum at the sample rose at least as far: it is
y now, and was at most y0. If the maximum falls, the element that was the maximum at the baseline fell at least as far.
So one element moves with y, in its direction and no less, and m Dy/Dx at this element alone keeps the sum: the quotient
lies between 0 and 1, and where Dx is zero so is Dy. Where windows overlap, what they send to one element is added.

For windows that do not overlap this is the rule of Captum and SHAP.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Flows, Site
from onnxplain.ir.value import Value
from onnxplain.ir.window import Window, pool_attributes
from onnxplain.rules.deeplift.differences import at_baseline, change, slope
from onnxplain.rules.vjp.reduction import reduced_axes, spread


def _moves_with_sample(dy: Value, lowest: bool = False) -> Value:
    """Whether the element that is the extreme at the sample is the one that moves far enough."""
    return dy <= 0 if lowest else dy >= 0


def _share(g: Builder, dy: Value, dx: Value) -> Value:
    """Dy/Dx at the elements chosen; the derivative, which is 1 there, where nothing moves."""
    return slope(g, dy, dx, g.equal(dx, 0), 1)


def extreme(g: Builder, s: Site, m: Value) -> Flows:
    """Max, Min: several operands, element by element; shared equally by operands that are equal."""
    ref = at_baseline(s)
    y, y0 = s.rerun(g), ref.rerun(g)
    with_sample = _moves_with_sample(y - y0, s.op == "Min")
    now = [g.mask(g.equal(x, y), m) for x in s.operands]
    before = [g.mask(g.equal(x, y0), m) for x in ref.operands]
    counts = g.total(now), g.total(before)
    flows: list[Value | None] = []
    for i, (here, there) in enumerate(zip(now, before, strict=True)):
        part = g.where(with_sample, here / counts[0], there / counts[1])
        share = _share(g, y - y0, change(s, i))
        flows.append(m * g.where(part > 0, part * share, 0) if s.varying[i] else None)
    return tuple(flows)


def reduced_extreme(g: Builder, s: Site, m: Value) -> Flows:
    """ReduceMax, ReduceMin, GlobalMaxPool: one operand over some of its axes; shared equally by equal elements."""
    ref, pooled = at_baseline(s), s.op == "GlobalMaxPool"
    axes = list(s[0].spatial) if pooled else reduced_axes(g, s)

    def wide(v: Value) -> Value:
        return v if pooled else spread(g, s, v)

    y, y0 = wide(s.rerun(g)), wide(ref.rerun(g))
    now, before = g.mask(g.equal(s[0], y), m), g.mask(g.equal(ref[0], y0), m)
    with_sample = _moves_with_sample(y - y0, s.op == "ReduceMin")
    part = g.where(with_sample, now / g.sum(now, axes), before / g.sum(before, axes))
    share = _share(g, y - y0, change(s, 0))
    return (wide(m) * g.where(part > 0, part * share, 0),)


def max_pool(g: Builder, s: Site, m: Value) -> Flows:
    """The element of each window is found by index, and what windows send is scattered and added."""
    x, ref = s[0], at_baseline(s)
    now, before = (_flat_winners(g, each, pool_attributes(s.node)) for each in (x, ref[0]))
    place = g.where(_moves_with_sample(s.y - ref.y), now, before) + _first_of_each(g, x)
    chosen = g.reshape(place, [-1])
    dx = g.op("GatherElements", g.reshape(change(s, 0), [-1]), chosen, axis=0)
    dy = g.reshape(s.y - ref.y, [-1])
    zeros = g.reshape(g.full_like(x, 0), [-1])
    flat = g.op(
        "ScatterElements",
        zeros,
        chosen,
        g.reshape(m, [-1]) * _share(g, dy, dx),
        axis=0,
        reduction="add" if Window.of_node(s.node).overlaps else None,
    )
    return (g.reshape(flat, g.target_shape(x)),)


def _flat_winners(g: Builder, x: Value, attrs: dict[str, Any]) -> Value:
    """For each window the position of its maximum within the sample: ONNX counts through the whole batch."""
    _, winners = g.ops("MaxPool", x, outputs=2, **attrs)
    return winners - _first_of_each(g, x)


def _first_of_each(g: Builder, x: Value) -> Value:
    """Where each sample begins in the flattened batch, as (N, 1, ...)."""
    size = g.reduce("ReduceProd", g.shape(x, 1), [0])
    samples = g.op("Range", g.constant(np.int64(0)), g.squeeze(g.shape(x, 0, 1), [0]), g.constant(np.int64(1)))
    return g.reshape(samples * size, [-1, *([1] * (x.rank - 1))])
