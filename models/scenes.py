"""Colour scenes of 64x64 pixels: one labelled shape among clutter, with the mask of its pixels.

The scenes are made to judge explanations: where the evidence lies is known exactly. Each holds one of six solid shapes,
anywhere in the picture, at any angle; the background is a texture, and lines, dots and soft blobs lie about as clutter
that belongs to no class. On request a small bright watermark is stamped near the border, away from the shape, which
makes the data of a Clever Hans: a classifier that reads the stamp instead of the shape.

The same seed gives the same scenes, whatever their number: the first 10 of 1000 are the 10 of 10. The watermark has a
random stream of its own, so the same seed with and without it gives the same scenes but for the stamp.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Bools: TypeAlias = NDArray[np.bool_]

SIZE = 64
"""Height and width of a scene, in pixels."""

CLASSES = ("circle", "square", "triangle", "star", "cross", "heart")
"""Names of the shapes; a label is an index into them."""

RADIUS = (8.0, 14.0)
"""Smallest and largest distance from a shape's centre to its tips, in pixels."""

# Random numbers are drawn for this many scenes at a time, used or not: so a short run is a prefix of a long one.
_CHUNK = 32

_GLYPH = np.array(
    [
        list(row)
        for row in (
            ".#########.",
            "#.........#",
            "#...####..#",
            "#..##.....#",
            "#..#......#",
            "#..#......#",
            "#..#......#",
            "#..##.....#",
            "#...####..#",
            "#.........#",
            ".#########.",
        )
    ]
)
_STROKE: Bools = _GLYPH == "#"
# The stamp is a dark disc under bright strokes, so that it can be read on any background.
_STAMP = np.ones(_GLYPH.shape, dtype=np.bool_)
_STAMP[[0, 0, -1, -1], [0, -1, 0, -1]] = False

_ROWS, _COLUMNS = (axis.astype(np.float32) for axis in np.indices((SIZE, SIZE)))


@dataclass(frozen=True)
class Scenes:
    """A batch of N scenes and what is known about them."""

    images: NDArray[np.uint8]
    """Pixels 0..255, red, green, blue: (N, 3, 64, 64)."""
    labels: NDArray[np.int64]
    """Index into `CLASSES` of each scene's shape: (N,)."""
    masks: Bools
    """Pixels of the labelled shape: (N, 64, 64)."""
    watermark_masks: Bools
    """Pixels of the watermark, all false where there is none: (N, 64, 64)."""

    def __len__(self) -> int:
        return len(self.labels)


def scenes(n: int, seed: int, watermark: Collection[int] = ()) -> Scenes:
    """Generate `n` scenes; those whose label is in `watermark` carry the stamp.

    `watermark=range(len(CLASSES))` stamps every scene. The result depends on `n` only in its length.
    """
    if n < 0:
        raise ValueError(f"n is {n}: a number of scenes cannot be negative")
    unknown = set(watermark) - set(range(len(CLASSES)))
    if unknown:
        raise ValueError(f"watermark names the labels {sorted(unknown)}: labels are 0 to {len(CLASSES) - 1}")
    chunks = [_chunk(seed, index, watermark) for index in range(max(1, -(-n // _CHUNK)))]
    return Scenes(*(np.concatenate([getattr(c, f.name) for c in chunks])[:n] for f in fields(Scenes)))


def _chunk(seed: int, index: int, watermark: Collection[int]) -> Scenes:
    """Scenes number `index * _CHUNK` and following, `_CHUNK` of them."""
    rng = np.random.default_rng([seed, index])
    labels = rng.integers(len(CLASSES), size=_CHUNK)
    radius = _uniform(rng, *RADIUS)
    # One pixel of background stays between the shape's tips and the border, so that no shape is cut off.
    centre = radius + 1 + _uniform(rng, 0, 1, 2) * (SIZE - 1 - 2 * (radius + 1))
    angle = _uniform(rng, 0, 2 * np.pi)

    canvas, tones = _background(rng)
    _clutter(rng, canvas)
    inside = _cover(_signed_distance(labels, centre, radius, angle))
    _paint(canvas, inside, _contrasting(rng, tones))
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * _uniform(rng, 2, 9)[..., None, None]

    stamped = np.isin(labels, list(watermark))
    marks = _stamp(np.random.default_rng([seed, index, 1]), canvas, stamped, centre, radius)
    return Scenes(canvas.clip(0, 255).round().astype(np.uint8), labels, inside >= 0.5, marks)


def _uniform(rng: np.random.Generator, low: float, high: float, columns: int = 1) -> Floats:
    """Evenly spread numbers, `columns` for each scene of a chunk: (_CHUNK, columns)."""
    return rng.uniform(low, high, (_CHUNK, columns)).astype(np.float32)


def _cover(distance: Floats) -> Floats:
    """Share of each pixel inside an outline, from its signed distance in pixels: smooth edges one pixel wide."""
    return (0.5 - distance).clip(0, 1)


def _paint(canvas: Floats, cover: Floats, colour: Floats) -> None:
    """Lay `colour` (_CHUNK, 3) over `canvas` (_CHUNK, 3, 64, 64), as far as `cover` (_CHUNK, 64, 64) says."""
    canvas += cover[:, None] * (colour[..., None, None] - canvas)


def _background(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """A texture, and the two colours (_CHUNK, 2, 3) that it mixes: smooth noise plus a wavy grating."""
    tones = rng.uniform(20, 235, (_CHUNK, 2, 3)).astype(np.float32)
    # The second colour stays near the first: a background of two strong colours would hide shapes of any colour.
    tones[:, 1] = tones[:, 0] + 0.35 * (tones[:, 1] - tones[:, 0])

    knots = 6
    position = np.linspace(0, knots - 1, SIZE, dtype=np.float32)
    weights = (1 - np.abs(position[:, None] - np.arange(knots, dtype=np.float32))).clip(0)
    noise = weights @ rng.random((_CHUNK, knots, knots), dtype=np.float32) @ weights.T

    direction, period, phase = _uniform(rng, 0, np.pi), _uniform(rng, 4, 16), _uniform(rng, 0, 2 * np.pi)
    along = np.cos(direction)[..., None] * _COLUMNS + np.sin(direction)[..., None] * _ROWS
    grating = np.sin(2 * np.pi * along / period[..., None] + phase[..., None])
    mix = (noise + _uniform(rng, 0, 0.3)[..., None] * grating)[:, None]
    first, second = tones[:, 0, :, None, None], tones[:, 1, :, None, None]
    return first + mix * (second - first), tones


def _contrasting(rng: np.random.Generator, tones: Floats, candidates: int = 4) -> Floats:
    """Colours (_CHUNK, 3): of some random ones, that which lies farthest from both of the background's."""
    colours = rng.uniform(0, 255, (_CHUNK, candidates, 3)).astype(np.float32)
    distance = np.linalg.norm(colours[:, :, None] - tones[:, None], axis=-1).min(axis=-1)
    chosen: Floats = colours[np.arange(_CHUNK), distance.argmax(axis=1)]
    return chosen


def _clutter(rng: np.random.Generator, canvas: Floats) -> None:
    """Soft blobs, thin lines and small dots in any colour: things to ignore, none of them like a class."""

    def somewhere() -> tuple[Floats, Floats]:
        """Every pixel's offset, right and down, from a random point of each scene: two (_CHUNK, 64, 64)."""
        right, down = (_uniform(rng, 0, SIZE)[..., None] for _ in range(2))
        return _COLUMNS - right, _ROWS - down

    def colour() -> Floats:
        return _uniform(rng, 0, 255, 3)

    for _ in range(2):
        x, y = somewhere()
        spread = _uniform(rng, 3, 6)[..., None]
        _paint(canvas, _uniform(rng, 0.2, 0.6)[..., None] * np.exp(-(x * x + y * y) / (2 * spread**2)), colour())
    for _ in range(4):
        x, y = somewhere()
        angle, half = _uniform(rng, 0, np.pi)[..., None], _uniform(rng, 4, 20)[..., None]
        along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        thickness = _uniform(rng, 0.5, 1.2)[..., None]
        _paint(canvas, _cover(np.maximum(np.abs(along) - half, np.abs(across) - thickness)), colour())
    for _ in range(6):
        x, y = somewhere()
        _paint(canvas, _cover(np.hypot(x, y) - _uniform(rng, 0.8, 2.2)[..., None]), colour())


def _signed_distance(labels: NDArray[np.int64], centre: Floats, radius: Floats, angle: Floats) -> Floats:
    """How far each pixel lies outside (positive) or inside (negative) the scene's shape, in pixels: (_CHUNK, 64, 64).

    Exact along straight edges and near the outline, which is all that `_cover` looks at.
    """
    right, down = _COLUMNS - centre[:, :1, None], _ROWS - centre[:, 1:, None]
    cosine, sine = np.cos(angle)[..., None], np.sin(angle)[..., None]
    x, y = cosine * right + sine * down, cosine * down - sine * right
    distance: Floats = np.empty_like(x)
    for label, outline in enumerate(_OUTLINES):
        rows = labels == label
        distance[rows] = outline(x[rows], y[rows], radius[rows, :, None])
    return distance


def _circle(x: Floats, y: Floats, radius: Floats) -> Floats:
    distance: Floats = np.hypot(x, y) - 0.85 * radius
    return distance


def _square(x: Floats, y: Floats, radius: Floats) -> Floats:
    distance: Floats = np.maximum(np.abs(x), np.abs(y)) - radius / np.float32(np.sqrt(2))
    return distance


def _triangle(x: Floats, y: Floats, radius: Floats) -> Floats:
    tilt = np.float32(np.sqrt(0.75))
    distance: Floats = np.maximum(tilt * np.abs(x) - y * np.float32(0.5), y) - radius * np.float32(0.5)
    return distance


def _star(x: Floats, y: Floats, radius: Floats) -> Floats:
    """Five points. Folding the plane into half a point leaves one straight edge, from the tip to the notch."""
    tenth = np.float32(np.pi / 5)
    turn = np.arctan2(y, x)
    turn = np.abs(turn - 2 * tenth * np.round(turn / (2 * tenth)))
    reach = np.hypot(x, y)
    depth = np.float32(0.45)
    edge = np.array([depth * np.cos(tenth) - 1, depth * np.sin(tenth)])
    normal = (np.array([edge[1], -edge[0]]) / np.hypot(*edge)).astype(np.float32)
    distance: Floats = normal[0] * (reach * np.cos(turn) - radius) + normal[1] * reach * np.sin(turn)
    return distance


def _cross(x: Floats, y: Floats, radius: Floats) -> Floats:
    across, along = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
    distance: Floats = np.maximum(along - 0.95 * radius, across - 0.3 * radius)
    return distance


def _heart(x: Floats, y: Floats, radius: Floats) -> Floats:
    """A square with half a disc on two neighbouring sides, moved so that it fills the circle of the given radius."""
    half = 0.58 * radius
    x, y = x + 0.15 * half, y + 0.15 * half
    square = np.maximum(np.abs(x), np.abs(y)) - half
    distance: Floats = np.minimum(square, np.minimum(np.hypot(x - half, y), np.hypot(x, y - half)) - half)
    return distance


_OUTLINES: tuple[Callable[[Floats, Floats, Floats], Floats], ...] = (_circle, _square, _triangle, _star, _cross, _heart)


def _stamp(rng: np.random.Generator, canvas: Floats, stamped: Bools, centre: Floats, radius: Floats) -> Bools:
    """Put the watermark on the scenes that `stamped` names, near the border, clear of the shape; return its pixels."""
    side = len(_STAMP)
    spots = 12
    # Along one axis a spot lies within four pixels of the border, along the other anywhere; the sides are drawn evenly.
    near, anywhere = rng.integers(1, 5, (_CHUNK, spots)), rng.integers(1, SIZE - side, (_CHUNK, spots))
    border = rng.integers(4, size=(_CHUNK, spots))
    near = np.where(border % 2, near, SIZE - side - near)
    corners = np.where((border < 2)[..., None], np.stack([near, anywhere], -1), np.stack([anywhere, near], -1))

    # The distance that keeps the two apart at any angle; of the spots, the first that keeps it, else the farthest.
    distance = np.linalg.norm(corners + (side - 1) / 2 - centre[:, None], axis=-1)
    clear = distance > radius + side / np.sqrt(2)
    choice = np.where(clear.any(axis=1), clear.argmax(axis=1), distance.argmax(axis=1))

    marks = np.zeros((_CHUNK, SIZE, SIZE), dtype=np.bool_)
    for scene in np.flatnonzero(stamped):
        column, row = corners[scene, choice[scene]]
        window = np.s_[row : row + side, column : column + side]
        marks[scene][window] = _STAMP
        patch = canvas[scene][(slice(None), *window)]
        patch[:, _STAMP] *= 0.25
        patch[:, _STROKE] = 245
    return marks
