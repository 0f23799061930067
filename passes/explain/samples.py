"""Where the samples of a batch lie in each tensor, so that something can be summed sample by sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Dim, Value
from onnxplain.passes.explain.trace import Trace
from onnxplain.rules.vjp.linear import einsum_indices

_RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class BatchAxis:
    """An axis made of (outer, N, inner): `inner` elements of one sample, then of the next, and over again.

    whole: outer is 1.
    inner: None where it is not known.
    """

    axis: int = 0
    whole: bool = True
    inner: int | None = 1


def places(trace: Trace) -> dict[str, BatchAxis]:
    """The place of the samples in each tensor that depends on the source, by name, as far as it can be told.

    An axis that has the batch's own symbol for its size is the batch. Elsewhere it follows from operator to operator.
    """
    found, batch = {trace.source.name: BatchAxis()}, trace.source.shape[0]
    for site in trace.sites:
        x = next((x for x in site.operands if x.name in found), None)
        named = [axis for axis, size in enumerate(site.y.tensor.shape or ()) if isinstance(size, str) and size == batch]
        place = BatchAxis(named[0]) if len(named) == 1 else None if x is None else _after(site, x, found[x.name])
        if place is not None:
            found.update((y.name, place) for y in site.ys)
    return found


def sum_of_samples(g: Builder, v: Value, place: BatchAxis | None, source: Value) -> Value:
    """Each sample's sum (N,). Where the samples cannot be told apart it is NaN, unless there is only one."""
    everything = range(v.rank)
    if source.shape[0] == 1:
        return g.reshape(g.sum(v, everything, keepdims=False), [1])
    apart = None if place is None else _apart(g, v, place, source)
    if apart is not None:
        return g.sum(apart, [axis for axis in range(apart.rank) if axis != _SAMPLE], keepdims=False)
    batch = g.shape(source, 0, 1)
    single = g.where(g.equal(batch, g.ints([1])), g.sum(v, everything, keepdims=False), float("nan"))
    return g.op("Expand", single, batch)


def root_mean_square(g: Builder, v: Value, place: BatchAxis | None, source: Value) -> Value | None:
    """Each sample's root mean square of v, so that it broadcasts against v. None where samples cannot be told apart."""
    if place is not None and place.whole and place.inner == 1:
        return g.sqrt(g.mean(v * v, [axis for axis in range(v.rank) if axis != place.axis]))
    if source.shape[0] == 1:
        return g.sqrt(g.mean(v * v, range(v.rank)))
    apart = None if place is None else _apart(g, v, place, source)
    if apart is None:
        return None
    own = g.sqrt(g.mean(apart * apart, [axis for axis in range(apart.rank) if axis != _SAMPLE]))
    return g.reshape_like(g.op("Expand", own, g.shape(apart)), v)


_SAMPLE = 1


def _apart(g: Builder, v: Value, place: BatchAxis, source: Value) -> Value | None:
    """The elements of v as (repetitions, N, elements in a row of one sample)."""
    batch, one = g.shape(source, 0, 1), g.ints([-1])
    stride = _stride(v.shape, place)
    if stride is not None:
        return g.reshape(v, g.concat([one, batch, g.ints([stride])], axis=0))
    if _ahead(v.shape, place):
        return g.reshape(v, g.concat([g.ints([1]), batch, one], axis=0))
    return None


def _stride(shape: tuple[Dim, ...], place: BatchAxis) -> int | None:
    """How many elements in a row belong to one sample."""
    after = shape[place.axis + 1 :]
    if place.inner is None or not all(isinstance(d, int) for d in after):
        return None
    return place.inner * math.prod(int(d or 0) for d in after)


def _after(site: Site, x: Value, place: BatchAxis) -> BatchAxis | None:
    """The place in a site's output, from that in one of its operands."""
    if x.tensor.shape is None or site.y.tensor.shape is None:
        return None
    if site.op in _RESHAPES:
        return _reshaped(x.shape, site.y.shape, place)
    if site.op == "Einsum":
        terms, result = einsum_indices(site)
        index = terms[site.operands.index(x)][place.axis]
        return replace(place, axis=result.index(index)) if index in result else None
    if site.op == "Transpose":
        return replace(place, axis=list(site.attr("perm", range(x.rank)[::-1])).index(place.axis))
    if site.op == "Gemm" and site.attr("transA" if x is site[0] else "transB", 0):
        axis = 1 - place.axis
    elif site.y.rank < x.rank:
        axis = place.axis - sum(gone < place.axis for gone in _dropped(site, x.rank))
    else:
        axis = place.axis + site.y.rank - x.rank
    have, want = x.shape[place.axis], site.y.shape[axis] if axis < site.y.rank else 0
    alike = have == want or not (isinstance(have, int) or isinstance(want, int))
    return replace(place, axis=axis) if alike else None


def _reshaped(before: tuple[Dim, ...], after: tuple[Dim, ...], place: BatchAxis) -> BatchAxis | None:
    """A reshape keeps the order of elements, and with it how many in a row belong to one sample."""
    rest = _stride(before, place)
    front = _ahead(before, place)
    if rest is None or sum(not isinstance(size, int) for size in after) > 1:
        return BatchAxis(next((axis for axis, size in enumerate(after) if size != 1), 0), True, None) if front else None
    for axis in reversed(range(len(after))):
        size = after[axis]
        if isinstance(size, int) and size > 0 and rest % size == 0:
            rest //= size
        else:
            return BatchAxis(axis, front and _ones(after[:axis]), rest)
    return None


def _ahead(shape: tuple[Dim, ...], place: BatchAxis) -> bool:
    """Whether all elements of one sample lie in a row."""
    return place.whole and _ones(shape[: place.axis])


def _ones(sizes: tuple[Dim, ...]) -> bool:
    return all(size == 1 for size in sizes)


def _dropped(site: Site, rank: int) -> list[int]:
    """The axes that a reduction or the choice of one element takes away."""
    if site.op == "Gather":
        return [site.attr("axis", 0) % rank]
    axes = site.optional(1)
    if axes is None or not axes.is_constant:
        return list(range(rank))
    return [int(axis) % rank for axis in np.ravel(axes.g.values(axes))]
