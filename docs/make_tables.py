"""The tables in docs/ that say what the code has: methods, their parameters, operators. They cannot get out of date.

    python docs/make_tables.py            # write them
    python docs/make_tables.py --check    # exit 1 if one is out of date, as a test does

A table stands between a line that names it and `<!-- end of table -->`. The names are

    <!-- methods NAME ... -->       a row for each method, with summary and source; all of them where none is named
    <!-- parameters NAME ... -->    a row for each parameter of the methods, whose names may have * and ?
    <!-- operators -->              what the derivative table knows
    <!-- errors -->                 the exceptions
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import onnxplain
from onnxplain import errors
from onnxplain.methods.method import Method, Parameter
from onnxplain.rules import table

DOCS = Path(__file__).resolve().parent
END = "<!-- end of table -->"
_PLACE = re.compile(r"(<!-- (methods|parameters|operators|errors)((?: \S+)*?) -->\n).*?" + END, re.DOTALL)


def methods(names: Sequence[str]) -> list[str]:
    """One row for each method."""
    rows = [[f"`{m.name}`", m.summary, m.source] for m in _chosen(names)]
    return rendered(["method", "what it is", "source"], rows)


def parameters(names: Sequence[str]) -> list[str]:
    """One row for each parameter. Of several methods, a parameter that some have alike stands once for these."""
    chosen = _chosen(names)
    found: dict[tuple[str, ...], list[str]] = {}
    for method in chosen:
        for parameter in method.parameters:
            found.setdefault(tuple(_described(parameter)), []).append(method.name)
    several = any(len(owners) < len(chosen) for owners in found.values())
    named = [row[0] for row in found]
    rows = []
    for row in sorted(found, key=lambda row: named.index(row[0])):  # what has one name stands together
        rows.append([*row, owned([m.name for m in chosen], found[row])] if several else list(row))
    if not rows:
        return ["It has no parameters."]
    return rendered(["parameter", "default", "values", "what it is", *(["of"] if several else [])], rows)


def owned(every: Sequence[str], owners: Sequence[str]) -> str:
    """Whose a parameter is, as short as can be said: by a common beginning, or by those that lack it.

    >>> owned(["a-b", "a-c", "a-d", "e", "f"], ["a-b", "a-c", "a-d", "e"])
    'all but `f`'
    >>> owned(["a-b", "a-c", "a-d", "e", "f"], ["a-b", "a-c", "a-d"])
    '`a-*`'
    """
    others = [name for name in every if name not in owners]
    if not others:
        return "all"
    if len(others) * 2 <= len(owners):
        return "all but " + " ".join(f"`{name}`" for name in others)
    said: list[str] = []
    for name in owners:
        heads = [name[: at.end()] for at in re.finditer("-", name)]
        # A beginning speaks for three or more, and never for one that lacks the parameter.
        whole = (
            h for h in heads if sum(o.startswith(h) for o in owners) > 2 and not any(o.startswith(h) for o in others)
        )
        head = next(whole, None)
        said.append(f"`{name}`" if head is None else f"`{head}*`")
    return " ".join(dict.fromkeys(said))


def operators(names: Sequence[str]) -> list[str]:
    """What has a derivative, and what needs none."""
    known = ", ".join(f"`{op}`" for op in sorted(table.VJP))
    constant = ", ".join(f"`{op}`" for op in sorted(table.NONDIFFERENTIABLE))
    return [f"With a derivative ({len(table.VJP)}): {known}.", "", f"Nothing flows through: {constant}."]


def failures(names: Sequence[str]) -> list[str]:
    """One row for each exception, with what it is a kind of."""
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.OnnxplainError)]
    rows = [[f"`{c.__name__}`", f"`{c.__base__.__name__}`", str(c.__doc__).strip()] for c in classes]
    return rendered(["exception", "is a", "when"], rows)


TABLES: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "methods": methods,
    "parameters": parameters,
    "operators": operators,
    "errors": failures,
}


def _chosen(names: Sequence[str]) -> list[Method]:
    """Methods by names or patterns. Raises: ValueError for one that names nothing."""
    every = onnxplain.methods()
    for name in names:
        if not any(fnmatchcase(m.name, name) for m in every):
            raise ValueError(f"there is no method {name!r}")
    return [m for m in every if not names or any(fnmatchcase(m.name, name) for name in names)]


def _described(parameter: Parameter) -> list[str]:
    default = parameter.default
    shown = (
        f"{default:g}" if isinstance(default, float) else str(default).lower() if default in (True, False) else default
    )
    cell = parameter.unsaid or ("" if default in ("", None) else f"`{shown}`")
    values = " ".join(f"`{c}`" for c in parameter.choices) or {"str": "text", "bool": "`true` `false`"}.get(
        parameter.kind.__name__, parameter.kind.__name__
    )
    if parameter.range:
        values += f", {parameter.range}"
    return [f"`{parameter.name}`", cell, values, parameter.help]


def rendered(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown.

    >>> rendered(["a", "b"], [["1", "2"]])
    ['| a | b |', '|---|---|', '| 1 | 2 |']
    """
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (header, *rows)]
    return [lines[0], "|" + "---|" * len(header), *lines[1:]]


def filled(text: str) -> str:
    """A document with its tables written anew."""

    def table_at(place: re.Match[str]) -> str:
        opening, kind, names = place.groups()
        return "\n".join([opening.rstrip("\n"), *TABLES[kind](names.split()), END])

    return _PLACE.sub(table_at, text)


def main(arguments: Sequence[str]) -> int:
    """Write, or check. Returns: the exit status."""
    stale = []
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if filled(text) != text:
            stale.append(path)
    for path in stale:
        print(f"{path.name}: {'out of date' if '--check' in arguments else 'written'}")
        if "--check" not in arguments:
            path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
