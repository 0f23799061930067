"""DeepLIFT: multipliers of the differences from a baseline."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxplain.ir.model import Model
from onnxplain.ir.value import Value
from onnxplain.methods.heatmap import positive
from onnxplain.methods.method import Method, Parameter, Settings, at_least
from onnxplain.methods.paths import BASELINE, BLUR, CONSTRUCTION, construction_of
from onnxplain.methods.study import Study
from onnxplain.passes.base import Pass
from onnxplain.passes.explain.path import weighted_sums
from onnxplain.passes.optimise.fold_baseline import BUDGET, FoldBaseline
from onnxplain.rules.composite import Composite
from onnxplain.rules.deeplift.composites import recommended, rescale_everywhere, reveal_cancel_everywhere

FOLD = Parameter(
    "fold_baseline",
    str,
    "auto",
    f"store a constant baseline's activations: yes, no, or auto up to {BUDGET:.0%} of what the weights take",
    ("auto", "yes", "no"),
)

Table = Callable[[float], Composite]


def contributions(table: Table) -> Callable[[Study, Settings], Value]:
    """The multiplier of each input value times its difference from the baseline (survey eq. 20, 21)."""

    def attribute(study: Study, settings: Settings) -> Value:
        composite = table(settings["threshold"])

        def against(baseline: Value) -> Value:
            difference = study.g.wide(study.x) - study.g.wide(baseline)
            return difference * study.walk(composite, reference=study.reference(baseline))

        return _averaged(study, settings, against, study.g.wide(study.x))

    return attribute


def _missing(study: Study, settings: Settings, attribution: Value) -> Value:
    """The score's difference from the baseline's (eq. 19), minus the sum of the attribution."""
    at_baseline = _averaged(study, settings, lambda b: study.score_of(study.reference(b)), study.target.score)
    return study.missing(study.target.score - at_baseline, attribution)


def _averaged(study: Study, settings: Settings, of: Callable[[Value], Value], like: Value) -> Value:
    """What `of` makes of the baseline; of several baselines in a file, the mean, one after the other."""
    g, rows = study.g, study.baseline_rows(settings)
    if rows is None:
        return of(study.baseline(settings))
    table = g.constant(rows)

    def one(index: Value) -> list[Value]:
        return [g.unsqueeze(of(g.gather(table, index, axis=0)), [0])]

    construction = construction_of(study, settings)
    return weighted_sums(g, np.full(len(rows), 1 / len(rows)), 1, one, like, 1, construction)[0]


def _folding(settings: Settings) -> tuple[Pass[Model], ...]:
    return () if settings["fold_baseline"] == "no" else (FoldBaseline(settings["fold_baseline"]),)


def _method(name: str, summary: str, source: str, table: Table) -> Method:
    return Method(
        name=name,
        summary=summary,
        source=source,
        attribute=contributions(table),
        reduce=positive,
        residual=_missing,
        composite=lambda settings: table(settings["threshold"]),
        afterwards=_folding,
        parameters=(
            BASELINE,
            BLUR,
            Parameter(
                "threshold",
                float,
                5e-3,
                "within this distance from the baseline, derivatives take over",
                check=at_least(0),
            ),
            CONSTRUCTION,
            FOLD,
        ),
    )


_SOURCE = "Shrikumar et al. 2017; survey eq. 19-25"

METHODS = (
    _method("deeplift", "RevealCancel on dense layers, Rescale elsewhere", _SOURCE, recommended),
    _method("deeplift-rescale", "change of output over change of input", _SOURCE, rescale_everywhere),
    _method(
        "deeplift-revealcancel", "what raises and what lowers a neuron kept apart", _SOURCE, reveal_cancel_everywhere
    ),
)
