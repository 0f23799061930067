"""Rules for the first layer, whose operand is the picture itself: zero is a pixel value like any other there."""

from __future__ import annotations

import numpy as np

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Flows, Rule, Site
from onnxplain.ir.value import Value
from onnxplain.rules.lrp.affine import Affine


def z_box(eps: float = 1e-6) -> Rule:
    """Pixels between bounds l and h: R_x = x w^T c - l w+^T c - h w-^T c, c = R / (x w - l w+ - h w-).

    The bounds are the input's, brought to the layer's operand by whatever lies between. The bias cancels.
    Source: Montavon et al. 2017, eq. 20.
    """

    def rule(g: Builder, s: Site, r: Value) -> Flows:
        a = Affine(g, s)
        if s.bounds is None:
            raise ValueError("the box rule needs the input's bounds")
        low, high = s.bounds(a.x)
        z = a.without_bias - a.forward(low, a.w_positive) - a.forward(high, a.w_negative)
        c = r / g.stabilise(z, eps)
        up, down = a.back(c, a.w_positive), a.back(c, a.w_negative)
        return a.flows((a.x - low) * up + (a.x - high) * down)

    return rule


def w_square(eps: float = 1e-6) -> Rule:
    """In proportion to the squared weights: R_x = (w^2)^T (R / sum w^2). Source: Montavon et al. 2017, eq. 15."""
    return _by_weights(lambda g, w: w * w, eps)


def flat(eps: float = 1e-6) -> Rule:
    """Evenly over what the output sees. Source: Lapuschkin et al. 2019, the rule for lowest layers."""
    return _by_weights(lambda g, w: g.expand_like(g.constant(np.ones(1, w.dtype)), w), eps)


def _by_weights(weigh, eps: float) -> Rule:  # type: ignore[no-untyped-def]
    def rule(g: Builder, s: Site, r: Value) -> Flows:
        a = Affine(g, s)
        w = weigh(g, a.w)
        return a.flows(a.back(r / g.stabilise(a.forward(a.ones(), w), eps), w))

    return rule
