"""How a picture becomes a model's input: a few numbers, which travel in the compiled model's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from onnxplain.errors import UsageError, nearest
from onnxplain.ir.weights import Array

RESIZES = ("crop", "stretch", "pad")

WHITE = 255
"""The largest pixel."""

OF_SIGNED = "If it takes pixels less 128, as most such models do, that is --scale 1 --mean 128."
"""What to do where the input is int8."""

FAR = 2.0
"""What no mean or deviation of scaled pixels reaches, which are within 0 and 1, or 0 and 2."""


@dataclass(frozen=True)
class Preprocess:
    """How pixels become a model's input: x = (pixel * scale - mean) / std, where pixel runs from 0 to 255.

    mean, std: one number for all channels or one for each, in the order that the model takes them.
    order:     "rgb" or "bgr" (Caffe's models, OpenCV's pictures).
    resize:    "crop": the shorter side is brought to size and the centre is cut out; "stretch": both sides are brought
               to size; "pad": the longer side is, with black beside the picture.

    It travels in a compiled model's metadata as a dict, so that nobody has to remember it.
    """

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    order: str = "rgb"
    resize: str = "crop"

    def __post_init__(self) -> None:
        if self.order not in ("rgb", "bgr"):
            raise UsageError(f"preprocess: there is no order {self.order!r}. The orders are: rgb, bgr.")
        if self.resize not in RESIZES:
            raise UsageError(
                f"preprocess: there is no resize {self.resize!r}. {nearest(self.resize, RESIZES, kind='ways')}"
            )
        if not all(np.isfinite([self.scale, *self.mean, *self.std])) or 0 in self.std or self.scale == 0:
            raise UsageError("preprocess: scale, mean and std must be finite, and neither scale nor std may be zero.")

    @staticmethod
    def of(asked: Preprocess | Mapping[str, Any] | str) -> Preprocess:
        """By name, or from the entries of a dict. Raises: UsageError."""
        if isinstance(asked, Preprocess):
            return asked
        if not isinstance(asked, (str, Mapping)):
            raise UsageError(f"preprocess must be a name such as 'imagenet', a dict or a Preprocess, not {asked!r}.")
        return Preprocess.named(asked) if isinstance(asked, str) else Preprocess.from_dict(asked)

    @staticmethod
    def named(name: str) -> Preprocess:
        """One of `PREPROCESSES` by name. Raises: UsageError naming them."""
        if name not in PREPROCESSES:
            raise UsageError(
                f"there is no preprocessing {name!r}. {nearest(name, PREPROCESSES, kind='preprocessings')}"
            )
        return PREPROCESSES[name]

    @staticmethod
    def assumed(dtype: np.dtype[Any]) -> Preprocess:
        """For a model that does not say: pixels as they are where its input holds integers, else "unit".

        Raises: UsageError where these do not go up to 255.
        """
        if dtype.kind not in "iu":
            return Preprocess.named("unit")
        if np.iinfo(dtype).max < WHITE:
            raise UsageError(
                f"pixels go up to 255 and the model's input, {dtype}, to {np.iinfo(dtype).max}: how they become it is "
                f"not known.\n  Say how. {OF_SIGNED}"
            )
        return Preprocess.named("raw")

    @staticmethod
    def from_dict(entries: Mapping[str, Any]) -> Preprocess:
        """What `to_dict` made, from a model's metadata. Raises: UsageError for entries that it does not know."""
        known = Preprocess.__dataclass_fields__
        for entry in entries:
            if entry not in known:
                raise UsageError(f"preprocess has an unknown entry {entry!r}. {nearest(entry, known, kind='entries')}")
        values = dict(entries)
        try:
            for name in ("mean", "std"):
                if name in values:
                    values[name] = tuple(float(v) for v in np.atleast_1d(values[name]))
            if "scale" in values:
                values["scale"] = float(values["scale"])
        except (TypeError, ValueError):
            raise UsageError(f"preprocess: scale, mean and std must be numbers, not {dict(entries)!r}.") from None
        return Preprocess(**values) if "scale" in values else Preprocess(**values).with_scale_unsaid()

    def with_scale_unsaid(self) -> Preprocess:
        """Itself, where only mean and std were given. Raises: UsageError if they are in units of unscaled pixels.

        All pictures would nearly be the same input, and an explanation of that looks like any other.
        """
        far = [name for name in ("mean", "std") if max(map(abs, getattr(self, name))) > FAR]
        if self.scale < 1 and far:
            raise UsageError(
                f"preprocess: {far[0]} {getattr(self, far[0])[0]:g} does not go with pixels that are scaled by 1/"
                f"{1 / self.scale:g}, as they are if no scale is given.\n"
                f"  If it is in units of pixels from 0 to 255, add --scale 1, or scale=1 in Python; else --scale "
                f"{self.scale:.6g}."
            )
        return self

    @property
    def range(self) -> tuple[Array, Array]:
        """What black and white become: one number, or one for each channel."""
        black, white = ((pixel * self.scale - np.array(self.mean)) / np.array(self.std) for pixel in (0, WHITE))
        return black, white

    def to_dict(self) -> dict[str, Any]:
        """For a model's metadata: what `from_dict` reads."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    def apply(self, pixels: Array) -> Array:
        """Pixels (..., H, W, C) from 0 to 255 as float64 input values, channels still last."""
        channels = pixels.shape[-1]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise UsageError(
                    f"preprocess: {name} has {len(values)} numbers, and the model takes {channels} channels."
                )
        if self.order == "bgr" and channels >= 3:
            pixels = np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], axis=-1)
        x: Array = (pixels.astype(np.float64) * self.scale - np.array(self.mean)) / np.array(self.std)
        return x


@dataclass(frozen=True)
class Said:
    """What was said of a preprocessing: to be laid over what is known without it.

    name:   one of `PREPROCESSES`, which says all but how pictures get the model's size.
    fields: of `Preprocess`, those that were given.
    """

    name: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._laid_over(Preprocess())

    @property
    def numbers(self) -> bool:
        """Whether it says which numbers pixels become."""
        return self.name is not None or not {"scale", "mean", "std"}.isdisjoint(self.fields)

    def over(self, known: Preprocess) -> Preprocess:
        """What is known, changed by what was said. Raises: UsageError."""
        made = self._laid_over(known)
        unscaled = "scale" not in self.fields and not {"mean", "std"}.isdisjoint(self.fields)
        return made.with_scale_unsaid() if unscaled else made

    def _laid_over(self, known: Preprocess) -> Preprocess:
        start = known if self.name is None else replace(Preprocess.named(self.name), resize=known.resize)
        return replace(start, **self.fields)


PREPROCESSES: dict[str, Preprocess] = {
    "unit": Preprocess(),
    "imagenet": Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "raw": Preprocess(scale=1.0),
    "tf": Preprocess(scale=1 / 127.5, mean=(1.0,)),
    "caffe": Preprocess(scale=1.0, mean=(103.939, 116.779, 123.68), order="bgr"),
}
"""unit: pixel / 255. imagenet: unit, then ImageNet's mean and deviation. raw: pixel. tf: pixel / 127.5 - 1.
caffe: raw in the order BGR, minus ImageNet's mean."""
