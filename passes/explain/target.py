"""Which class is explained, and where the walk starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxplain.errors import UsageError
from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value


@dataclass(frozen=True)
class Target:
    """The explained class of each sample.

    classes: int64 (N,).
    score:   (N,), the class's score before the softmax.
    seed:    (N, C), one at the class and zero elsewhere: the derivative of `score` by the scores.
    poison:  (N,), NaN where the class asked for at run time does not exist, else zero; None where it always does.
    """

    classes: Value
    score: Value
    seed: Value
    poison: Value | None = None


def top(g: Builder, logits: Value, k: int = 1) -> list[Target]:
    """The k best classes, best first. Raises: UsageError if there are fewer than k."""
    if k == 1:
        return [_target(g, logits, g.op("ArgMax", logits, axis=1, keepdims=0))]
    count = logits.shape[1]
    if isinstance(count, int) and k > count:
        raise UsageError(f"topk:{k} asks for more classes than there are: the model has {count}.")
    _, best = g.ops("TopK", logits, g.ints([k]), outputs=2, axis=1)
    return [_target(g, logits, g.gather(best, g.constant(np.int64(i)), axis=1)) for i in range(k)]


def fixed(g: Builder, logits: Value, index: int) -> Target:
    """One class for every sample. Raises: UsageError if the model has no such class."""
    count = logits.shape[1]
    if index < 0 or (isinstance(count, int) and index >= count):
        known = f"the model's classes are 0 to {count - 1}" if isinstance(count, int) else "classes count from 0"
        if count == 1:
            known = "the model has one score, whose class is 0; what lowers it has a negative sign"
        raise UsageError(f"class {index} is out of range: {known}.")
    samples = g.shape(logits, 0, 1)
    return _target(g, logits, g.op("ConstantOfShape", samples, value=np.array([index], np.int64)))


def given(g: Builder, logits: Value, target: Value) -> Target:
    """The class that a run-time input names for each sample.

    A class out of range must not end in a map of zeros that looks like an answer: `poison` is added to the score and
    to every map.
    """
    count = g.shape(logits, 1, 2)
    valid = (target >= 0) & (target < count)
    inside = _target(g, logits, g.where(valid, target, 0))
    poison = g.where(valid, g.constant(0, logits.dtype), float("nan"))
    return Target(target, inside.score + poison, inside.seed, poison)


def _target(g: Builder, logits: Value, classes: Value) -> Target:
    column = g.unsqueeze(classes, [1])
    score = g.squeeze(g.op("GatherElements", logits, column, axis=1), [1])
    every = g.op("Range", g.constant(np.int64(0)), g.squeeze(g.shape(logits, 1, 2), [0]), g.constant(np.int64(1)))
    seed = g.mask(g.equal(column, every), logits)
    return Target(classes, score, g.named(seed, logits.shape))
