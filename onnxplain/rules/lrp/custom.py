"""A user's own composite, from a small TOML file.

    name = "mine"

    [[rule]]
    op = "Conv"            # an operator, or name = "/features/*", or layer = "conv" | "dense" | "any"
    first = true           # only layers with no other between the input and them
    rule = "box"

    [[rule]]
    layer = "any"
    rule = "gamma"
    gamma = 0.5

The first line that matches a node counts. What no line names follows the rules that all composites share. A line with
a name must match some node; one that goes by operator or layer may serve other models.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxplain.errors import UsageError, nearest
from onnxplain.ir.site import Rule, Site
from onnxplain.rules.composite import AtZero, Composite, Entry, Where, name
from onnxplain.rules.lrp.affine import is_linear
from onnxplain.rules.lrp.composites import SHARING, Options, composite, conv, dense, first
from onnxplain.rules.lrp.inputs import flat, w_square, z_box
from onnxplain.rules.lrp.layers import alpha_beta, epsilon, gamma, relative_epsilon, z_plus
from onnxplain.rules.lrp.signals import pass_through
from onnxplain.rules.table import NONDIFFERENTIABLE, VJP

Make = Callable[..., Rule]

_RULES: dict[str, tuple[Make, dict[str, float | bool], AtZero]] = {
    "zero": (lambda: epsilon(0), {}, "zero"),
    "epsilon": (epsilon, {"eps": 1e-6, "bias": True}, "zero"),
    "relative-epsilon": (relative_epsilon, {"share": 0.25}, "zero"),
    "gamma": (lambda gamma_, eps: gamma(gamma_, eps), {"gamma": 0.25, "eps": 1e-6}, "zero"),
    "alpha-beta": (alpha_beta, {"alpha": 2.0, "beta": 1.0, "eps": 1e-6, "bias": True}, "zero"),
    "z-plus": (z_plus, {"eps": 1e-6, "bias": True}, "zero"),
    "box": (z_box, {"eps": 1e-6}, "unknown"),
    "w-square": (w_square, {"eps": 1e-6}, "unknown"),
    "flat": (flat, {"eps": 1e-6}, "unknown"),
    "pass": (lambda: pass_through, {}, "unknown"),
}
_LAYERS: dict[str, Where] = {"conv": conv, "dense": dense, "any": is_linear}
_PRODUCTS = ("Gemm", "MatMul")
_MOVING = frozenset(
    {
        "Transpose", "Slice", "Pad", "Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "TopK",
    }
)  # fmt: skip
"""Operators that may move elements to other places of the same shape."""
_PLACES: dict[str, type | tuple[type, ...]] = {"op": (str, list), "name": str, "layer": str, "first": bool}


def read(path: Path, options: Options) -> Composite:
    """The composite that a file describes.

    Raises: UsageError, with line and column where a rule, a parameter or a place is not known.
    """
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError:
        raise UsageError(f"there is no composite file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"composite file {path} cannot be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"composite file {path.name} is not TOML: {error}.") from None
    lines = table.get("rule", [])
    if not isinstance(lines, list) or not lines or not all(isinstance(line, dict) for line in lines):
        raise UsageError(f"composite file {path.name} has no [[rule]] tables; each names a place and a rule.")
    file = _File(path.name, text)
    entries = tuple(_entry(file, i, line) for i, line in enumerate(lines))
    wanted = tuple((_place(file, i, line), _unmatched(file, i, line)) for i, line in enumerate(lines) if "name" in line)
    return replace(composite(str(table.get("name", path.stem)), options, *entries), wanted=wanted)


class _File:
    """Where in the text a key of the n-th [[rule]] stands."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.lines = text.splitlines()
        self.starts = [i for i, line in enumerate(self.lines) if re.match(r"\s*\[\[\s*rule\s*\]\]", line)]

    def at(self, index: int, key: str) -> str:
        """'mine.toml, line 4, column 8', the place of the key's value."""
        start = self.starts[index] if index < len(self.starts) else 0
        end = self.starts[index + 1] if index + 1 < len(self.starts) else len(self.lines)
        for number in range(start, end):
            found = re.match(rf"\s*{re.escape(key)}\s*=\s*", self.lines[number])
            if found:
                return f"{self.name}, line {number + 1}, column {found.end() + 1}"
        return f"{self.name}, line {start + 1}, column 1"


def _entry(file: _File, index: int, line: Mapping[str, Any]) -> Entry:
    kind = str(line.get("rule", ""))
    if not kind:
        raise UsageError(f"{file.at(index, 'rule')}: this table names no rule. {nearest('', _RULES, kind='rules')}")
    if kind not in _RULES:
        raise UsageError(f"{file.at(index, 'rule')}: there is no rule {kind!r}. {nearest(kind, _RULES, kind='rules')}")
    make, defaults, at_zero = _RULES[kind]
    given = {k: v for k, v in line.items() if k not in _PLACES and k != "rule"}
    for key, value in given.items():
        if key not in defaults:
            known = nearest(key, defaults, kind="parameters")
            raise UsageError(f"{file.at(index, key)}: rule {kind!r} has no parameter {key!r}. {known}")
        if isinstance(value, bool) != isinstance(defaults[key], bool) or not isinstance(value, (int, float)):
            wanted = "true or false" if isinstance(defaults[key], bool) else "a number"
            raise UsageError(f"{file.at(index, key)}: {key} must be {wanted}, not {value!r}.")
        if not 0 <= value < math.inf:
            wanted = "at least 0" if value < 0 else "finite"
            raise UsageError(f"{file.at(index, key)}: {key} must be {wanted}, not {value:g}.")
    values = {**defaults, **given}
    if kind == "alpha-beta" and abs(values["alpha"] - values["beta"] - 1) > 1e-9:
        raise UsageError(
            f"{file.at(index, 'rule')}: alpha={values['alpha']:g}, beta={values['beta']:g}: "
            "relevance is conserved only for alpha = beta + 1."
        )
    shown = [f"{k}={str(v).lower() if isinstance(v, bool) else format(v, 'g')}" for k, v in given.items()]
    return Entry(
        _where(file, index, line), make(*values.values()), " ".join([kind, *shown]), at_zero, bounded=kind == "box"
    )


def _unmatched(file: _File, index: int, line: Mapping[str, Any]) -> str:
    given = ", ".join(f"{key} = {line[key]!r}" for key in _PLACES if key in line)
    return (
        f"{file.at(index, 'name')}: no node between the input and the score has {given}.\n"
        "  `onnxplain plan` lists their names; what became part of a layer, such as a batch norm, is not among them."
    )


def _place(file: _File, index: int, line: Mapping[str, Any]) -> Where:
    """Whether a site is where the line says."""
    places: list[Where] = []
    for key, kinds in _PLACES.items():
        if key in line and not isinstance(line[key], kinds):
            raise UsageError(f"{file.at(index, key)}: {key} cannot be {line[key]!r}.")
    if "op" in line:
        ops = [line["op"]] if isinstance(line["op"], str) else line["op"]
        for each in ops:
            if str(each) in NONDIFFERENTIABLE:
                raise UsageError(f"{file.at(index, 'op')}: no relevance arrives at {each!r}, which has no derivative.")
            if str(each) not in VJP:
                known = nearest(str(each), VJP, kind="operators")
                raise UsageError(f"{file.at(index, 'op')}: there is no operator {each!r}. {known}")
        places.append(_op(*map(str, ops)))
    if "name" in line:
        places.append(name(line["name"]))
    if "layer" in line:
        if line["layer"] not in _LAYERS:
            known = nearest(line["layer"], _LAYERS, kind="layers")
            raise UsageError(f"{file.at(index, 'layer')}: there is no layer {line['layer']!r}. {known}")
        places.append(_LAYERS[line["layer"]])
    if not places:
        raise UsageError(f"{file.at(index, 'rule')}: a rule needs a place: op, name or layer.")

    def here(site: Site) -> bool:
        return all(place(site) for place in places)

    return first(here) if line.get("first") else here


def _op(*op_types: str) -> Where:
    """Nodes of these operators. A matrix product with weights and a bias behind it becomes a Gemm: the two are one."""
    products = any(op_type in _PRODUCTS for op_type in op_types)
    return lambda site: site.op in op_types or (products and site.op in _PRODUCTS and is_linear(site))


def _where(file: _File, index: int, line: Mapping[str, Any]) -> Where:
    """The place, of which the rule must be for what is there."""
    place = _place(file, index, line)
    serves, whom = _SERVES.get(line["rule"], (is_linear, "layers with weights"))

    def matches(site: Site) -> bool:
        here = place(site)
        if here and not serves(site):
            raise UsageError(
                f"{file.at(index, 'rule')}: rule {line['rule']!r} is for {whom}, not for {site.op} {site.name!r}."
            )
        return here

    return matches


def _shares(site: Site) -> bool:
    return is_linear(site) or site.op in SHARING


def _keeps_places(site: Site) -> bool:
    if sum(site.varying) != 1 or site.op in _MOVING:
        return False
    return bool(site[site.varying.index(True)].tensor.shape == site.y.tensor.shape)


_SERVES: dict[str, tuple[Where, str]] = {
    "box": (first(is_linear), "layers with weights that have no other before them"),
    "zero": (_shares, "layers with weights, sums and pools"),
    "epsilon": (_shares, "layers with weights, sums and pools"),
    "pass": (_keeps_places, "operators with one signal that keep its shape and every element's place"),
}
