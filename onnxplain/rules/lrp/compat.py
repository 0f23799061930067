"""Rules as other libraries compute them where they differ from the papers, for comparison with earlier results."""

from __future__ import annotations

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Flows, Rule, Site
from onnxplain.ir.value import Value
from onnxplain.rules.lrp.affine import Affine

CAPTUM_EPS = 1e-9


def captum_gamma(value: float) -> Rule:
    """w + gamma w+ for operands of either sign, the bias as it is. Captum 0.9's GammaRule."""
    return _stretched(lambda g, a: a.w + value * a.w_positive)


def captum_alpha1_beta0() -> Rule:
    """w+ alone, for operands of either sign, with the bias as it is. Captum 0.9's Alpha1_Beta0_Rule (see its #1234)."""
    return _stretched(lambda g, a: a.w_positive)


def _stretched(weigh) -> Rule:  # type: ignore[no-untyped-def]
    def rule(g: Builder, s: Site, r: Value) -> Flows:
        a = Affine(g, s)
        w = weigh(g, a)
        return a.flows(a.x * a.back(r / g.stabilise(a.forward(a.x, w, a.b), CAPTUM_EPS), w))

    return rule
