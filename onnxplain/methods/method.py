"""What a method is: a declaration of some tens of lines."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onnxplain.errors import UsageError, nearest
from onnxplain.ir.model import Model
from onnxplain.ir.value import Value
from onnxplain.methods.study import Study
from onnxplain.passes.base import Pass
from onnxplain.passes.canonical.normalisation import FoldBatchNorm
from onnxplain.rules.composite import Composite

Settings = Mapping[str, Any]
"""A method's parameters by name, checked and with defaults filled in."""


_TOO_LARGE = 2**31
"""Of whole numbers: none is a count of anything that a graph could hold."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method.

    kind:    int, float, bool or str; a text from the command line is converted to it.
    check:   returns what is wrong with a value, or None.
    choices: the values there are, for a parameter chosen by name.
    unsaid:  what is taken by default, in words, where that is not one value.
    """

    name: str
    kind: type
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    check: Callable[[Any], str | None] | None = None
    unsaid: str = ""

    @property
    def range(self) -> str:
        """Which numbers there are, in words ("at least 1"); empty where the check demands nothing of them.

        The check itself is asked, by the lowest number there is, so that the two cannot differ.
        """
        if self.check is None or self.kind not in (int, float):
            return ""
        return (self.check(-sys.float_info.max) or "").removeprefix("must be ")

    def read(self, method: str, value: Any) -> Any:
        """The value in this parameter's kind. Raises: UsageError."""
        where = f"parameter {self.name!r} of {method}"
        try:
            converted = _converted(self.kind, value)
        except ValueError:
            raise UsageError(
                f"{where} must be of kind {self.kind.__name__}, not {value!r}.\n  {self.name}: {self.help}."
            ) from None
        if self.choices and converted not in self.choices:
            raise UsageError(f"{where} cannot be {value!r}. {nearest(str(value), self.choices, kind='choices')}")
        wrong = self.check(converted) if self.check else None
        if wrong is None and self.kind is float and not math.isfinite(converted):
            wrong = "must be finite"
        if wrong is None and self.kind is int and abs(converted) >= _TOO_LARGE:
            wrong = f"must be below {_TOO_LARGE}"
        if wrong:
            raise UsageError(f"{where} {wrong}, not {value!r}.\n  {self.name}: {self.help}.")
        return converted


@dataclass(frozen=True)
class Explanation:
    """What a method emits for one study.

    attribution: signed scores, of the input's shape, or the coarse map (N, *spatial of the tap).
    heatmap:     float32 (N, *spatial of the input) in [0, 1].
    residual:    (N,), for methods that promise a sum; else None.
    """

    attribution: Value
    heatmap: Value
    residual: Value | None = None


@dataclass(frozen=True)
class Method:
    """An explanation method.

    attribute:  emits the attribution for a study under settings.
    reduce:     how the attribution becomes a heatmap.
    residual:   for methods that promise a sum: what is missing from it, (N,).
    composite:  the rules of its walk, for `plan`; None where nothing is propagated back.
    passes:     rewrites of the forward graph beforehand. Batch norm is folded for all: runtimes do so themselves, and
                what comes back then has one operator less to pass.
    afterwards: rewrites of the whole graph when all is emitted and what is not read is gone.
    source:     paper and equations.
    shares:     whether its map depends on which operators are a layer: relevance is shared layer by layer.
    derived:    parameters that follow from those that were given, where they were not given themselves.
    coarse:     whether its map is of a layer and needs no derivative by the input, which may then hold integers.
    """

    name: str
    summary: str
    source: str
    attribute: Callable[[Study, Settings], Value]
    reduce: Callable[[Study, Settings, Value], Value]
    residual: Callable[[Study, Settings, Value], Value] | None = None
    composite: Callable[[Settings], Composite] | None = None
    passes: Callable[[Settings], tuple[Pass[Model], ...]] = lambda settings: (FoldBatchNorm(),)
    afterwards: Callable[[Settings], tuple[Pass[Model], ...]] = lambda settings: ()
    parameters: tuple[Parameter, ...] = ()
    derived: Callable[[Settings], Settings] = lambda given: {}
    coarse: bool = False
    shares: bool = False

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters, checked. Raises: UsageError for one that does not exist or a wrong value."""
        known = {p.name: p for p in self.parameters}
        for name in given:
            if name not in known:
                raise UsageError(f"{self.name} has no parameter {name!r}. {nearest(name, known, kind='parameters')}")
        read = {name: known[name].read(self.name, value) for name, value in given.items()}
        return {**{name: p.default for name, p in known.items()}, **self.derived(read), **read}

    def explain(self, study: Study, settings: Settings) -> Explanation:
        """Emit attribution and heatmap."""
        g, x = study.g, study.x
        attribution = self.attribute(study, settings)
        heatmap = self.reduce(study, settings, attribution)
        return Explanation(
            g.named(attribution, [x.shape[0], *attribution.shape[1:]]),
            g.named(heatmap, [x.shape[0], *(x.shape[axis] for axis in study.layout.spatial)]),
            None if self.residual is None else g.named(self.residual(study, settings, attribution), x.shape[:1]),
        )


def at_least(low: float) -> Callable[[Any], str | None]:
    """A check for numbers."""
    return lambda value: None if value >= low else f"must be at least {low:g}"


def _converted(kind: type, value: Any) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if str(value).lower() not in words:
            raise ValueError(value)
        return words[str(value).lower()]
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    try:
        return kind(value)
    except TypeError:
        raise ValueError(value) from None
