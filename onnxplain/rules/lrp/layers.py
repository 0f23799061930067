"""Rules for layers with weights. Relevance R arrives at y = w x + b; every rule returns the relevance of x.

The sums of positive and of negative contributions are called p and n:

    p = x+ w+ + x- w- + b+        n = x+ w- + x- w+ + b- = y - p

where x+ = max(x, 0) and x- = min(x, 0). What sign analysis has proven to be zero is not computed.
"""

from __future__ import annotations

from dataclasses import replace

from onnxplain.errors import UnsupportedOp
from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Flows, Rule, Site
from onnxplain.ir.value import Value, shown
from onnxplain.rules.lrp.affine import Affine, is_linear


def epsilon(eps: float = 1e-6, bias: bool = True) -> Rule:
    """R_x = x w^T (R / (y + eps sign y)); LRP-0 for eps = 0.

    For layers with weights, and for every linear operator without: sums, means, pooling. Conserves up to eps and bias;
    with `bias` off the bias takes no part in y and no relevance is lost to it.
    Source: Bach et al. 2015, eq. 58; survey eq. 12, 13.
    """

    def rule(g: Builder, s: Site, r: Value) -> Flows:
        if not is_linear(s):
            back = _shared_by_output(g, s, r, eps)
            return tuple(None if d is None else s[i] * d for i, d in zip(s.wrt, back, strict=True))
        a = Affine(g, s)
        y = g.stabilise(a.rectified, eps, nonnegative=s.facts.rectified) if bias else g.stabilise(a.without_bias, eps)
        return a.flows(a.x * a.back(r / y, a.w))

    return rule


def _shared_by_output(g: Builder, s: Site, r: Value, eps: float) -> Flows:
    """The derivative at what arrived at each output over that output."""
    if len(s.ys) == 1:
        y = g.relu(s.y) if s.facts.rectified else s.y
        return s.vjp(g, r / g.stabilise(y, eps, nonnegative=s.facts.rectified))
    shares = tuple(None if d is None else d / g.stabilise(y, eps) for d, y in zip(s.arrived, s.ys, strict=True))
    return replace(s, arrived=shares).vjp(g, next(share for share in shares if share is not None))


def relative_epsilon(share: float = 0.25) -> Rule:
    """The epsilon rule with eps a share of the layer's root mean square, for each sample.

    Raises: UnsupportedOp where the samples cannot be told apart.
    Source: Montavon et al. 2019, as in the authors' tutorial.
    """

    def rule(g: Builder, s: Site, r: Value) -> Flows:
        a = Affine(g, s)
        y = a.y
        rms = s.rms(y) if s.rms is not None else None
        if rms is None:
            raise UnsupportedOp(
                f"the epsilon rule with a share of each sample's root mean square cannot take {s.op!r} (node "
                f"{s.name!r}): where the samples of a batch lie in its output {y.name!r} of shape {shown(y.shape)} "
                "cannot be told.\n  Export the model for one sample at a time, or choose another method, such as "
                "lrp-epsilon-gamma-box."
            )
        eps = rms * share + 1e-9
        moved = y + eps * g.where(y < 0, g.constant(-1, eps.dtype), 1)
        return a.flows(a.x * a.back(r / moved, a.w))

    return rule


def z_plus(eps: float = 1e-6, bias: bool = True) -> Rule:
    """R_x = x+ w+^T c + x- w-^T c with c = R / p: what speaks for the output alone takes the relevance.

    Source: Montavon et al. 2017, eq. 17 (x >= 0); the sign of x as in Bach et al. 2015.
    """

    def rule(g: Builder, s: Site, r: Value) -> Flows:
        a = Affine(g, s)
        c = r / g.stabilise(_positive_sum(a, bias), eps, nonnegative=True)
        return a.flows(_back(a, (c, a.w_positive, a.w_negative)))

    return rule


def gamma(value: float = 0.25, eps: float = 1e-6) -> Rule:
    """Positive contributions count 1 + gamma times where y > 0, negative ones where y < 0; nothing passes where y = 0.

    The denominators are y + gamma p and y + gamma n.
    Source: Montavon et al. 2019; survey eq. 14; both signs of x and y as in Andéol et al. 2021.
    """

    def rule(g: Builder, s: Site, r: Value) -> Flows:
        a = Affine(g, s)
        favouring, disfavouring = a.w + value * a.w_positive, a.w + value * a.w_negative
        if s.facts.rectified and s.facts.nonnegative:
            b = None if a.b is None else a.b + value * g.relu(a.b)
            z = g.relu(a.forward(a.x, favouring, b))
            return a.flows(a.x * a.back(r / g.stabilise(z, eps, nonnegative=True), favouring))
        p = _positive_sum(a, times=value)
        if s.facts.rectified:
            c = r / g.stabilise(a.rectified + p, eps, nonnegative=True)
            return a.flows(_back(a, (c, favouring, disfavouring)))
        # n = y - p, so y + gamma n is -((1 + gamma) |y| + gamma p) where y < 0: both denominators in one.
        c = r / g.stabilise(g.maximum(a.y, a.y * -(1 + value)) + p, eps, nonnegative=True)
        up, down = c * g.mask(a.y > 0, c), c * g.mask(a.y < 0, c)
        return a.flows(_back(a, (up, favouring, disfavouring), (down, -disfavouring, -favouring)))

    return rule


def alpha_beta(alpha: float, beta: float, eps: float = 1e-6, bias: bool = True, whole_bias: bool = False) -> Rule:
    """alpha times the share in the positive sum p, minus beta times the share in the negative sum n.

    whole_bias: both sums hold the whole bias instead of its positive and its negative part (iNNvestigate).
    Source: Bach et al. 2015, eq. 60; survey eq. 15.
    """

    def rule(g: Builder, s: Site, r: Value) -> Flows:
        a = Affine(g, s)
        b = a.bias if whole_bias else None
        if b is None:
            up, down = _both_sums(a, bias, eps)
        else:
            up = g.stabilise(_positive_sum(a, False) + b, eps)
            down = g.stabilise(_size_of_negative_sum(a, False) - b, eps)
        terms = [(r / up, alpha * a.w_positive, alpha * a.w_negative)]
        if beta:
            # The weights of -n are -w- and -w+, so the sign that beta's term has is the weights' own.
            terms.append((r / down, beta * a.w_negative, beta * a.w_positive))
        return a.flows(_back(a, *terms))

    return rule


def _positive_sum(a: Affine, bias: bool = True, times: float = 1.0) -> Value:
    """p = x+ w+ + x- w- + b+, or so many times as much."""
    b = a.g.relu(a.b) * times if bias and a.b is not None else None
    p = a.forward(a.x_positive, a.w_positive * times, b)
    return p if a.x_negative is None else p + a.forward(a.x_negative, a.w_negative * times)


def _both_sums(a: Affine, bias: bool, eps: float) -> tuple[Value, Value]:
    """p and -n, both moved away from zero by eps. Where signs were analysed, -n is what y falls short of p."""
    g, p = a.g, _positive_sum(a, bias)
    up = g.stabilise(p, eps, nonnegative=True)
    if a.site.facts.analysed and eps:
        return up, g.at_least(up - (a.y if bias else a.without_bias), eps)
    return up, g.stabilise(_size_of_negative_sum(a, bias), eps, nonnegative=True)


def _size_of_negative_sum(a: Affine, bias: bool = True) -> Value:
    """-n = -(x+ w- + x- w+ + b-)."""
    if a.site.facts.analysed:
        return a.g.relu(_positive_sum(a, bias) - (a.y if bias else a.without_bias))
    b = a.g.negative_part(a.b) if bias and a.b is not None else None
    n = a.forward(a.x_positive, a.w_negative, b)
    return a.g.relu(-(n if a.x_negative is None else n + a.forward(a.x_negative, a.w_positive)))


def _back(a: Affine, *terms: tuple[Value, Value, Value]) -> Value:
    """The sum over (c, w, v) of x+ w^T c + x- v^T c."""
    relevance = a.x_positive * a.g.total([a.back(c, w) for c, w, _ in terms])
    if a.x_negative is None:
        return relevance
    return relevance + a.x_negative * a.g.total([a.back(c, v) for c, _, v in terms])
