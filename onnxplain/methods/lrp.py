"""Layer-wise relevance propagation: single rules, composites, deep Taylor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxplain.errors import UsageError
from onnxplain.ir.layout import refuse_other_count
from onnxplain.ir.model import Model
from onnxplain.ir.site import Rule
from onnxplain.ir.value import Value
from onnxplain.ir.weights import Array
from onnxplain.methods.heatmap import positive
from onnxplain.methods.method import Method, Parameter, Settings, at_least
from onnxplain.methods.study import Study
from onnxplain.passes.base import Pass
from onnxplain.passes.canonical.dense import SplitGemm
from onnxplain.passes.canonical.negated import NegateLayers
from onnxplain.passes.canonical.normalisation import FoldBatchNorm
from onnxplain.passes.canonical.turned import AffineBeforeTranspose
from onnxplain.passes.explain.baseline import constant_colour
from onnxplain.rules.composite import Composite
from onnxplain.rules.lrp import composites as tables
from onnxplain.rules.lrp import custom
from onnxplain.rules.lrp.affine import is_linear
from onnxplain.rules.lrp.compat import CAPTUM_EPS, captum_alpha1_beta0, captum_gamma
from onnxplain.rules.lrp.composites import Options
from onnxplain.rules.lrp.layers import alpha_beta, epsilon, gamma, z_plus

EPSILON = Parameter("epsilon", float, 1e-6, "of the epsilon rule", check=at_least(0))
GAMMA = Parameter("gamma", float, 0.25, "how much more positive contributions count", check=at_least(0))
ALPHA = Parameter("alpha", float, 2.0, "what positive contributions weigh; always beta + 1")
BETA = Parameter("beta", float, 1.0, "what negative contributions weigh; at least 0")


def _compat(*libraries: str) -> Parameter:
    """The libraries whose conventions differ from this method's own; of others there is nothing to imitate."""
    return Parameter("compat", str, "none", "conventions of another library", ("none", *libraries))


COMPAT, COMPAT_BIAS, ZENNIT = (
    _compat("captum", "zennit"),
    _compat("captum", "zennit", "innvestigate"),
    _compat("zennit"),
)
BIAS = Parameter("bias", bool, True, "whether the bias takes part and absorbs relevance")
COMMON = (
    Parameter("stabiliser", float, 1e-6, "keeps other denominators than epsilon's from zero", check=at_least(0)),
    Parameter("gate", str, "signal", "who takes the relevance of a product of two signals", ("signal", "share")),
    Parameter("pool", str, "winner", "who takes the relevance of a max-pool", ("winner", "proportional")),
    Parameter(
        "norm", str, "affine", "batch norm that could not be folded shares as a layer, or passes", ("affine", "pass")
    ),
    Parameter("sign_analysis", bool, True, "leave out terms that are proven to be zero; the same but for rounding"),
)
BOUNDS = (
    Parameter("low", str, "auto", "the lowest input value: a number, one for each channel, or auto from --preprocess"),
    Parameter("high", str, "auto", "the highest input value, likewise"),
)

Table = Callable[[Settings], Composite]
Layer = Callable[[Settings], tuple[Rule, str]]
Start = Callable[[Study], Value]


def plain(study: Study) -> Value:
    """The explained score, at its own place among the scores."""
    return study.seed * study.trace.score


def rectified(study: Study) -> Value:
    """The explained score where it is positive: deep Taylor explains evidence for a class."""
    return study.g.relu(plain(study))


def relevance(table: Table, start: Start) -> Callable[[Study, Settings], Value]:
    """The walk that starts with the explained score itself as relevance."""

    def attribute(study: Study, settings: Settings) -> Value:
        composite = table(settings)
        composite.refuse_unmatched(study.trace.sites)
        return study.propagate(
            composite,
            start(study),
            sign_analysis=settings["sign_analysis"],
            bounds=_bounds(study, settings) if "low" in settings and _needs_bounds(study, composite) else None,
        )

    return attribute


def _needs_bounds(study: Study, composite: Composite) -> bool:
    entries = [composite.entry_for(site) for site in study.trace.sites]
    return any(entry is not None and entry.bounded for entry in entries)


def _bounds(study: Study, settings: Settings) -> tuple[Value, Value]:
    """The lowest and the highest input, of batch 1. Raises: UsageError if they are not known or in the wrong order."""
    low, high = (_level(study, name, settings[name], pixel) for name, pixel in (("low", 0.0), ("high", 255.0)))
    if settings["low"] == settings["high"] == "auto":
        low, high = np.minimum(low, high), np.maximum(low, high)
    if np.any(low >= high):
        raise UsageError(f"low={settings['low']} is not below high={settings['high']} in every channel.")
    return tuple(constant_colour(study.g, study.x, study.layout, level) for level in (low, high))  # type: ignore[return-value]


def _level(study: Study, name: str, asked: str, pixel: float) -> Array:
    """A bound of the input: one number, or one for each channel."""
    if asked == "auto":
        if study.preprocess is None:
            raise UsageError(
                f"the box rule needs the {name}est input value, which is not known.\n"
                f"  Say how pictures become the input (--preprocess), or give it: --set {name}=NUMBER."
            )
        scale, mean, std = (np.asarray(study.preprocess[key], np.float64) for key in ("scale", "mean", "std"))
        level = np.atleast_1d((pixel * scale - mean) / std)
    else:
        try:
            level = np.asarray([float(part) for part in str(asked).split(",")])
        except ValueError:
            raise UsageError(f"{name}={asked!r} is not a number, nor numbers separated by commas.") from None
        if not np.isfinite(level).all():
            raise UsageError(f"{name}={asked!r} must be finite.")
    refuse_other_count(name, level.size, study.x.tensor, study.layout)
    return level


def _missing(study: Study, settings: Settings, attribution: Value) -> Value:
    """The explained score minus the sum of relevance: what bias and stabiliser absorbed."""
    return study.missing(study.target.score, attribution)


def _options(settings: Settings) -> Options:
    return Options(
        eps=CAPTUM_EPS if settings.get("compat") == "captum" else settings["stabiliser"],
        share_gate=settings["gate"] == "share",
        share_pool=settings["pool"] == "proportional",
        pass_norm=settings["norm"] == "pass" or settings.get("compat") == "zennit",
    )


def _single(
    name: str,
    summary: str,
    source: str,
    layer: Callable[[Settings], tuple[Rule, str]],
    *own: Parameter,
    derived: Callable[[Settings], Settings] = lambda given: {},
) -> Method:
    """One rule for every layer with weights."""

    def table(settings: Settings) -> Composite:
        rule, label = layer(settings)
        return tables.uniform(name, tables.layers(is_linear, rule, label), _options(settings))

    return replace(_method(name, summary, source, table, *own), derived=derived)


def _method(name: str, summary: str, source: str, table: Table, *own: Parameter, start: Start = plain) -> Method:
    return Method(
        name=name,
        summary=summary,
        source=source,
        attribute=relevance(table, start),
        reduce=positive,
        residual=_missing,
        composite=table,
        passes=_passes,
        shares=True,
        parameters=(*own, *COMMON),
    )


def _passes(settings: Settings) -> tuple[Pass[Model], ...]:
    """What makes layers of a graph. Captum leaves batch norms alone."""
    norms = () if settings.get("compat") == "captum" else (FoldBatchNorm(),)
    return SplitGemm(), NegateLayers(), AffineBeforeTranspose(), *norms


def _epsilon(settings: Settings) -> tuple[Rule, str]:
    eps = settings["epsilon"]
    return epsilon(eps, settings["bias"]), f"epsilon {eps:g}" + ("" if settings["bias"] else ", no bias")


def _gamma(settings: Settings) -> tuple[Rule, str]:
    value = settings["gamma"]
    if settings["compat"] == "captum":
        return captum_gamma(value), f"gamma {value:g} (captum)"
    return gamma(value, settings["stabiliser"]), f"gamma {value:g}"


def _alpha_beta(settings: Settings) -> tuple[Rule, str]:
    alpha, beta = settings["alpha"], settings["beta"]
    if beta < 0 or abs(alpha - beta - 1) > 1e-9:
        raise UsageError(
            f"alpha={alpha:g}, beta={beta:g}: relevance is conserved only for alpha = beta + 1 and beta >= 0."
        )
    if settings["compat"] == "captum":
        if beta:
            raise UsageError("compat=captum has alpha=1, beta=0 alone, as Captum does: --set alpha=1 --set beta=0.")
        return captum_alpha1_beta0(), "alpha 1, beta 0 (captum)"
    whole = settings["compat"] == "innvestigate"
    rule = alpha_beta(alpha, beta, settings["stabiliser"], settings["bias"], whole_bias=whole)
    return rule, f"alpha {alpha:g}, beta {beta:g}" + (", whole bias" if whole else "")


def _alpha_or_beta(given: Settings) -> Settings:
    """The one of the two that was not given."""
    match "alpha" in given, "beta" in given:
        case True, False:
            return {"beta": given["alpha"] - 1}
        case False, True:
            return {"alpha": given["beta"] + 1}
    return {}


def _z_plus(settings: Settings) -> tuple[Rule, str]:
    if settings["compat"] == "captum":
        return captum_alpha1_beta0(), "z+ (captum)"
    bias = settings["bias"] and settings["compat"] != "innvestigate"
    return z_plus(settings["stabiliser"], bias), "z+" + ("" if bias else ", no bias")


def _custom(settings: Settings) -> Composite:
    if not settings["composite"]:
        raise UsageError(
            "method lrp needs a composite: --composite FILE.toml. Other lrp-* methods have theirs built in."
        )
    return custom.read(Path(settings["composite"]), _options(settings))


_BACH = "Bach et al. 2015"
_ZENNIT = "composite as in Anders et al. 2021 (Zennit)"

METHODS = (
    _single("lrp-0", "shares by contribution, nothing added", f"{_BACH}; survey eq. 12",
            lambda p: (epsilon(0, p["bias"]), "epsilon 0"), BIAS, COMPAT),
    _single("lrp-eps", "shares by contribution, weak ones absorbed", f"{_BACH}, eq. 58; survey eq. 13",
            _epsilon, EPSILON, BIAS, COMPAT),
    _single("lrp-gamma", "favours what speaks for the class", "Montavon et al. 2019; survey eq. 14",
            _gamma, GAMMA, COMPAT),
    _single("lrp-alphabeta", "positive and negative contributions apart", f"{_BACH}, eq. 60; survey eq. 15",
            _alpha_beta, ALPHA, BETA, BIAS, COMPAT_BIAS, derived=_alpha_or_beta),
    _single("lrp-zplus", "positive contributions alone", "Montavon et al. 2017, eq. 17", _z_plus, BIAS, COMPAT_BIAS),
    _method("lrp-epsilon-plus", "z+ in convolutions, epsilon in dense layers", _ZENNIT,
            lambda p: tables.epsilon_plus(p["epsilon"], _options(p)), EPSILON, ZENNIT),
    _method("lrp-epsilon-plus-flat", "flat in the first layer, z+ in convolutions, epsilon in dense layers", _ZENNIT,
            lambda p: tables.epsilon_plus_flat(p["epsilon"], _options(p)), EPSILON, ZENNIT),
    _method("lrp-epsilon-alpha2-beta1", "alpha 2, beta 1 in convolutions, epsilon in dense layers", _ZENNIT,
            lambda p: tables.epsilon_alpha_beta(p["epsilon"], _options(p)), EPSILON, ZENNIT),
    _method("lrp-epsilon-alpha2-beta1-flat",
            "flat in the first layer, alpha 2, beta 1 in convolutions, epsilon in dense layers", _ZENNIT,
            lambda p: tables.epsilon_alpha_beta_flat(p["epsilon"], _options(p)), EPSILON, ZENNIT),
    _method("lrp-epsilon-gamma-box", "box, then gamma in convolutions, epsilon in dense layers", _ZENNIT,
            lambda p: tables.epsilon_gamma_box(p["epsilon"], p["gamma"], _options(p)), EPSILON, GAMMA, *BOUNDS, ZENNIT),
    _method("lrp-composite", "box, gamma, epsilon and LRP-0 from the input to the score", "Montavon et al. 2019",
            lambda p: tables.montavon(p["gamma"], _options(p)), GAMMA, *BOUNDS),
    _method("excitation-backprop", "z+ everywhere, without bias", "Zhang et al. 2016",
            lambda p: tables.excitation_backprop(p["compat"] == "zennit", _options(p)), ZENNIT),
    _method("deep-taylor", "z+ without bias, w^2 in the first layer", "Montavon et al. 2017; survey eq. 16-18",
            lambda p: tables.deep_taylor(False, _options(p)), start=rectified),
    _method("deep-taylor-bounded", "z+ without bias, box in the first layer", "Montavon et al. 2017; survey eq. 16-18",
            lambda p: tables.deep_taylor(True, _options(p)), *BOUNDS, start=rectified),
    _method("lrp", "a composite of your own, from a TOML file", "docs/lrp.md", _custom,
            Parameter("composite", str, "", "the TOML file; it must be given"), *BOUNDS),
)  # fmt: skip
