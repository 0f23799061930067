"""Derivatives of resampling: along each axis it is a matrix, and what arrives goes through its transpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper

from onnxplain.ir.builder import Builder
from onnxplain.ir.evaluate import evaluate
from onnxplain.ir.site import Site
from onnxplain.ir.value import Dim, Value
from onnxplain.ir.weights import Array
from onnxplain.rules.table import vjp
from onnxplain.rules.vjp.layout import put_back


@dataclass(frozen=True)
class Change:
    """One axis of a Resize: sizes before and after, and the factor between them where the node states it."""

    axis: int
    have: Dim
    want: Dim
    factor: float | None

    @property
    def known(self) -> bool:
        return isinstance(self.have, int) and isinstance(self.want, int)

    @property
    def whole(self) -> bool:
        """Whether each element is repeated equally often."""
        if not isinstance(self.have, int) or not isinstance(self.want, int):
            return False
        times, rest = divmod(self.want, self.have)
        return not rest and self.factor in (None, times)


@vjp("Resize")
def resize(g: Builder, s: Site, dy: Value) -> tuple[Value, ...]:
    """A matrix for each axis, which the running graph makes where sizes are known only then.

    Nearest only moves elements, and does without. It goes by the matrix too where that is sure: elsewhere runtimes may
    round to another element than the one that ONNX's own implementation finds.
    """
    if s.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise s.refused("with coordinate_transformation_mode=tf_crop_and_resize")
    changes = _changes(g, s)
    unsure = s.attr("coordinate_transformation_mode") == "tf_half_pixel_for_nn"  # later opsets lack it
    if s.attr("mode", "nearest") == "nearest" and (unsure or changes is None or not all(c.whole for c in changes)):
        return (put_back(g, s, dy, np.int32),)
    if changes is None:
        raise s.unsized(f"with mode={s.attr('mode')} and its factors, or sizes that keep its proportions,")
    for change in changes:
        known = change.known and _agreed(s, change)
        matrix = g.constant(_matrix(g, s, change), dy.dtype) if known else _running_matrix(g, s, change, dy)
        dy = _along(g, dy, matrix, change.axis)
    return (dy,)


def _changes(g: Builder, s: Site) -> list[Change] | None:
    """The axes that a Resize changes, None where its factors are not known."""
    x, y, scales = s[0], s.y, s.optional(2)
    axes = [a % x.rank for a in s.attr("axes", range(x.rank))]
    if scales is None or scales.shape == (0,):
        if s.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
            return _in_proportion(g, s, axes)
        return [Change(a, x.shape[a], y.shape[a], None) for a in axes if x.shape[a] is None or x.shape[a] != y.shape[a]]
    if not scales.is_constant:
        return None
    factors = {axis: float(by) for axis, by in zip(axes, s.numbers(g, 2), strict=True)}
    return [Change(axis, x.shape[axis], y.shape[axis], by) for axis, by in factors.items() if by != 1]


def _in_proportion(g: Builder, s: Site, axes: Sequence[int]) -> list[Change] | None:
    """The axes of a Resize that keeps the proportions: all by one factor, which the sizes that it is to reach give."""
    have, want = [s[0].shape[a] for a in axes], list(s.numbers(g, 3)) if s[3].is_constant else []
    if not want or not all(isinstance(size, int) for size in have):
        return None
    among = min if s.attr("keep_aspect_ratio_policy") == "not_larger" else max
    factor = float(among(np.float32(w) / np.float32(h) for h, w in zip(have, want, strict=True)))
    return [Change(a, s[0].shape[a], s.y.shape[a], factor) for a in axes if factor != 1]


def _along(g: Builder, dy: Value, matrix: Value, axis: int) -> Value:
    """The transpose of a matrix (in, out) applied to one axis."""
    if axis == dy.rank - 2:
        return matrix @ dy
    last = [*(a for a in range(dy.rank) if a != axis), axis]
    return g.transpose(g.transpose(dy, last) @ g.swap_last(matrix), [int(a) for a in np.argsort(last)])


def _running_matrix(g: Builder, s: Site, change: Change, like: Value) -> Value:
    """The same by the running graph: the operator on the unit vectors as rows of a picture, (in, out)."""
    have, want = g.sizes(s[0], [change.axis]), g.sizes(s.y, [change.axis])
    square = g.op("ConstantOfShape", g.concat([have, have], axis=0), value=np.zeros(1, like.dtype))
    units = g.unsqueeze(g.op("EyeLike", square), [0, 1])
    attrs = _own_attributes(s)
    if change.factor is None:
        rows = g.op("Resize", units, None, None, g.concat([g.ints([1, 1]), have, want], axis=0), **attrs)
    else:
        rows = g.op("Resize", units, None, g.constant(np.asarray([1, 1, 1, change.factor], np.float32)), **attrs)
    return g.squeeze(rows, [0, 1])


def _own_attributes(s: Site) -> dict[str, Any]:
    return {k: v for k, v in s.node.attrs.items() if k not in ("axes", "keep_aspect_ratio_policy")}


def _agreed(s: Site, change: Change) -> bool:
    """Whether ONNX's own implementation and runtimes make the same of it."""
    mode = s.attr("coordinate_transformation_mode", "half_pixel")
    apart = (mode == "align_corners" and change.factor is not None) or (
        mode == "pytorch_half_pixel" and change.want == 1
    )
    return not (apart and s.attr("antialias", 0))


def _matrix(g: Builder, s: Site, change: Change) -> Array:
    """What the operator makes of each unit vector of an axis, by ONNX's own implementation: (in, out)."""
    attrs = _own_attributes(s)
    have, want = int(change.have or 0), int(change.want or 0)
    given: dict[str, Array] = {"x": np.eye(have)}
    mode = attrs.get("coordinate_transformation_mode", "half_pixel")
    if mode == "pytorch_half_pixel" and want == 1 and not attrs.get("antialias", 0):
        return np.eye(have)[:, :1]  # the first element is read; ONNX's implementation reads half an element before it
    # Aligned corners depend on both lengths alone; that implementation would take a length that is no whole number.
    if change.factor is None or mode == "align_corners":
        given["sizes"] = np.array([have, want], np.int64)
        operands = ["x", "", "", "sizes"]
    else:
        given["scales"] = np.array([1, change.factor], np.float32)
        operands = ["x", "", "scales"]
    (matrix,) = evaluate(
        helper.make_node("Resize", operands, ["y"], **attrs), given, g.opset, whole=True, sure=True
    ) or (None,)
    if matrix is None or matrix.shape != (have, want):
        by = "" if change.factor is None else f" by the factor {change.factor:g}, rounded up to a whole number"
        raise s.refused(f"from {have} to {want} elements{by}")
    return matrix
