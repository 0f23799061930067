"""Every method there is, by name."""

from __future__ import annotations

from onnxplain.errors import UsageError, nearest
from onnxplain.methods import activation, deeplift, gradient, lrp, paths
from onnxplain.methods.method import Method

REGISTRY: dict[str, Method] = {
    method.name: method
    for method in (*gradient.METHODS, *activation.METHODS, *paths.METHODS, *lrp.METHODS, *deeplift.METHODS)
}


def named(name: str) -> Method:
    """The method of that name. Raises: UsageError naming the nearest ones."""
    if name not in REGISTRY:
        raise UsageError(f"there is no method {name!r}. {nearest(name, REGISTRY, kind='methods')}")
    return REGISTRY[name]


def methods() -> tuple[Method, ...]:
    """Every method, with its parameters and its source."""
    return tuple(REGISTRY.values())
