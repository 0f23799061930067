"""Sizes of inputs that are made up: what a graph leaves open is chosen alike wherever it is run without data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from onnxplain.errors import UsageError
from onnxplain.interface import BASELINE, NOISE, TARGET, Metadata
from onnxplain.ir.layout import FIRST, Layout
from onnxplain.ir.value import Dim, shown

SIDE, CHANNELS, LENGTH, SAMPLES = 224, 3, 16, 4
"""Of a picture, of its colours, of any other axis, and of what noise is drawn for."""

Shape = tuple[Dim, ...]
"""As declared: numbers, names of sizes chosen at run time, or None."""


def layout_of(rank: int, metadata: Metadata | None) -> Layout:
    """Where the explained input has its channels."""
    return Layout.named(rank, FIRST if metadata is None else str(metadata.parameters.get("layout", FIRST)))


def of_samples(shape: Shape, layout: Layout, count: int, size: tuple[int, int] | None = None) -> tuple[int, ...]:
    """For the explained input: so many samples, and pictures of height and width `size`, where these are open."""
    picture = len(layout.spatial) == 2
    unsaid = dict(zip(layout.spatial, size or (SIDE, SIDE), strict=True)) if picture else {}
    first, *rest = shape
    others = [
        d if isinstance(d, int) else unsaid.get(a, CHANNELS if picture else LENGTH) for a, d in enumerate(rest, 1)
    ]
    return (first if isinstance(first, int) else count, *others)


def of_others(
    shapes: Mapping[str, Shape], roles: Mapping[str, str], samples: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """For every other input of a graph.

    shapes:  of all inputs.
    roles:   their names by role, as in `Metadata.inputs`.
    samples: the shape of what the explained input gets, whose sizes other inputs share by name.
    """
    explained = shapes[roles["input"]]
    known = {name: size for name, size in zip(explained, samples, strict=True) if isinstance(name, str)}

    def open_as(shape: Shape, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(d if isinstance(d, int) else s for d, s in zip(shape, sizes, strict=True))

    found = {}
    for name, shape in shapes.items():
        if name == roles["input"]:
            continue
        if name in (roles.get(TARGET), roles.get(BASELINE)):
            found[name] = open_as(shape, samples[: len(shape)])
        elif name == roles.get(NOISE):
            found[name] = open_as(shape, (SAMPLES, *samples))
        else:
            unnamed = [samples[0], *[LENGTH] * len(shape)]
            found[name] = open_as(shape, tuple(known.get(str(d), u) for d, u in zip(shape, unnamed, strict=False)))
    return found


def sizes_for(model: Path, batch: int | None = None) -> dict[str, tuple[int, ...]]:
    """For every input of a file.

    batch:  samples; the model's own by default, or 1. Of a model that explains nothing the first input holds them.
    Raises: UsageError if the model takes another number of them, and no other.
    """
    proto = onnx.load(model, load_external_data=False)
    metadata = Metadata.read({entry.key: entry.value for entry in proto.metadata_props})
    weights = {tensor.name for tensor in proto.graph.initializer}
    shapes = {value.name: _declared(value) for value in proto.graph.input if value.name not in weights}
    if not shapes:
        return {}
    roles = {"input": next(iter(shapes))} if metadata is None else metadata.inputs
    shape = shapes[roles["input"]]
    own = shape[0] if metadata is not None and shape else None
    if isinstance(own, int) and batch not in (None, own):
        raise UsageError(
            f"{model.name} takes {own} samples at a time, {shown(shape)}, and cannot be measured with {batch}.\n"
            "  Leave --batch out, or export the model with a batch that is chosen at run time."
        )
    samples = of_samples(shape, layout_of(len(shape), metadata), batch or 1) if shape else ()
    return {roles["input"]: samples} | of_others(shapes, roles, samples or (batch or 1,))


def _declared(value: onnx.ValueInfoProto) -> Shape:
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    )
