"""Baselines: the input that stands for "nothing there"."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from onnxplain.errors import UsageError
from onnxplain.ir.array_file import read_array
from onnxplain.ir.builder import Builder
from onnxplain.ir.layout import Layout
from onnxplain.ir.value import Value, shown
from onnxplain.ir.weights import Array

NAMES = ("zeros", "black", "mean", "blur")


def baseline_of(
    g: Builder, x: Value, layout: Layout, asked: str, *, preprocess: Mapping[str, Any] | None, blur: float
) -> Value:
    """The baseline asked for, of batch 1 or N.

    asked:      "zeros": 0 in the model's own input space; "black": pixel 0 in the model's normalisation; "mean": each
                sample's own mean of every channel; "blur": each sample blurred; else a .npy file.
    preprocess: the model's normalisation, which "black" needs.
    blur:       standard deviation of the blur, in pixels.
    Raises:     UsageError.
    """
    if asked == "mean":
        return g.expand_like(g.mean(x, layout.spatial), x)
    if asked == "blur":
        return _blurred(g, x, layout, blur)
    if asked in ("zeros", "black"):
        level = np.zeros(1) if asked == "zeros" else _black(preprocess)
        return constant_colour(g, x, layout, level)
    return g.constant(_from_file(Path(asked), x))


def rows_of(asked: str, x: Value) -> Array | None:
    """Several baselines (K, ...) from one .npy file, to be averaged over; None where one baseline is asked for.

    Raises: UsageError.
    """
    if Path(asked).suffix != ".npy":
        return None
    rows = _from_file(Path(asked), x, several=True)
    return rows if len(rows) > 1 else None


def checked(array: Array, x: Value, where: str, *, several: bool = False) -> Array:
    """A baseline given as numbers, in the input's dtype with a batch of 1, or of `several`. Raises: UsageError."""
    wanted = x.shape[1:]
    if array.ndim == len(wanted):
        array = array[None]
    fits = array.ndim == len(wanted) + 1 and all(
        not isinstance(want, int) or have == want for have, want in zip(array.shape[1:], wanted, strict=False)
    )
    if not fits or len(array) == 0 or (len(array) > 1 and not several):
        raise UsageError(
            f"{where} has shape {shown(array.shape)}, and one input of shape {shown((1, *wanted))} is needed."
        )
    real = np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)
    if not real or not np.isfinite(array).all():
        raise UsageError(f"{where} holds NaN, infinity or no real numbers at all ({array.dtype}).")
    if np.abs(array).max() > float(ml_dtypes.finfo(x.dtype).max):  # type: ignore[no-untyped-call]
        raise UsageError(f"{where} holds numbers beyond what the model's input can be ({x.dtype}).")
    return array.astype(x.dtype)


def _from_file(path: Path, x: Value, *, several: bool = False) -> Array:
    if path.suffix != ".npy":
        known = ", ".join(NAMES)
        raise UsageError(
            f"baseline {str(path)!r} is none of: {known}, input, or a .npy file in the model's input space."
        )
    return checked(read_array(path, "baseline file"), x, f"baseline file {path.name}", several=several)


def _black(preprocess: Mapping[str, Any] | None) -> Array:
    if preprocess is None:
        raise UsageError(
            "the baseline 'black' is pixel 0 in the model's own normalisation, which is not known.\n"
            "  Say it with --preprocess (or preprocess=...), or choose 'zeros'."
        )
    mean, std = (np.atleast_1d(np.asarray(preprocess[name], np.float64)) for name in ("mean", "std"))
    return -mean / std


def constant_colour(g: Builder, x: Value, layout: Layout, level: Array) -> Value:
    """One number for each channel, everywhere, with batch 1."""
    sizes = [1] * x.rank
    if level.size > 1 and layout.channel is not None:
        sizes[layout.channel] = level.size
    colour = g.constant(level.astype(x.dtype).reshape(sizes))
    if all(isinstance(d, int) for d in x.shape[1:]):
        return g.op("Expand", colour, g.ints([1, *(int(d) for d in x.shape[1:] if isinstance(d, int))]))
    return g.op("Expand", colour, g.concat([g.ints([1]), g.shape(x, 1)], axis=0))


def _blurred(g: Builder, x: Value, layout: Layout, sigma: float) -> Value:
    """A Gaussian along each spatial axis; at the border only what is inside counts.

    In single precision at most: runtimes have no convolution of doubles.
    """
    if x.dtype == np.float64:
        return g.cast(_blurred(g, g.cast(x, np.float32), layout, sigma), x)
    reach = max(int(3 * sigma), 1)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).astype(x.dtype)
    for axis in layout.spatial:
        order = [a for a in range(x.rank) if a != axis] + [axis]
        rows = g.transpose(x, order)
        lines = g.reshape(rows, g.concat([g.ints([-1, 1]), g.sizes(rows, [rows.rank - 1])], axis=0))
        kernel = g.constant(bell.reshape(1, 1, -1))
        pads = [reach, reach]
        total = g.op("Conv", lines, kernel, pads=pads)
        inside = g.op("Conv", g.full_like(g.slice(lines, [0], [1], [0]), 1), kernel, pads=pads)
        smooth = g.reshape(total / inside, g.target_shape(rows))
        x = g.named(g.transpose(smooth, [int(a) for a in np.argsort(order)]), x.shape)
    return x
