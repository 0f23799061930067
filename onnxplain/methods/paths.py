"""Methods that average a walk over many inputs: Integrated Gradients along a line, SmoothGrad over noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxplain import interface
from onnxplain.errors import UsageError
from onnxplain.ir.value import Value
from onnxplain.methods import gradient
from onnxplain.methods.heatmap import magnitude, positive
from onnxplain.methods.method import Method, Parameter, Settings, at_least
from onnxplain.methods.study import Study
from onnxplain.passes.explain.noise import standard_normal
from onnxplain.passes.explain.path import CONSTRUCTIONS, weighted_sums
from onnxplain.rules.composite import DERIVATIVE, Composite

Points = NDArray[np.float64]

_REPEATED = 10
"""Inputs at a time where nodes are repeated for every chunk: one at a time would repeat them tens of times, and each
repetition is launched by itself and has little to do."""

QUADRATURES = ("gauss-legendre", "left", "right", "middle", "trapezoid")

BASELINE = Parameter("baseline", str, "zeros", "zeros, black, mean, blur, input (a run-time input), or a .npy file")
BLUR = Parameter("blur_sigma", float, 10.0, "standard deviation of the baseline 'blur', in pixels", check=at_least(0.1))
CHUNK = Parameter(
    "chunk", int, 0, "how many are computed at a time, at most as many as there are; 0 chooses", check=at_least(0)
)
CONSTRUCTION = Parameter(
    "construction", str, "auto", "how chunks follow each other: a loop, or nodes repeated", CONSTRUCTIONS
)


def quadrature(name: str, n: int) -> tuple[Points, Points]:
    """Nodes in [0, 1] and weights that sum to one.

    Raises: UsageError for a trapezoid of fewer than two points.
    """
    if name == "gauss-legendre":
        nodes, weights = np.polynomial.legendre.leggauss(n)
        return (nodes + 1) / 2, weights / 2
    even = np.full(n, 1 / n)
    if name == "left":
        return np.arange(n) / n, even
    if name == "right":
        return np.arange(1, n + 1) / n, even
    if name == "middle":
        return (np.arange(n) + 0.5) / n, even
    if n < 2:
        raise UsageError("the trapezoid rule needs at least 2 steps.")
    ends = np.full(n, 1 / (n - 1))
    ends[[0, -1]] /= 2
    return np.linspace(0, 1, n), ends


def integrated_gradients(study: Study, settings: Settings) -> Value:
    """(x - x') times the mean gradient on the line from x' to x (eq. 7)."""
    g, x = study.g, study.x
    nodes, weights = quadrature(settings["quadrature"], settings["steps"])
    x, baseline = g.wide(x), g.wide(study.baseline(settings))
    size = _chunk(study, settings, len(nodes))
    # The last chunk is filled up with points that weigh nothing: where there is one, since nothing times NaN is NaN.
    table = g.constant(np.concatenate([nodes, np.full(size, nodes[-1])]), x.dtype)

    def gradients(index: Value) -> list[Value]:
        alpha = g.unsqueeze(g.gather(table, index, axis=0), list(range(1, x.rank + 1)))
        return [study.along(baseline + alpha * (x - baseline), lambda each: each.walk())]

    (mean,) = weighted_sums(g, weights, size, gradients, x, 1, construction_of(study, settings))
    return (x - baseline) * mean


def _completeness(study: Study, settings: Settings, attribution: Value) -> Value:
    """The score's difference to the baseline's, minus the sum of the attribution."""
    return study.missing(study.target.score - study.score_at(study.baseline(settings)), attribution)


def smoothgrad(study: Study, settings: Settings) -> Value:
    """The mean of a base method's maps over noisy copies (eq. 8), of their squares, or their variance.

    The variance is taken about the map without noise: the difference of two squares keeps no digit of a small one.
    """
    g, x = study.g, study.x
    x = g.wide(x)
    n, variant = settings["samples"], settings["variant"]
    base = _BASES[settings["base"]]
    size = _chunk(study, settings, n)
    rest = range(1, x.rank)
    deviation = (g.max(x, rest) - g.min(x, rest)) * settings["sigma"]
    given = study.run_time_input(interface.NOISE, [n, *x.shape]) if settings["noise"] == "input" else None
    centre = g.unsqueeze(base.attribute(study, {}), [0]) if variant == "vargrad" else None

    def maps(index: Value) -> list[Value]:
        if given is None:
            drawn = standard_normal(g, index, g.shape(x, 1), settings["seed"], x)
            noise = g.unsqueeze(g.named(drawn, [index.shape[0], *x.shape[1:]]), [1])
        else:
            noise = g.gather(given, g.minimum(index, n - 1), axis=0)
        found = study.along(x + deviation * noise, lambda each: base.attribute(each, {}))
        if centre is not None:
            apart = found - centre
            return [apart, apart * apart]
        return [found * found if variant == "squared" else found]

    sums = weighted_sums(
        g, np.full(n, 1 / n), size, maps, x, 2 if variant == "vargrad" else 1, construction_of(study, settings)
    )
    return g.relu(sums[1] - sums[0] * sums[0]) if variant == "vargrad" else sums[0]


def construction_of(study: Study, settings: Settings) -> str:
    """A loop keeps the file small and loads fast; where loops are not wanted, nodes are repeated."""
    asked = str(settings["construction"])
    return ("loop" if study.loops else "unroll") if asked == "auto" else asked


def _chunk(study: Study, settings: Settings, n: int) -> int:
    """How many inputs are stacked: what was asked for, or else what fits the construction. Raises: UsageError."""
    asked = settings["chunk"] or _fitting(study, construction_of(study, settings), n)
    if asked > n:
        raise UsageError(f"chunk={asked} is larger than the {n} inputs there are.\n  Choose a chunk from 1 to {n}.")
    why = study.unstackable(asked)
    if why is not None:
        raise UsageError(
            f"chunk={asked} needs a model that takes several batches at once, each sample by itself, and of this one "
            f"that is not sure: {why}.\n  Leave chunk at 1."
        )
    return int(asked)


def _fitting(study: Study, construction: str, n: int) -> int:
    """One at a time in a loop, several in repeated nodes, where the model takes them."""
    several = min(n, _REPEATED)
    return several if construction == "unroll" and study.unstackable(several) is None else 1


def _composite_of_base(settings: Settings) -> Composite:
    composite = _BASES[settings["base"]].composite
    return DERIVATIVE if composite is None else composite({})


_BASES = {method.name: method for method in gradient.METHODS}

INTEGRATED_GRADIENTS = Method(
    name="integrated-gradients",
    summary="the gradient averaged on the way from a baseline, times the way",
    source="Sundararajan et al. 2017; survey eq. 7",
    attribute=integrated_gradients,
    reduce=positive,
    residual=_completeness,
    composite=lambda settings: DERIVATIVE,
    parameters=(
        Parameter("steps", int, 50, "points on the way", check=at_least(1)),
        Parameter("quadrature", str, "gauss-legendre", "where the points lie and what they weigh", QUADRATURES),
        BASELINE,
        BLUR,
        CHUNK,
        CONSTRUCTION,
    ),
)

SMOOTHGRAD = Method(
    name="smoothgrad",
    summary="a gradient method averaged over noisy copies of the input",
    source="Smilkov et al. 2017; survey eq. 8; VarGrad: Adebayo et al. 2018",
    attribute=smoothgrad,
    reduce=magnitude,
    composite=_composite_of_base,
    parameters=(
        Parameter("base", str, "gradient", "the method that is averaged", tuple(_BASES)),
        Parameter("samples", int, 50, "noisy copies", check=at_least(1)),
        Parameter("sigma", float, 0.15, "the noise's standard deviation over each sample's range", check=at_least(0)),
        Parameter(
            "variant", str, "mean", "of the maps, of their squares, or their variance", ("mean", "squared", "vargrad")
        ),
        Parameter("noise", str, "seeded", "drawn in the graph, or a run-time input", ("seeded", "input")),
        Parameter("seed", int, 0, "of the noise drawn in the graph", check=at_least(0)),
        CHUNK,
        CONSTRUCTION,
    ),
)

METHODS = (INTEGRATED_GRADIENTS, SMOOTHGRAD)
