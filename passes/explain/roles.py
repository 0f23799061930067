"""Roles: what composites go by that a node does not show by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from onnxplain.ir.site import Role, Site
from onnxplain.rules.lrp.affine import is_linear

_PRODUCTS = ("Mul", "Div")
_GATES = ("Sigmoid", "HardSigmoid")
_AFFINE = frozenset({"Add", "Sub", "Mul", "Div", "BatchNormalization"})
_PASSING = frozenset({"Neg", "Identity", "Cast", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"})


def roles(sites: Sequence[Site]) -> dict[str, Role]:
    """The role of each site, by its name.

    A layer with weights is first if no other lies between the input and it; networks with several branches at the
    input have several. `depth` is the share of such layers that come before it in the order of computation.
    """
    behind: dict[str, bool] = {}
    layers = [site.name for site in sites if is_linear(site)]
    order = {name: i for i, name in enumerate(layers)}
    found = {}
    producers = {y.name: site for site in sites for y in site.ys}
    readers = Counter(x.name for site in sites for x in site.operands)
    sums = {layer.name: site for site in sites if (layer := _summed(site, producers, readers)) is not None}
    of_layers = {site.name for site in sums.values()}
    for site in sites:
        after_layer = any(behind.get(x.name, False) for x in site.operands)
        for y in site.ys:
            behind[y.name] = after_layer or site.name in order
        found[site.name] = Role(
            first=site.name in order and not after_layer,
            depth=order.get(site.name, 0) / max(len(layers) - 1, 1),
            signal=_signal(site, producers) if site.op in _PRODUCTS and sum(site.varying) == 2 else None,
            layer=_layer(site, producers),
            bias=sums.get(site.name),
            of_layer=site.name in of_layers,
        )
    return found


def _signal(site: Site, producers: Mapping[str, Site]) -> int | None:
    """Which operand of a product is the signal; None where that cannot be said.

    The one that the other was computed from, give or take a scale. Where neither was, the one that is no gate: what a
    recurrent cell multiplies by a sigmoid.
    """
    names = [site[0].name, site[1].name]
    origins = [_origins(name, producers) for name in names]
    first, second = (_depends(names[1 - i], origins[i], producers) for i in (0, 1))
    if first == second:
        second, first = (any(_is_gate(name, producers) for name in origin) for origin in origins)
    if first == second:
        return None
    return 0 if first else 1 if site.op == "Mul" else None


def _origins(name: str, producers: Mapping[str, Site]) -> set[str]:
    """The tensor, and those of which it is only a scaled, shifted, reshaped or centred version."""
    found = {name}
    while (site := producers.get(name)) is not None and (_only_scales(site) or _centres(site, producers)):
        name = site[site.varying.index(True)].name
        found.add(name)
    return found


def _is_gate(name: str, producers: Mapping[str, Site]) -> bool:
    """Whether a tensor lies between 0 and 1 because a sigmoid made it."""
    site = producers.get(name)
    return site is not None and site.op in _GATES


def _centres(site: Site, producers: Mapping[str, Site]) -> bool:
    """x minus something computed from x."""
    return site.op == "Sub" and all(site.varying) and _depends(site[1].name, {site[0].name}, producers)


def _layer(site: Site, producers: Mapping[str, Site]) -> tuple[Site, ...]:
    """The layer with weights whose output the site's one signal is, and what lies between."""
    between: list[Site] = []
    while sum(site.varying) == 1:
        before = producers.get(site[site.varying.index(True)].name)
        if before is None or not (is_linear(before) or _only_scales(before)):
            break
        between.insert(0, before)
        if is_linear(before):
            return tuple(between)
        site = before
    return ()


def _summed(site: Site, producers: Mapping[str, Site], readers: Mapping[str, int]) -> Site | None:
    """The layer with weights to whose output, which nothing else reads, a site only adds what is given."""
    if site.op not in ("Add", "Sub") or sum(site.varying) != 1 or (site.op == "Sub" and site.varying[1]):
        return None
    signal = site[site.varying.index(True)]
    layer = producers.get(signal.name)
    alone = layer is not None and is_linear(layer) and readers[signal.name] == 1
    return layer if alone and None not in signal.shape and signal.shape == site.y.shape else None


def _only_scales(site: Site) -> bool:
    """Each output element is one element of the signal, times a constant, plus a constant."""
    if sum(site.varying) != 1 or (site.op == "Div" and site.varying[1]):
        return False
    signal = site[site.varying.index(True)]
    return site.op in _PASSING or (site.op in _AFFINE and signal.tensor.shape == site.y.tensor.shape is not None)


def _depends(name: str, on: Collection[str], producers: Mapping[str, Site]) -> bool:
    """Whether a tensor is one of those, or computed from one."""
    seen, stack = set(), [name]
    while stack:
        tensor = stack.pop()
        if tensor in on:
            return True
        if tensor in seen or tensor not in producers:
            continue
        seen.add(tensor)
        stack += [x.name for x in producers[tensor].operands]
    return False
