"""Pictures in: files found and read, cut to the model's size, and turned into its input as it was trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from onnxplain.errors import BadImage, UnsupportedModel, UsageError
from onnxplain.ir.layout import Layout
from onnxplain.runtime.feeds import Array, Port
from onnxplain.runtime.preprocess import OF_SIGNED, WHITE, Preprocess

SUFFIXES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"])
"""What counts as a picture when a folder is named; a file that is named itself may be called anything."""

_SIXTEEN = ("PPM", "PNG")
"""Formats that have no more bits than that, though Pillow may open them as 32; other depths it scales to 16."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode for each number of channels."""


@dataclass(frozen=True)
class PictureInput:
    """The input of a model as pictures go into it.

    size: height and width; None where the picture's own are taken.
    """

    port: Port
    layout: Layout
    preprocess: Preprocess
    size: tuple[int, int] | None
    channels: int

    @staticmethod
    def of(port: Port, layout: Layout, preprocess: Preprocess, size: tuple[int, int] | None = None) -> PictureInput:
        """What an input takes.

        size: height and width, for a model that leaves them open; the picture's own by default.
        Raises: UnsupportedModel if the input takes no pictures; UsageError if it does not take that size.
        """
        if len(layout.spatial) != 2:
            raise UnsupportedModel(
                f"{port}, which is no batch of pictures.\n  Explain arrays from Python: onnxplain.Explainer."
            )
        channels = 1 if layout.channel is None else port.shape[layout.channel]
        if not isinstance(channels, int):
            channels = 3  # unsaid by the model, and colour is the rule
        if channels not in MODES:
            raise UnsupportedModel(
                f"{port}: {channels} channels, and picture files have 1, 3 or 4.\n"
                "  Explain arrays from Python: onnxplain.Explainer; or give the axis of channels with --layout."
            )
        fixed = [port.shape[axis] for axis in layout.spatial]
        asked: Sequence[int | None] = size or (None, None)
        sides = [f if isinstance(f, int) else a for f, a in zip(fixed, asked, strict=True)]
        if size is not None and tuple(sides) != tuple(size):
            raise UsageError(f"size {size[0]}x{size[1]} does not fit: {port}.")
        height, width = sides
        whole = None if height is None or width is None else (height, width)
        return PictureInput(port, layout, preprocess, whole, channels)

    def prepare(self, picture: Image.Image) -> tuple[Array, Image.Image]:
        """A picture as one sample without batch axis, and what of the picture the model sees."""
        seen = in_mode(picture, MODES[self.channels])
        if self.size is not None:
            seen = resized(seen, self.size, self.preprocess.resize)
        pixels = np.asarray(seen).reshape(seen.height, seen.width, self.channels)
        values = self.preprocess.apply(pixels)
        if self.port.dtype.kind in "iu":
            self._refuse_others(values)
        values = values.astype(self.port.dtype)
        channel = self.layout.channel
        return (values[..., 0] if channel is None else np.moveaxis(values, 2, channel - 1)), seen

    def _refuse_others(self, values: Array) -> None:
        """Raises: UsageError for values that the input's whole numbers do not have."""
        held = np.iinfo(self.port.dtype)
        if (values != values.round()).any():
            made = "others"
        elif values.min() < held.min or values.max() > held.max:
            made = f"{values.min():.0f} to {values.max():.0f}"
        else:
            return
        raw = held.max >= WHITE
        raise UsageError(
            f"{self.port}, whole numbers from {held.min} to {held.max}, and the preprocessing makes {made} of the "
            f"pixels.\n  {'Leave it out, or say --preprocess raw.' if raw else OF_SIGNED}"
        )


def find(paths: Iterable[str | Path]) -> list[Path]:
    """The files named, and the pictures directly inside the folders named, each folder in the order of its names.

    Raises: UsageError if there are none.
    """
    named = [Path(path) for path in paths]
    found: list[Path] = []
    for path in named:
        inside = path.is_dir()
        found += sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file()) if inside else [path]
    if not found:
        raise UsageError(
            f"there are no pictures in {', '.join(map(str, named)) or 'an empty list of files'}.\n"
            f"  In a folder, files ending in {' '.join(sorted(SUFFIXES))} are taken."
        )
    return found


def read(path: str | Path) -> Image.Image:
    """A picture, upright (cameras may store it turned and say so), as 8-bit grey or colour.

    Raises: BadImage naming the file.
    """
    path = Path(path)
    try:
        with Image.open(path) as file:
            file.load()
            picture, deep = ImageOps.exif_transpose(file), file.mode == "I" and file.format in _SIXTEEN
            if picture.mode == "LAB":
                picture = picture.convert("RGB")  # which Pillow turns into everything else
    except FileNotFoundError:
        raise BadImage(f"there is no file {path}.") from None
    except Exception as error:  # a broken file leads Pillow's decoders to raise almost anything
        raise BadImage(f"{path} cannot be read as a picture: {_why(path, error)}.") from None
    return _eight_bits(path, picture, deep)


def in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """The picture in one of Pillow's modes. Raises: BadImage if it cannot be turned into that."""
    try:
        return picture if picture.mode == mode else picture.convert(mode)
    except ValueError:
        raise BadImage(
            f"a picture in Pillow's mode {picture.mode!r} cannot be turned into {mode!r}.\n"
            "  Save it as plain grey or RGB."
        ) from None


def resized(picture: Image.Image, size: tuple[int, int], how: str) -> Image.Image:
    """The picture at a height and width; `how` as in Preprocess.resize. Bilinear, antialiased."""
    height, width = size
    if how == "stretch":
        return picture.resize((width, height), Image.Resampling.BILINEAR)
    fit = ImageOps.fit if how == "crop" else ImageOps.pad
    return fit(picture, (width, height), Image.Resampling.BILINEAR)


def _eight_bits(path: Path, picture: Image.Image, deep: bool) -> Image.Image:
    """Pillow cuts deeper pixels off at 255 when it converts them, which would turn a scan white.

    deep: whether 32 bits hold 16.
    """
    if picture.mode.startswith("I;16") or deep:
        return Image.fromarray((np.asarray(picture).astype(np.float64) / 257).round().astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise BadImage(
            f"{path} holds {'whole' if picture.mode == 'I' else 'real'} numbers of 32 bits, whose range is not known.\n"
            "  Convert it to 8 or 16 bits, or explain arrays from Python: onnxplain.Explainer."
        )
    return picture


def _why(path: Path, error: Exception) -> str:
    if path.is_dir():
        return "it is a folder"
    if isinstance(error, UnidentifiedImageError):
        return "its format is not known, or it is no picture"
    return str(error).strip().rstrip(".") or type(error).__name__
