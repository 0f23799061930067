"""Taps: finding the layer whose activations an activation map is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from onnxplain.errors import UnsupportedModel, UsageError, nearest
from onnxplain.ir.site import Site
from onnxplain.ir.value import Dim, Value
from onnxplain.passes.explain.trace import Trace

_ARITHMETIC = frozenset(
    {
        "Add", "Sub", "Mul", "Div", "Sum", "Concat", "BatchNormalization", "Identity", "Dropout", "Cast",
        "InstanceNormalization", "GroupNormalization", "LRN",
    }
)  # fmt: skip
_KEEPS_PLACE = _ARITHMETIC | {
    "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSigmoid",
    "HardSwish", "Gelu", "Mish", "Clip", "Erf", "Exp", "Max", "Min", "Pow",
}  # fmt: skip
"""Operators after which a position still means the same place: arithmetic, and activations."""

_POOLING = frozenset({"MaxPool", "AveragePool"})


@dataclass(frozen=True)
class Candidate:
    """A tensor that can be tapped.

    layer: the node that makes it.
    cut:   whether every path from the input to the score passes through it.
    """

    layer: str
    op: str
    value: Value
    cut: bool

    @property
    def shape(self) -> tuple[Dim, ...]:
        """(N, channels, *spatial)."""
        return self.value.shape


def candidates(trace: Trace) -> list[Candidate]:
    """Every tensor on the way that has spatial extent, in order."""
    cuts = set(_cuts(trace))
    return [
        Candidate(site.name, site.op, y, y.name in cuts)
        for site in trace.sites
        for y in site.ys
        if y.name in trace.varying and has_space(y)
    ]


def find_tap(trace: Trace, layer: str = "") -> Value:
    """The layer to tap: the one asked for, or the last convolution's activated output.

    layer: a node's or tensor's name, or a pattern with * and ? (the last match counts).
    Raises: UsageError if nothing has that name or it has no spatial extent;
            UnsupportedModel if the network has no convolution that all paths pass.
    """
    return _asked_for(trace, layer) if layer else _last_convolution(trace)


def has_space(value: Value) -> bool:
    """Whether a tensor (N, C, *S) has more than one position."""
    return value.tensor.shape is not None and value.rank >= 3 and any(d != 1 for d in value.shape[2:])


def _asked_for(trace: Trace, layer: str) -> Value:
    named = {key: y for site in trace.sites for y in site.ys for key in (y.name, site.name)}
    matches = [key for key in named if key == layer] or [key for key in named if fnmatchcase(key, layer)]
    if not matches:
        known = [candidate.layer for candidate in candidates(trace)]
        raise UsageError(
            f"there is no layer {layer!r} between the input and the score. {nearest(layer, known, kind='layers')}\n"
            "  `onnxplain plan` lists them with their shapes."
        )
    value = named[matches[-1]]
    if not has_space(value):
        raise UsageError(
            f"layer {layer!r} has shape {value.shape}: its spatial extent is gone, and its map would be one number.\n"
            "  Choose a layer before the pooling; `onnxplain plan` lists them with their shapes."
        )
    return value


def _last_convolution(trace: Trace) -> Value:
    """The last convolution with spatial extent, then as far as positions keep their place and all paths join.

    A pooling counts as on the way to the activation where it stands before it.
    """
    cuts = set(_cuts(trace))
    convolutions = [i for i, s in enumerate(trace.sites) if s.op in ("Conv", "ConvTranspose") and has_space(s.y)]
    if not convolutions:
        raise UnsupportedModel(
            f"between {trace.source.name!r} and {trace.score.name!r} there is no convolution with spatial extent.\n"
            "  Name the layer to tap with --layer; `onnxplain plan` lists what there is."
        )
    reached = {trace.sites[convolutions[-1]].y.name}
    found = trace.sites[convolutions[-1]].y if reached & cuts else None
    passed, activated = _KEEPS_PLACE | _POOLING, False
    for site in trace.sites[convolutions[-1] + 1 :]:
        if site.op in passed and any(x.name in reached for x in site.operands) and has_space(site.y):
            activated = activated or site.op not in _ARITHMETIC | _POOLING
            passed = _KEEPS_PLACE if activated else passed
            reached.add(site.y.name)
            found = site.y if site.y.name in cuts else found
    if found is None:
        raise UnsupportedModel(
            f"after the last convolution ({trace.sites[convolutions[-1]].name!r}) no layer with spatial extent lies on "
            "all paths to the score.\n  Name the layer to tap with --layer; `onnxplain plan` lists what there is."
        )
    return found


def _cuts(trace: Trace) -> Iterator[str]:
    """Tensors that every path from the source to the score passes: those alive alone at some point."""
    last_use = {trace.score.name: len(trace.sites)}
    for i, site in enumerate(trace.sites):
        for x in site.operands:
            last_use[x.name] = max(i, last_use.get(x.name, 0))
    alive = {trace.source.name}
    for i, site in enumerate(trace.sites):
        alive |= {y.name for y in _used(site, trace) if y.name in last_use}
        alive = {name for name in alive if last_use[name] > i}
        if len(alive) == 1:
            yield next(iter(alive))


def _used(site: Site, trace: Trace) -> list[Value]:
    return [y for y in site.ys if y.name in trace.varying]
