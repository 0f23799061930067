"""Rules for operators without weights: activations, pooling, gates, attention, normalisation."""

from __future__ import annotations

from dataclasses import replace

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Flows, Rule, Site
from onnxplain.ir.value import Value
from onnxplain.ir.window import pool_attributes
from onnxplain.rules.lrp.layers import epsilon
from onnxplain.rules.sites import site_of
from onnxplain.rules.vjp.normalisation import as_normalised, normalised_axes, scaled


def pass_through(g: Builder, s: Site, r: Value) -> Flows:
    """The operand takes what arrived, whatever the operator did to it. Source: Bach et al. 2015, sec. 2."""
    first = next(i for i in s.wrt if s.varying[i])
    return tuple(r if i == first else None for i in s.wrt)


def route(g: Builder, s: Site, r: Value) -> Flows:
    """Relevance goes where the values came from: the derivative of an operator that only moves or selects."""
    return s.vjp(g, r)


def proportional_pool(eps: float = 1e-6) -> Rule:
    """Max-pooling as if it were a mean: everything in the window shares in proportion to its value."""

    def rule(g: Builder, s: Site, r: Value) -> Flows:
        mean = site_of(g, g.op("AveragePool", s[0], **pool_attributes(s.node)).tensor.inputs[0], {s[0].name})
        (back,) = mean.vjp(g, r / g.stabilise(mean.y, eps))
        return (None if back is None else s[0] * back,)

    return rule


def gate(share: bool) -> Rule:
    """A product of two signals. The signal takes all (`Role.signal`); or, with `share` or without one, each takes half.

    The signal of x * sigmoid(x), of squeeze and excitation and of x / norm(x) is x, and that of a * sigmoid(b) is a.
    Source: Arras et al. 2017 (signal takes all); Achtibat et al. 2024, eq. 14 (uniform).
    """

    def rule(g: Builder, s: Site, r: Value) -> Flows:
        if sum(s.varying) == 1:
            return pass_through(g, s, r)
        if share or s.role.signal is None:
            return tuple(r * 0.5 for _ in s.wrt)
        return tuple(r if i == s.role.signal else None for i in s.wrt)

    return rule


def attention_product(eps: float = 1e-6) -> Rule:
    """A matrix product of two signals: each operand takes half of every term. Achtibat et al. 2024, prop. 3.3."""

    def rule(g: Builder, s: Site, r: Value) -> Flows:
        back = s.vjp(g, r / g.stabilise(2 * s.y, eps))
        return tuple(None if d is None else s[i] * d for i, d in zip(s.wrt, back, strict=True))

    return rule


def lookup(eps: float = 1e-6) -> Rule:
    """A picture read at places: its elements share in proportion; the places, which only say where, take nothing."""
    share = epsilon(eps)

    def rule(g: Builder, s: Site, r: Value) -> Flows:
        return share(g, replace(s, varying=(True, False)), r)

    return rule


def softmax(g: Builder, s: Site, r: Value) -> Flows:
    """R_x = x (R - y sum R), and nothing where y = 0: what a mask hides may be -inf.

    Source: Achtibat et al. 2024, prop. 3.1.
    """
    return (g.where(s.y > 0, s[0] * (r - s.y * g.sum(r, [s.attr("axis", -1)])), 0),)


def layer_norm(eps: float = 1e-6) -> Rule:
    """The division by the deviation passes relevance through; centring and scaling share it as linear layers do.

    Source: Achtibat et al. 2024, prop. 3.4.
    """

    def rule(g: Builder, s: Site, r: Value) -> Flows:
        share = r / g.stabilise(s.y, eps)
        x, axes, sent = as_normalised(g, s, s[0]), normalised_axes(s), scaled(g, s, share)
        centred = x - g.mean(x, axes)
        c = sent / g.sqrt(g.mean(centred * centred, axes) + s.attr("epsilon", 1e-5))
        flow = x * (c - g.mean(c, axes))
        return (flow if x is s[0] else g.reshape_like(flow, s[0]), *(None for _ in s.wrt[1:]))

    return rule
