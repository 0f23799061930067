"""Rules for operators that divide by what they compute from all of their operand: normalisation and softmax."""

from __future__ import annotations

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Flows, Site
from onnxplain.ir.value import Value
from onnxplain.rules.deeplift.differences import at_baseline, slope
from onnxplain.rules.vjp.normalisation import as_normalised, channel_window, normalised_axes, scaled
from onnxplain.rules.vjp.reduction import reduced_axes, spread

_SERIES_BELOW = 1e-3
"""Of a logarithm's difference: nearer, a mean is exact to rounding where a quotient is not."""


def _normalised(g: Builder, x: Value, x0: Value, m: Value, axes: list[int], eps: float) -> Value:
    """Multipliers of y = u / d, u = x - mean(x), d = sqrt(mean(u^2) + eps), over `axes`.

    All three relations are of degree two, so their derivatives halfway are exact:
    Dy = (Du - ym Dd) / dm,  Dd = mean(um Du) / dm, with ym, um, dm halfway between sample and baseline.
    """
    u, u0 = x - g.mean(x, axes), x0 - g.mean(x0, axes)
    d, d0 = (g.sqrt(g.mean(each * each, axes) + eps) for each in (u, u0))
    halfway = 0.5 * (u / d + u0 / d0)
    unit = (u + u0) / (d + d0)
    return (m - g.mean(m, axes) - unit * g.mean(m * halfway, axes)) * (2 / (d + d0))


def norm(g: Builder, s: Site, m: Value) -> Flows:
    """Of layers, instances and groups."""
    if any(value is not None for value in s.arrived[1:]):
        raise s.refused("whose mean or deviation is used by itself")
    x, x0 = (as_normalised(g, s, each[0]) for each in (s, at_baseline(s)))
    dx = _normalised(g, x, x0, scaled(g, s, m), normalised_axes(s), s.attr("epsilon", 1e-5))
    return (dx if x is s[0] else g.reshape_like(dx, s[0]),)


def mean_variance_norm(g: Builder, s: Site, m: Value) -> Flows:
    """(x - mean) / (deviation + 1e-9): the small number is squared, since here it goes under the root."""
    return (_normalised(g, s[0], at_baseline(s)[0], m, s.attr("axes", [0, 2, 3]), 1e-18),)


def lp_norm(g: Builder, s: Site, m: Value) -> Flows:
    """y n = x, n = ||x||_p: Dy = (Dx - ym Dn) / nm, Dn the sum of Dx times what `along` says; p = 1, 2."""
    x, x0, axes, p = s[0], at_baseline(s)[0], [s.attr("axis", -1)], s.attr("p", 2)
    norm = g.reduce(f"ReduceL{p}", x, axes) + g.reduce(f"ReduceL{p}", x0, axes)
    safe = g.where(norm > 0, norm, 1)
    size = safe if p == 2 else abs(x) + abs(x0)
    along = (x + x0) / (size if p == 2 else g.where(size > 0, size, 1))
    halfway = 0.5 * (s.y + at_baseline(s).y)
    return (g.mask(norm > 0, m) * (m - along * g.sum(m * halfway, axes)) * (2 / safe),)


def lrn(g: Builder, s: Site, m: Value) -> Flows:
    """y = x f(u), f(u) = u^-beta, u = bias + alpha/size * (sum of x^2 over neighbouring channels).

    A product halfway, Rescale for f, and a square halfway: Dy = Dx fm + xm (Df/Du) alpha/size sum (x + x0) Dx.
    """
    x, x0, size = s[0], at_baseline(s)[0], s.attr("size")
    alpha, beta, bias = s.attr("alpha", 1e-4), s.attr("beta", 0.75), s.attr("bias", 1.0)
    before, after = (size - 1) // 2, size // 2
    u, u0 = (bias + (alpha / size) * channel_window(g, each * each, size, before, after) for each in (x, x0))
    f, f0 = u**-beta, u0**-beta
    near = abs(u - u0) < _SERIES_BELOW * u
    of_f = slope(g, f - f0, u - u0, near, -beta * (0.5 * (u + u0)) ** (-beta - 1))
    seen = channel_window(g, m * (0.5 * (x + x0)) * of_f, size, after, before)
    return (m * (0.5 * (f + f0)) + (alpha / size) * (x + x0) * seen,)


def logarithmic_mean(g: Builder, a: Value, b: Value, log_ratio: Value) -> Value:
    """(a - b) / log(a/b) for positive a and b, given log(a/b); 0 where both are zero."""
    known = g.where(a + b > 0, log_ratio, 0)
    return slope(g, a - b, known, abs(known) < _SERIES_BELOW, 0.5 * (a + b))


def softmax(g: Builder, s: Site, m: Value) -> Flows:
    """The derivative of softmax with L, the logarithmic mean of y and y0, in the place of y: L (m - sum(L m)/sum(L)).

    log y = x - c, c the logarithm of the sum. So Dy = L (Dx - Dc) by Rescale of the exponential; and since y and y0
    both sum to one, 0 = sum L (Dx - Dc), which gives Dc. Nothing is divided but L by its own sum, row by row.
    """
    axis, x, x0, ref = s.attr("axis", -1), s[0], at_baseline(s)[0], at_baseline(s)
    log_ratio = g.op("LogSoftmax", x, axis=axis) - g.op("LogSoftmax", x0, axis=axis)
    mean = logarithmic_mean(g, s.y, ref.y, log_ratio)
    return (mean * (m - g.sum(mean * m, [axis]) / g.sum(mean, [axis])),)


def log_softmax(g: Builder, s: Site, m: Value) -> Flows:
    """Dy = Dx - Dc, with Dc as for softmax."""
    axis, ref = s.attr("axis", -1), at_baseline(s)
    mean = logarithmic_mean(g, g.exp(s.y), g.exp(ref.y), s.y - ref.y)
    return (m - mean * (g.sum(m, [axis]) / g.sum(mean, [axis])),)


def log_sum_exp(g: Builder, s: Site, m: Value) -> Flows:
    """Dc as for softmax, over any axes."""
    log_y, log_y0 = s[0] - spread(g, s, s.y), at_baseline(s)[0] - spread(g, s, at_baseline(s).y)
    mean = logarithmic_mean(g, g.exp(log_y), g.exp(log_y0), log_y - log_y0)
    return (spread(g, s, m) * mean / g.sum(mean, reduced_axes(g, s)),)
