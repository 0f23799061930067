"""What a graph is fed where it is checked: numbers that are made up, but for those that were given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain import interface
from onnxplain.errors import UsageError, nearest
from onnxplain.ir.array_file import read_array
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.feeds import Array, batched, fitted, real
from onnxplain.runtime.sizes import Shape, of_others

FILLS = (0, 1)
"""What indices and flags are, in the order that is tried: a mask of zeros may hide everything."""


def given_in(explain: Explainer, texts: Iterable[str]) -> dict[str, Array]:
    """Values for inputs of the model, from texts NAME=FILE.npy. Raises: UsageError."""
    own = own_inputs(explain)
    given: dict[str, Array] = {}
    for text in texts:
        name, _, file = text.partition("=")
        if not name or not file:
            raise UsageError(f"--feed takes NAME=FILE.npy, not {text!r}.")
        if name not in own:
            raise UsageError(f"the model has no input {name!r}. {nearest(name, own, kind='inputs')}")
        if name in given:
            raise UsageError(f"input {name!r} is fed twice.")
        port, array = explain.inputs[name], read_array(Path(file))
        given[name] = (
            batched(port, array)
            if name == explain.input.name
            else fitted(port, array, len(array) if array.ndim else None)
        )
    return given


def own_inputs(explain: Explainer) -> list[str]:
    """The inputs that the model itself has, the explained one first."""
    added = {name for role, name in explain.metadata.inputs.items() if role != "input"}
    return [explain.input.name, *(n for n in explain.inputs if n not in added and n != explain.input.name)]


def open_as_given(explain: Explainer, given: Mapping[str, Array]) -> dict[str, Shape]:
    """The shapes of all inputs, with the sizes that are named and that what is given has."""
    sizes = {
        dim: size
        for name, array in given.items()
        for dim, size in zip(explain.inputs[name].shape, array.shape, strict=True)
        if isinstance(dim, str)
    }
    return {name: tuple(sizes.get(str(d), d) for d in port.shape) for name, port in explain.inputs.items()}


def others(explain: Explainer, batch: Array, given: Mapping[str, Array], fill: int) -> dict[str, Array]:
    """For the model's inputs beside the explained one: what is given, else seeded numbers.

    fill: what indices and flags are.
    """
    made = _made_up(explain, batch, given, fill)
    return {name: given.get(name, made[name]) for name in own_inputs(explain)[1:]}


def added(explain: Explainer, batch: Array) -> dict[str, Array]:
    """A baseline and noise, where the graph takes them, by role."""
    found = {interface.BASELINE: np.zeros_like(batch[:1])} if interface.BASELINE in explain.metadata.inputs else {}
    noise = explain.metadata.inputs.get(interface.NOISE)
    if noise is not None:
        found[interface.NOISE] = _made_up(explain, batch, {}, 0)[noise]
    return found


def _made_up(explain: Explainer, batch: Array, given: Mapping[str, Array], fill: int) -> dict[str, Array]:
    shapes = of_others(open_as_given(explain, given), explain.metadata.inputs, batch.shape)
    return {name: _filled(explain.inputs[name].dtype, shape, fill) for name, shape in shapes.items()}


def _filled(dtype: np.dtype[Any], shape: tuple[int, ...], fill: int) -> Array:
    if not real(dtype):
        return np.full(shape, fill, dtype) if dtype.kind != "U" else np.zeros(shape, dtype)
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)
