"""The program: its commands, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from onnxplain.cli import report
from onnxplain.cli.bench import bench_command
from onnxplain.cli.compile import compile_command
from onnxplain.cli.explain import explain_command
from onnxplain.cli.methods import methods_command
from onnxplain.cli.plan import plan_command
from onnxplain.cli.profile import profile_command
from onnxplain.cli.verify import verify_command
from onnxplain.version import __version__

app = typer.Typer(
    help="Compile a trained ONNX classifier into a graph that returns its prediction and the explanation of it.",
    epilog="Exit status: 0 done, 1 the work failed, 2 bad usage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, Callable[..., None]] = {
    "compile": compile_command,
    "explain": explain_command,
    "plan": plan_command,
    "verify": verify_command,
    "bench": bench_command,
    "profile": profile_command,
    "methods": methods_command,
}
for name, command in COMMANDS.items():
    app.command(name, help=report.paragraphs(command.__doc__ or ""))(report.answering(command))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"onnxplain {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.", envvar="ONNXPLAIN_DEBUG")
    ] = False,
) -> None:
    report.debug = debug
