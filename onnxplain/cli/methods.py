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
                "range": p.range,
            }
            for p in method.parameters
        ],
    }


def _default(parameter: Parameter) -> str:
    shown = parameter.unsaid or parameter.default
    return parameter.name if shown in (None, "") else f"{parameter.name}={shown}"


def _help(parameter: Parameter) -> str:
    if parameter.choices:
        return f"{parameter.help}: {', '.join(parameter.choices)}"
    return f"{parameter.help} ({parameter.kind.__name__}, {parameter.range})" if parameter.range else parameter.help
