"""Taps: finding the layer whose activations an activation map is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from onnxplain.errors import UnsupportedModel, UsageError, nearest
from onnxplain.ir.layout import Layout
from onnxplain.ir.site import Site
from onnxplain.ir.value import Dim, Value, shown
from onnxplain.passes.explain.factors import BATCH, CHANNEL, TOKENS
from onnxplain.passes.explain.following import grids, is_embedding
from onnxplain.passes.explain.grid import Grid
from onnxplain.passes.explain.parts import drops_places
from onnxplain.passes.explain.trace import Trace
from onnxplain.rules.vjp.quantisation import folds_relu

_ARITHMETIC = frozenset(
    {
        "Add", "Sub", "Mul", "Div", "Sum", "Concat", "BatchNormalization", "Identity", "Dropout", "Cast",
        "InstanceNormalization", "GroupNormalization", "LRN", "QuantizeLinear", "DynamicQuantizeLinear",
        "DequantizeLinear",
    }
)  # fmt: skip
_KEEPS_PLACE = _ARITHMETIC | {
    "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSigmoid",
    "HardSwish", "Gelu", "Mish", "Clip", "Erf", "Exp", "Max", "Min", "Pow",
}  # fmt: skip
"""Operators after which a position still means the same place: arithmetic, and activations."""

_REGROUPS = frozenset({"Reshape", "Transpose", "LayerNormalization"})
"""How norms over channels or groups of them are written, and shuffles of channels: places are regrouped on the way, and
come out where they were."""

_POOLING = frozenset({"MaxPool", "AveragePool"})
_WINDOWS = _POOLING | {"LpPool"}
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_PRODUCTS = ("MatMul", "Gemm", "Einsum", "Attention")


@dataclass(frozen=True)
class Tap:
    """A tensor at which the walk stops, and where it keeps its places.

    read: whether the score depends on it place by place; a class token's last layers hold patches that nobody reads.
    """

    value: Value
    grid: Grid
    read: bool = True

    def maps(self, x: Value) -> Value:
        """The tensor, or its derivative, as (N, C, *S)."""
        return self.grid.maps(self.value.g, x)


@dataclass(frozen=True)
class Candidate:
    """A tensor that can be tapped.

    layer: the node that makes it.
    cut:   whether every path on which places reach the score passes through it.
    """

    layer: str
    op: str
    tap: Tap
    cut: bool

    @property
    def value(self) -> Value:
        return self.tap.value

    @property
    def shape(self) -> tuple[Dim, ...]:
        """(N, channels, *spatial), whatever the tensor's own shape."""
        grid, shape = self.tap.grid, self.value.shape
        return (shape[grid.roles.index(BATCH)], shape[grid.roles.index(CHANNEL)], *grid.shape)


def candidates(trace: Trace, layout: Layout) -> list[Candidate]:
    """Every tensor on the way whose places are known, in order."""
    found = _Places.of(trace, layout)
    cuts = set(found.cuts())
    return [
        Candidate(site.name, site.op, Tap(y, found.grids[y.name], y.name in found.read), y.name in cuts)
        for site in trace.sites
        for y in site.ys
        if found.is_map(y)
    ]


def find_tap(trace: Trace, layout: Layout, layer: str = "") -> Tap:
    """The layer to tap: the one asked for, or the last of which every place still counts.

    Where the score is read at one place, that is a layer before places are mixed for the last time: behind it each is
    computed by itself, and a map would be the same whatever place is read.

    layer: a node's or tensor's name, or a pattern with * and ? (the last match that is a map counts).
    Raises: UsageError if nothing has that name or it has no spatial extent;
            UnsupportedModel if the network has no layer with places that all paths pass.
    """
    found = _Places.of(trace, layout)
    if layer:
        return _asked_for(found, layer)
    limit = _limit(found)
    convolution = _last_convolution(found, _before_pool(found, limit))
    tokens = _last_tokens(found, limit)
    if tokens is not None and (convolution is None or _order(trace, tokens) > _order(trace, convolution)):
        return found.tap(tokens)
    chosen = convolution or _last_embedded(found, limit)
    if chosen is None:
        raise _nothing(found, limit < len(trace.sites))
    return found.tap(chosen)


def has_space(value: Value) -> bool:
    """Whether a tensor (N, C, *S) has more than one position."""
    return value.tensor.shape is not None and value.rank >= 3 and any(d != 1 for d in value.shape[2:])


@dataclass(frozen=True)
class _Places:
    """A trace with what is known of its tensors' places.

    grids: where each tensor keeps them, by name.
    read:  tensors of which the score depends on places, and not on the class token alone.
    """

    trace: Trace
    grids: Mapping[str, Grid]
    read: frozenset[str]

    @staticmethod
    def of(trace: Trace, layout: Layout) -> _Places:
        found = grids(trace, layout)
        read = {trace.score.name}
        for site in reversed(trace.sites):
            read.update(x.name for x in site.operands if _reads(site, x, found, read))
        return _Places(trace, found, frozenset(read))

    def is_map(self, y: Value) -> bool:
        return y.name in self.grids and self.grids[y.name].is_map and _is_real(y)

    def advice(self, layers: str) -> str:
        """What to do, about layers, where there are any to choose from."""
        if any(self.is_map(y) for site in self.trace.sites for y in site.ys):
            return layers
        instead = (
            "Choose a method that reaches the input, such as gradient."
            if _is_real(self.trace.source)
            else "Export the model with real numbers as its input, such as those that it looks up for each token."
        )
        return f"Of no layer it is known which of its axes are places, so that none can be named. {instead}"

    def follows(self, y: Value) -> bool:
        """Whether it is known where a tensor keeps its places, and that they are no row of tokens."""
        return y.name in self.grids and TOKENS not in self.grids[y.name].roles

    def tap(self, value: Value) -> Tap:
        """A tensor as a tap."""
        return Tap(value, self.grids[value.name], value.name in self.read)

    def cuts(self) -> Iterator[str]:
        """Tensors that all paths from the source pass on which the score depends place by place."""
        trace = self.trace
        last_use = {trace.score.name: len(trace.sites)}
        for i, site in enumerate(trace.sites):
            for x in site.operands:
                if _reads(site, x, self.grids, self.read):
                    last_use[x.name] = max(i, last_use.get(x.name, 0))
        alive = {trace.source.name}
        for i, site in enumerate(trace.sites):
            alive |= {y.name for y in _used(site, trace) if y.name in last_use}
            alive = {name for name in alive if last_use.get(name, -1) > i}
            if len(alive) == 1:
                yield next(iter(alive))


def _reads(site: Site, x: Value, known: Mapping[str, Grid], read: frozenset[str] | set[str]) -> bool:
    """Whether the score depends, through this site, on the places of an operand.

    Where the operand's places are not known any dependence counts.
    """
    grid = known.get(x.name)
    if grid is None:
        return True
    ways = [(i, y) for i, y in enumerate(site.ys) if y.name in read or y.name not in known]
    return any(not drops_places(site, i, grid) for i, _ in ways)


def _asked_for(found: _Places, layer: str) -> Tap:
    trace = found.trace
    named = {key: y for site in trace.sites for y in site.ys for key in (y.name, site.name)}
    matches = [key for key in named if key == layer] or [key for key in named if fnmatchcase(key, layer)]
    if not matches:
        known = [site.name for site in trace.sites for y in site.ys if found.is_map(y)]
        raise UsageError(
            f"there is no layer {layer!r} between the input and the score. {nearest(layer, known, kind='layers')}\n"
            f"  {found.advice('`onnxplain plan` lists them with their shapes.')}"
        )
    value = next((named[key] for key in reversed(matches) if found.is_map(named[key])), named[matches[-1]])
    if found.is_map(value):
        return found.tap(value)
    if not has_space(value):
        raise UsageError(
            f"layer {layer!r} has shape {shown(value.shape)}: its spatial extent is gone, and its map would be one "
            "number.\n"
            f"  {found.advice('Choose a layer before the pooling; `onnxplain plan` lists them with their shapes.')}"
        )
    raise UsageError(
        f"layer {layer!r} has shape {shown(value.shape)}, and which of its axes are places of the picture is not known"
        ": they were mixed or regrouped before it.\n"
        f"  {found.advice(_BEHIND)}"
    )


_BEHIND = "Choose the sum or the normalisation behind it; `onnxplain plan` lists such layers with their shapes."


def _limit(found: _Places) -> int:
    """Which sites come into question: those before the last that mixes places, where the score is read at one place."""
    sites = found.trace.sites
    picks = next((i for i, site in enumerate(sites) if _picks_place(site, found.grids)), None)
    if picks is None:
        return len(sites)
    return next((i for i in range(picks - 1, -1, -1) if _mixes(sites[i], found.trace)), 0)


def _before_pool(found: _Places, limit: int) -> int:
    """The same without an average over windows behind which convolutions see one place each, if sizes are free.

    For pictures of the size that the network was trained for, its windows are the whole map.
    """
    sites = found.trace.sites[:limit]
    makers = {y.name: i for i, site in enumerate(sites) for y in site.ys}
    at = next((i for i in reversed(range(limit)) if sites[i].op == "Conv" and found.is_map(sites[i].y)), None)
    while at is not None:
        site = sites[at]
        grid = found.grids.get(site.y.name)
        if site.op == "AveragePool" and grid is not None and not all(isinstance(size, int) for size in grid.shape):
            return at
        if site.op not in _KEEPS_PLACE and (site.op != "Conv" or _mixes(site, found.trace)):
            return limit
        at = makers.get(site[0].name)
    return limit


def _picks_place(site: Site, known: Mapping[str, Grid]) -> bool:
    """Whether a site takes one place of a map, and not its class token."""
    grid = known.get(site[0].name) if site.op in ("Slice", "Gather") else None
    if grid is None or not grid.is_map or drops_places(site, 0, grid):
        return False
    placed = [axis for axis, role in enumerate(grid.roles) if role == TOKENS or isinstance(role, int)]
    if site.op == "Gather":
        return placed == [site.attr("axis", 0) % len(grid.axes)] and site[1].shape in ((), (1,))
    return all(site.y.shape[axis] == 1 for axis in placed)


def _mixes(site: Site, trace: Trace) -> bool:
    """Whether what comes out at one place depends on more than one place."""
    if site.op in _PRODUCTS:
        return sum(x.name in trace.varying for x in site.operands) > 1
    if site.op.startswith("Global"):
        return True
    if site.op not in _CONVOLUTIONS and site.op not in _WINDOWS:
        return False
    kernel = site.attr("kernel_shape", None) or site[1].shape[2:]
    steps = site.attr("strides", [1] * len(kernel)) if site.op == "ConvTranspose" else [1] * len(kernel)
    return any(size != 1 and size != step for size, step in zip(kernel, steps, strict=True))


def _last_convolution(found: _Places, limit: int) -> Value | None:
    """The last convolution with spatial extent, then as far as positions keep their place and all paths join.

    A pooling counts as on the way to the activation where it stands before it.
    """
    trace, cuts = found.trace, set(found.cuts())
    convolutions = [i for i, s in enumerate(trace.sites[:limit]) if s.op in _CONVOLUTIONS and found.is_map(s.y)]
    if not convolutions:
        return None
    reached = {trace.sites[convolutions[-1]].y.name}
    tapped = trace.sites[convolutions[-1]].y if reached & cuts else None
    passed, activated = _KEEPS_PLACE | _POOLING, False
    for site in trace.sites[convolutions[-1] + 1 : limit]:
        if not any(x.name in reached for x in site.operands):
            continue
        if site.op in _REGROUPS and found.follows(site.y):
            reached.add(site.y.name)
        elif site.op in passed and found.follows(site.y):
            activated = activated or site.op not in _ARITHMETIC | _POOLING or folds_relu(site)
            passed = _KEEPS_PLACE if activated else passed
            reached.add(site.y.name)
            tapped = site.y if site.y.name in cuts and found.is_map(site.y) else tapped
    return tapped


def _last_tokens(found: _Places, limit: int) -> Value | None:
    """In transformers and their like: the last sum of branches, or its normalisation, that all places pass.

    What lies behind the last product that works place by place, or mixes places, belongs to such a network. Between
    that sum and the next product is the last point at which each place's features are whole: with a class token it is
    what enters the last attention, with a mean over places what enters that mean.
    """
    trace, cuts = found.trace, set(found.cuts())
    whole: dict[str, bool] = {}
    beyond, tapped, joined = False, None, False
    for site in trace.sites[:limit]:
        beyond = beyond or (site.op in _PRODUCTS and any(x.name in found.grids for x in site.operands))
        signals = [x for x in site.operands if x.name in trace.varying]
        joins = site.op in ("Add", "Sum") and len(signals) > 1 and all(x.shape == site.y.shape for x in signals)
        linear = site.op in _PRODUCTS or site.op in _CONVOLUTIONS
        for y in site.ys:
            if y.name not in found.grids:
                continue
            whole[y.name] = joins or (not linear and any(whole.get(x.name, False) for x in signals))
            is_cut = y.name in cuts and y.name in found.read and found.is_map(y)
            if beyond and is_cut and (whole[y.name] or not joined):
                tapped, joined = y, whole[y.name]
    return tapped


def _order(trace: Trace, value: Value) -> int:
    return next((i for i, site in enumerate(trace.sites) if value.name in (y.name for y in site.ys)), -1)


def _last_embedded(found: _Places, limit: int) -> Value | None:
    """In text models without either: what stands for each token, up to where the network is read as a whole."""
    cuts, behind = set(found.cuts()), False
    tapped = None
    for site in found.trace.sites[:limit]:
        behind = behind or is_embedding(site)
        tapped = next((y for y in site.ys if behind and y.name in cuts and found.is_map(y)), tapped)
    return tapped


def _nothing(found: _Places, one_place: bool) -> UnsupportedModel:
    trace = found.trace
    why = "neither behind the last convolution nor among tokens"
    if one_place:
        why = (
            "before places are mixed for the last time: behind that each is computed by itself, and the map would be "
            "the same whatever place the score is read at"
        )
    what_to_do = found.advice("Name the layer to tap with --layer; `onnxplain plan` lists what there is.")
    ends = f"between {trace.source.name!r} and {trace.score.name!r}"
    return UnsupportedModel(f"{ends} no layer with spatial extent lies on all paths, {why}.\n  {what_to_do}")


def _is_real(value: Value) -> bool:
    """Whether a walk can stop there: not so at the integers between two quantisers."""
    return value.dtype.kind not in "iub"


def _used(site: Site, trace: Trace) -> list[Value]:
    return [y for y in site.ys if y.name in trace.varying]
