"""`onnxplain methods`: what there is."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from onnxplain.cli import report
from onnxplain.methods import methods
from onnxplain.methods.method import Parameter


def methods_command(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the methods, their parameters and where they come from."""
    if as_json:
        typer.echo(json.dumps([_entry(method) for method in methods()], indent=2))
        return
    table = report.table("method, and its parameters", "what it does", "source")
    for method in methods():
        table.add_row(method.name, method.summary, method.source, style="bold")
        for parameter in method.parameters:
            table.add_row(f"  {_default(parameter)}", _help(parameter), "")
    report.console().print(table)


def _entry(method: Any) -> dict[str, Any]:
    return {
        "name": method.name,
        "summary": method.summary,
        "source": method.source,
        "parameters": [
            {
                "name": p.name,
                "kind": p.kind.__name__,
                "default": p.default,
                "help": p.help,
                "choices": list(p.choices),
            }
            for p in method.parameters
        ],
    }


def _default(parameter: Parameter) -> str:
    return parameter.name if parameter.default in (None, "") else f"{parameter.name}={parameter.default}"


def _help(parameter: Parameter) -> str:
    return parameter.help + (f": {', '.join(parameter.choices)}" if parameter.choices else "")
