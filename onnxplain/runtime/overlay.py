"""Heatmaps out: colours from a look-up table, laid over the picture that the model saw."""

from __future__ import annotations

import numpy as np
from PIL import Image

from onnxplain.errors import UsageError, nearest
from onnxplain.runtime.feeds import Array

COLORMAP = "jet"
"""As in the survey (sec. 3.3): blue is nothing, red is the most."""

ALPHA = 0.45
"""How much of the colour is laid over the picture: the picture stays recognisable."""

SHOWN_FROM = 256
"""Pixels. A picture whose longer side is shorter is enlarged by a whole number, so that its pixels stay apart."""


def check_colormap(name: str) -> None:
    """Raises: UsageError naming the nearest ones if Matplotlib has no look-up table of that name."""
    from matplotlib import colormaps

    if name not in colormaps:
        known = [n for n in colormaps if not n.endswith("_r")]
        raise UsageError(f"there is no colormap {name!r}. {nearest(name, known, kind='colormaps')}")


def check_alpha(alpha: float) -> None:
    """Raises: UsageError."""
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha must lie between 0 and 1, not {alpha}.")


def colours(heatmap: Array, colormap: str = COLORMAP) -> Array:
    """A heatmap (H, W) in [0, 1] as uint8 (H, W, 3). Raises: UsageError for an unknown colormap."""
    from matplotlib import colormaps

    check_colormap(colormap)
    coloured: Array = colormaps[colormap](np.asarray(heatmap, np.float64), bytes=True)
    return coloured[..., :3]


def flat(heatmap: Array) -> Array:
    """One sample's heatmap as a plane (H, W): a signal becomes a row, of a volume the middle slice is shown."""
    if heatmap.ndim == 1:
        return heatmap[None]
    while heatmap.ndim > 2:
        heatmap = heatmap[len(heatmap) // 2]
    return heatmap


def overlay(picture: Image.Image, heatmap: Array, colormap: str = COLORMAP, alpha: float = ALPHA) -> Image.Image:
    """The heatmap's colours over the picture, enlarged where they are tiny.

    A heatmap of another size than the picture is brought to the picture's. Its scale is left alone: 1 is the look-up
    table's last colour, whatever the largest value is.
    """
    check_alpha(alpha)
    plane = np.asarray(flat(heatmap), np.float32)
    if plane.shape != (picture.height, picture.width):
        plane = np.asarray(Image.fromarray(plane).resize(picture.size, Image.Resampling.BILINEAR))
    blended = Image.blend(picture.convert("RGB"), Image.fromarray(colours(plane, colormap)), alpha)
    times = -(-SHOWN_FROM // max(blended.size))
    return blended.resize((blended.width * times, blended.height * times), Image.Resampling.NEAREST)
