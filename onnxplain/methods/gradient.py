"""The gradient family: one walk each, under the derivative or a rule for what comes back through a ReLU."""

from __future__ import annotations

from onnxplain.ir.value import Value
from onnxplain.methods.heatmap import magnitude, positive
from onnxplain.methods.method import Method, Settings
from onnxplain.methods.study import Study
from onnxplain.rules.composite import DERIVATIVE, Composite
from onnxplain.rules.guided import DECONVNET, GUIDED


def _saliency(name: str, summary: str, source: str, composite: Composite) -> Method:
    return Method(
        name=name,
        summary=summary,
        source=source,
        attribute=lambda study, settings: study.walk(composite),
        reduce=magnitude,
        composite=lambda settings: composite,
    )


def _gradient_x_input(study: Study, settings: Settings) -> Value:
    return study.x * study.walk()


GRADIENT = _saliency(
    "gradient",
    "the derivative of the class's score by each input value",
    "Simonyan et al. 2013; survey eq. 4-6",
    DERIVATIVE,
)

DECONVNET_METHOD = _saliency(
    "deconvnet",
    "what comes back is rectified at each ReLU, whatever went forward",
    "Zeiler and Fergus 2014; survey sec. 4.1",
    DECONVNET,
)

GUIDED_BACKPROP = _saliency(
    "guided-backprop",
    "the gradient with negative values dropped at each ReLU",
    "Springenberg et al. 2015; survey sec. 4.3",
    GUIDED,
)

GRADIENT_X_INPUT = Method(
    name="gradient-x-input",
    summary="the gradient times the input: each value's share in a linear view of the score",
    source="Shrikumar et al. 2016, sec. 3; Ancona et al. 2018, tab. 1",
    attribute=_gradient_x_input,
    reduce=positive,
    composite=lambda settings: DERIVATIVE,
)

METHODS = (GRADIENT, GRADIENT_X_INPUT, DECONVNET_METHOD, GUIDED_BACKPROP)
