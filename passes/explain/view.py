"""Which part of the input the places of a tensor cover, along one spatial dimension.

Graphs crop, pad and mirror pictures before a network sees them, and networks do so within. A map of such a tensor must
be shown where its places lie. Convolutions and pools are taken to spread their outputs evenly over what they see, as
all who enlarge activation maps do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from onnxplain.ir.value import Dim

_NONE = Fraction(0)


@dataclass(frozen=True)
class View:
    """From where to where, in parts of the input's size, and how much is around it.

    low, high:     high is below low where the picture is mirrored.
    before, after: cells in front and behind that show nothing of the input: padding.
    """

    low: Fraction = Fraction(0)
    high: Fraction = Fraction(1)
    before: Fraction = Fraction(0)
    after: Fraction = Fraction(0)

    @property
    def whole(self) -> bool:
        """Whether it is all of the input, and nothing else."""
        return self == View()

    def padded(self, before: int, after: int) -> View:
        """With so many cells more that show nothing."""
        return replace(self, before=self.before + before, after=self.after + after)

    def cut(self, before: int, after: int, size: Dim) -> View | None:
        """Without so many cells of `size`; None where that is not known or nothing is left of the input."""
        low, high = self.low, self.high
        front, back = before - self.before, after - self.after  # of cells that show something
        if front > 0 or back > 0:
            if not isinstance(size, int):
                return None
            cell = (self.high - self.low) / (size - self.before - self.after)
            low, high = low + max(front, _NONE) * cell, high - max(back, _NONE) * cell
            if (low < high) != (self.low < self.high):
                return None
        return View(low, high, max(-front, _NONE), max(-back, _NONE))

    def mirrored(self) -> View:
        """The other way round."""
        return View(self.high, self.low, self.after, self.before)

    def windowed(self, window: int, stride: int, before: int, after: int) -> View:
        """Of the outputs of a window that steps over it, with padding of its own."""
        return replace(
            self,
            before=_remaining(self.before, window, stride, before) / stride,
            after=_remaining(self.after, window, stride, after) / stride,
        )

    def enlarged(self, times: Fraction) -> View:
        """In cells of another size."""
        return replace(self, before=self.before * times, after=self.after * times)

    def near(self, other: View, size: Dim) -> bool:
        """Whether both show the same to within a cell."""
        if self == other:
            return True
        if not isinstance(size, int):
            return False
        pairs = zip(self._edges(size), other._edges(size), strict=True)
        return all(abs(one - two) * size <= 1 for one, two in pairs)

    def _edges(self, size: int) -> tuple[Fraction, Fraction]:
        """Where the first cell begins and the last one ends, those of padding included."""
        cell = (self.high - self.low) / max(size - self.before - self.after, Fraction(1))
        return self.low - self.before * cell, self.high + self.after * cell


def _remaining(margin: Fraction, window: int, stride: int, padding: int) -> Fraction:
    """What is left of a margin where a window begins or ends.

    A window without padding of its own uses up what was padded for it, and no more than a rounding is left. One with
    more padding than it covers adds to the margin.
    """
    if padding >= window:
        return margin + padding - Fraction(window - 1, 2)
    used = Fraction(window - stride, 2) - padding
    if used <= 0 or margin == 0:
        return margin
    return margin - used if margin - used >= 1 else Fraction(0)
