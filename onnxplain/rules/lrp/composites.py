"""LRP's composites, as tables: which rule for which layer. First match wins; what no line names is refused."""

from __future__ import annotations

from dataclasses import dataclass

from onnxplain.ir.site import Rule, Site
from onnxplain.rules.composite import AtZero, Composite, Entry, Where, op
from onnxplain.rules.lrp.affine import is_linear
from onnxplain.rules.lrp.inputs import flat, w_square, z_box
from onnxplain.rules.lrp.layers import alpha_beta, epsilon, gamma, relative_epsilon, z_plus
from onnxplain.rules.lrp.signals import (
    attention_product,
    gate,
    layer_norm,
    lookup,
    pass_through,
    proportional_pool,
    route,
    softmax,
)

_CONVOLUTIONS = ("Conv", "ConvTranspose")

_ACTIVATIONS_AT_ZERO = (
    "Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Elu", "Selu", "Celu", "Gelu", "HardSwish", "Mish", "Tanh",
    "Softsign", "Erf", "Abs", "Neg",
)  # fmt: skip
_ACTIVATIONS = (
    "Sigmoid", "HardSigmoid", "Softplus", "Clip", "Exp", "Log", "Sqrt", "Reciprocal", "Shrink", "Sin", "Cos", "Tan",
    "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "LRN", "LpNormalization",
)  # fmt: skip
_ROUTING = (
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Split", "Slice", "Pad", "Gather",
    "GatherElements", "GatherND", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Identity", "Dropout", "Cast",
    "Where", "TopK", "Trilu",
)  # fmt: skip
_WINNERS = ("MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "Max", "Min")
_NORMS = ("ReduceL1", "ReduceL2", "LpPool", "GlobalLpPool")
"""Of degree one: the value is the sum of its operand's elements, each times the derivative by it."""

_NORMALISATIONS = ("LayerNormalization", "InstanceNormalization", "GroupNormalization")

_SUMS = ("Add", "Sub", "Sum", "Mean", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "Resize", "CumSum")

SHARING = frozenset({*_SUMS, *_WINNERS, *_ROUTING, "BatchNormalization", "Relu", "LeakyRelu"})
"""Operators without weights that the epsilon rule fits: each output is a sum of shares of its operands."""


@dataclass(frozen=True)
class Options:
    """What all composites share.

    eps:        the stabiliser of sums and pools, and of the signed rules.
    share_gate: products of two signals are halved instead of going to the signal.
    share_pool: max-pooling shares in proportion instead of going to the winner.
    pass_norm:  batch norm that stands alone passes everything through (zennit) instead of sharing as y = k x + c does,
                where c takes its part. Sharing keeps relevance where the values are.
    """

    eps: float = 1e-6
    share_gate: bool = False
    share_pool: bool = False
    pass_norm: bool = False


def conv(site: Site) -> bool:
    """Convolutions with weights."""
    return site.op in _CONVOLUTIONS and is_linear(site)


def dense(site: Site) -> bool:
    """Matrix products with weights."""
    return site.op not in _CONVOLUTIONS and is_linear(site)


def of_signals(site: Site) -> bool:
    """Matrix products of two tensors that depend on the input."""
    return site.op in ("MatMul", "Einsum") and sum(site.varying) == 2


def power(site: Site) -> bool:
    """Powers of which either the base or the exponent is constant: functions of one number."""
    return site.op == "Pow" and sum(site.varying) == 1


def bias_of_layer(site: Site) -> bool:
    """Sums that add its bias to a layer with weights, whose rule sees it."""
    return site.role.of_layer


def overwritten(site: Site) -> bool:
    """Tensors of which some elements are replaced, as an assignment to a slice is exported."""
    return site.op in ("ScatterElements", "ScatterND") and site.attr("reduction", "none") == "none"


def looked_up(site: Site) -> bool:
    """Pictures that depend on the input and are read at places."""
    return site.op == "GridSample" and site.varying[0]


def first(where: Where) -> Where:
    """Of those, the ones with no other layer between the input and them."""
    return lambda site: site.role.first and where(site)


def within(where: Where, low: float, high: float) -> Where:
    """Of those, the ones at a depth from `low` to below `high`."""
    return lambda site: low <= site.role.depth < high and where(site)


def base(o: Options) -> tuple[Entry, ...]:
    """Everything that is not a layer with weights."""
    norm = op("BatchNormalization")
    pool = Entry(op("MaxPool"), proportional_pool(o.eps), "proportional", "zero")
    return (
        *((pool,) if o.share_pool else ()),
        Entry(norm, pass_through, "pass") if o.pass_norm else Entry(norm, epsilon(o.eps), f"epsilon {o.eps:g}", "zero"),
        Entry(op(*_ACTIVATIONS_AT_ZERO), pass_through, "pass", "inherits"),
        Entry(op(*_ACTIVATIONS), pass_through, "pass"),
        Entry(power, pass_through, "pass"),
        Entry(op("QuantizeLinear", "DynamicQuantizeLinear", "DequantizeLinear"), pass_through, "pass"),
        Entry(op(*_ROUTING), route, "route", "inherits"),
        Entry(overwritten, route, "route", "inherits"),
        Entry(op(*_WINNERS), route, "winner", "inherits"),
        Entry(op("ReduceLogSumExp"), route, "softmax"),
        Entry(op(*_SUMS, *_NORMS), epsilon(o.eps), f"share (eps {o.eps:g})", "zero"),
        Entry(looked_up, lookup(o.eps), f"share (eps {o.eps:g})", "zero"),
        Entry(op("Mul", "Div"), gate(o.share_gate), "half each" if o.share_gate else "signal", "inherits"),
        Entry(of_signals, attention_product(o.eps), "half each", "zero"),
        Entry(op("Softmax"), softmax, "softmax", "zero"),
        Entry(op(*_NORMALISATIONS), layer_norm(o.eps), "layer norm", "zero"),
    )


def layers(where: Where, rule: Rule, label: str, at_zero: AtZero = "zero") -> Entry:
    """A line for layers with weights."""
    return Entry(where, rule, label, at_zero)


def epsilon_line(where: Where, eps: float, bias: bool = True) -> Entry:
    """A line of the epsilon rule."""
    return layers(where, epsilon(eps, bias), f"epsilon {eps:g}" + ("" if bias else ", no bias"))


def _box(where: Where, o: Options) -> Entry:
    return Entry(first(where), z_box(o.eps), "box", bounded=True)


def _flat(where: Where, o: Options) -> Entry:
    return layers(first(where), flat(o.eps), "flat", "unknown")


def composite(name: str, o: Options, *entries: Entry) -> Composite:
    """Lines for layers with weights, behind which their biases belong to them, and those that all composites share."""
    return Composite(name, (Entry(bias_of_layer, pass_through, "bias of the layer"), *entries, *base(o)))


def uniform(name: str, entry: Entry, o: Options) -> Composite:
    """One rule for all layers with weights."""
    return composite(name, o, entry)


def epsilon_plus(eps: float, o: Options, *ahead: Entry, name: str = "lrp-epsilon-plus") -> Composite:
    return composite(name, o, *ahead, layers(conv, z_plus(o.eps), "z+"), epsilon_line(dense, eps))


def epsilon_plus_flat(eps: float, o: Options) -> Composite:
    return epsilon_plus(eps, o, _flat(is_linear, o), name="lrp-epsilon-plus-flat")


def epsilon_alpha_beta(eps: float, o: Options, *ahead: Entry, name: str = "lrp-epsilon-alpha2-beta1") -> Composite:
    of_convolutions = layers(conv, alpha_beta(2, 1, o.eps), "alpha 2, beta 1")
    return composite(name, o, *ahead, of_convolutions, epsilon_line(dense, eps))


def epsilon_alpha_beta_flat(eps: float, o: Options) -> Composite:
    return epsilon_alpha_beta(eps, o, _flat(is_linear, o), name="lrp-epsilon-alpha2-beta1-flat")


def epsilon_gamma_box(eps: float, value: float, o: Options) -> Composite:
    of_convolutions = layers(conv, gamma(value, o.eps), f"gamma {value:g}")
    return composite("lrp-epsilon-gamma-box", o, _box(conv, o), of_convolutions, epsilon_line(dense, eps))


def montavon(value: float, o: Options) -> Composite:
    """Box at the input, gamma in the lower third, epsilon in the middle, LRP-0 at the top. Montavon et al. 2019."""
    return composite(
        "lrp-composite",
        o,
        _box(is_linear, o),
        layers(within(is_linear, 0, 1 / 3), gamma(value, o.eps), f"gamma {value:g}"),
        layers(within(is_linear, 1 / 3, 2 / 3), relative_epsilon(0.25), "epsilon 0.25 rms"),
        epsilon_line(is_linear, 0),
    )


def excitation_backprop(bias: bool, o: Options) -> Composite:
    """z+ everywhere; without bias as in the paper, or with it as in zennit. Source: Zhang et al. 2016."""
    line = layers(is_linear, z_plus(o.eps, bias), "z+" if bias else "z+, no bias")
    return composite("excitation-backprop", o, line)


def deep_taylor(bounded: bool, o: Options) -> Composite:
    """z+ without bias in hidden layers; at the input w^2 for any real, the box rule for bounded values.

    Source: Montavon et al. 2017; survey eq. 16-18.
    """
    lowest = _box(is_linear, o) if bounded else Entry(first(is_linear), w_square(o.eps), "w^2")
    return composite(
        "deep-taylor-bounded" if bounded else "deep-taylor",
        o,
        lowest,
        layers(is_linear, z_plus(o.eps, bias=False), "z+, no bias"),
    )
