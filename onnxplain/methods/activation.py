"""Activation maps: a tap on the last layer with places, weighted channel by channel.

That is the last convolution's activated output; in transformers and their like what enters the last attention, or the
mean over tokens, as maps (N, channels, rows, columns) without the class token.

FEM needs no walk, Grad-CAM one that ends at the tap, CAM one through the linear layer alone.
"""

from __future__ import annotations

from onnxplain.errors import UnsupportedModel, UsageError
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.methods.heatmap import activation, magnitude, upsampled
from onnxplain.methods.method import Method, Parameter, Settings, at_least
from onnxplain.methods.study import Study
from onnxplain.passes.explain.factors import TOKENS
from onnxplain.passes.explain.following import grids
from onnxplain.passes.explain.grid import Grid
from onnxplain.rules.composite import DERIVATIVE
from onnxplain.rules.guided import GUIDED
from onnxplain.rules.vjp.reduction import reduced_axes

LAYER = Parameter(
    "layer",
    str,
    "",
    "a node or tensor name, or a pattern; by default the last layer all of whose positions can influence the score",
)

_POOLS = ("GlobalAveragePool", "ReduceMean", "AveragePool")
_LINEAR = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Transpose", "Cast")

_QUANTISERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def grad_cam(study: Study, settings: Settings) -> Value:
    """Channels weighted by the mean of their gradient (eq. 9), summed and rectified (eq. 10)."""
    g, tap = study.g, study.tap(settings["layer"])
    if not tap.read:
        raise UsageError(
            f"the score does not depend on what layer {tap.value.name!r} holds at any place, only on its class token: "
            "every gradient there is zero.\n"
            "  Leave --layer out, or choose a layer before the last attention; `onnxplain plan` lists them."
        )
    features = g.wide(tap.maps(tap.value))
    weights = g.mean(tap.maps(study.walk(to=tap.value)), features.spatial)
    return g.relu(g.sum(weights * features, [1], keepdims=False))


def guided_grad_cam(study: Study, settings: Settings) -> Value:
    """Guided backpropagation times the Grad-CAM map at the input's size (sec. 4.6.1)."""
    g, views = study.g, study.tap(settings["layer"]).grid.views
    part, placed = upsampled(study, grad_cam(study, settings), views, settings["interpolation"])
    guided, channel = study.walk(GUIDED), study.layout.channel
    fine = g.cast(placed(part), guided)
    return guided * (fine if channel is None else g.unsqueeze(fine, [channel]))


def cam(study: Study, settings: Settings) -> Value:
    """Channels weighted by the class's weights in the linear layer behind the global average pooling.

    Those weights are the derivative of the score by the pooled features, since all between is linear.
    """
    g, pool = study.g, _global_pool(study)
    found = grids(study.trace, study.layout).get(pool[0].name)
    features = pool[0] if found is None else found.maps(g, pool[0])
    weights = study.walk(to=pool.y)
    if weights.rank > 2:
        weights = g.squeeze(weights, _pooled_axes(pool))
    return g.sum(g.unsqueeze(weights, list(features.spatial)) * features, [1], keepdims=False)


def fem(study: Study, settings: Settings) -> Value:
    """Binary maps of what rises k standard deviations above its channel's mean, weighted by that mean (eq. 26).

    The variant `pytorch-grad-cam` weights the activations themselves by the share of positions that rise, strictly,
    above the threshold, and takes k = 2.
    """
    g, tap = study.g, study.tap(settings["layer"])
    features = g.wide(tap.maps(tap.value))
    mean = g.mean(features, features.spatial)
    centred = features - mean
    deviation = g.sqrt(g.mean(centred * centred, features.spatial))
    if settings["variant"] == "paper":
        k = 1.0 if settings["k"] is None else settings["k"]
        return g.sum(mean * g.mask(features >= mean + k * deviation, features), [1], keepdims=False)
    k = 2.0 if settings["k"] is None else settings["k"]
    share = g.mean(g.mask(features > mean + k * deviation, features), features.spatial)
    return g.sum(share * features, [1], keepdims=False)


def of_tap(study: Study, settings: Settings, attribution: Value) -> Value:
    """The heatmap of a map of the layer that was tapped."""
    return activation(study, attribution, study.tap(settings["layer"]).grid.views)


def of_pool(study: Study, settings: Settings, attribution: Value) -> Value:
    """The heatmap of a map of what the global pooling reads; without a grid it is the whole input's."""
    features = _global_pool(study)[0]
    found = grids(study.trace, study.layout).get(features.name) or Grid.of_maps(features)
    return activation(study, attribution, found.views)


def _global_pool(study: Study) -> Site:
    """The global average pooling that the last layer reads.

    Raises: UnsupportedModel unless the network ends in global average pooling and one linear layer.
    """
    sites, known = study.trace.sites, grids(study.trace, study.layout)
    pools = [i for i, site in enumerate(sites) if _is_global_pool(site, known.get(site[0].name))]
    why = "it has no global average pooling before its last layer"
    if pools:
        behind = [site for site in sites[pools[-1] + 1 :] if site.op not in _LINEAR and not _adds_constant(study, site)]
        if len(behind) <= 1 and all(_is_linear(study, site) for site in behind):
            return sites[pools[-1]]
        rounding = next((site for site in behind if site.op in _QUANTISERS), None)
        what = "more than one linear layer" if rounding is None else f"{rounding.op} {rounding.name!r}, which rounds"
        why = f"behind its global average pooling {sites[pools[-1]].name!r} there is {what}"
    raise UnsupportedModel(
        f"cam needs a network that ends in global average pooling and one linear layer, and this one does not: {why}.\n"
        "  Use grad-cam: where CAM applies its map is the same, rectified and scaled, and it asks for neither."
    )


def _pooled_axes(pool: Site) -> list[int]:
    return reduced_axes(pool.y.g, pool) if pool.op == "ReduceMean" else list(pool[0].spatial)


def _is_global_pool(site: Site, grid: Grid | None) -> bool:
    """Whether the site takes the mean over all positions and keeps the channels."""
    if site.op not in _POOLS or site[0].rank < 3:
        return False
    if site.op == "ReduceMean":
        if grid is None or not grid.is_map or grid.before or grid.after:
            return False
        return sorted(reduced_axes(site.y.g, site)) == [i for i, role in enumerate(grid.roles) if _is_place(role)]
    if site.op == "AveragePool":
        whole = list(site.attr("kernel_shape")) == list(site[0].shape[2:])
        return whole and not any(site.attr("pads", [])) and set(site.attr("dilations", [1])) == {1}
    return True


def _is_place(role: int | str) -> bool:
    return role == TOKENS or isinstance(role, int)


def _adds_constant(study: Study, site: Site) -> bool:
    return site.op == "Add" and any(x.name not in study.trace.varying for x in site.operands)


def _is_linear(study: Study, site: Site) -> bool:
    return site.op in ("Gemm", "MatMul", "Conv") and all(x.name not in study.trace.varying for x in site.operands[1:])


GRAD_CAM = Method(
    name="grad-cam",
    summary="the last convolution's channels, weighted by the mean of their gradient",
    source="Selvaraju et al. 2017; survey eq. 9, 10",
    attribute=grad_cam,
    reduce=of_tap,
    coarse=True,
    composite=lambda settings: DERIVATIVE,
    parameters=(LAYER,),
)

GUIDED_GRAD_CAM = Method(
    name="guided-grad-cam",
    summary="guided backpropagation where Grad-CAM looks",
    source="Selvaraju et al. 2017, sec. 3.2; survey sec. 4.6.1",
    attribute=guided_grad_cam,
    reduce=magnitude,
    composite=lambda settings: GUIDED,
    parameters=(
        LAYER,
        Parameter(
            "interpolation", str, "linear", "how the coarse map is brought to the input's size", ("linear", "nearest")
        ),
    ),
)

CAM = Method(
    name="cam",
    summary="the last convolution's channels, weighted by the class's weights in the linear layer",
    source="Zhou et al. 2016, eq. 2; survey sec. 4.6",
    attribute=cam,
    reduce=of_pool,
    coarse=True,
)

FEM = Method(
    name="fem",
    summary="what stands out in the last convolution's channels, whatever the class",
    source="Fuad et al. 2020; survey eq. 26",
    attribute=fem,
    reduce=of_tap,
    coarse=True,
    parameters=(
        LAYER,
        Parameter(
            "k",
            float,
            None,
            "how many standard deviations above the mean the threshold lies",
            check=at_least(0),
            unsaid="1, or 2 for the variant",
        ),
        Parameter("variant", str, "paper", "which definition", ("paper", "pytorch-grad-cam")),
    ),
)

METHODS = (CAM, GRAD_CAM, GUIDED_GRAD_CAM, FEM)
