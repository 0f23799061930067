"""What the program says: results on stdout, all else on stderr, errors in words and with the right exit status."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import typer

from onnxplain.errors import OnnxplainError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FAILED, MISUSED, INTERRUPTED = 1, 2, 130

WIDE = 200
"""Columns of a table that goes into a file or a pipe."""

debug = False
"""Whether tracebacks are shown."""


def answering(command: Callable[..., None]) -> Callable[..., None]:
    """The command, ending in a message and an exit status whatever happens in it."""

    @functools.wraps(command)
    def answered(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            say("interrupted; what was written is whole")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if debug:
                traceback.print_exc()
            complain(error)
            raise typer.Exit(MISUSED if isinstance(error, UsageError) else FAILED) from None

    return answered


def complain(error: Exception) -> None:
    """Say on stderr what went wrong."""
    if isinstance(error, OnnxplainError):
        say(f"{type(error).__name__}: {error}", kind=type(error).__name__)
    elif isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        say(f"{type(error).__name__}: {error.strerror}{where}", kind=type(error).__name__)
    elif isinstance(error, MemoryError):
        say("MemoryError: the machine has not enough memory for this.", kind="MemoryError")
    else:
        hint = (
            "" if debug else "\n  Run it again as `onnxplain --debug ...` for the traceback, and report it with that."
        )
        what = f"{type(error).__name__}: {error}"
        say(f"InternalError: {what}\n  This is a bug in onnxplain, not a mistake of yours.{hint}", kind="InternalError")


def say(text: str, kind: str = "") -> None:
    """A message on stderr; its kind in red on a terminal."""
    if kind and sys.stderr.isatty():
        from rich.console import Console
        from rich.text import Text

        message = Text(text)
        message.stylize("bold red", 0, len(kind))
        Console(stderr=True).print(message, soft_wrap=True)
    else:
        typer.echo(text, err=True)


def remark(remarks: Iterable[str]) -> None:
    """Say on stderr what whoever asked may want to know of a model."""
    for each in remarks:
        say(f"note: {each}")


def paragraphs(text: str) -> str:
    """A docstring with each paragraph in one line, for a terminal of any width to wrap."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def console() -> Console:
    """Stdout, as wide as the terminal; wide enough for names where there is none."""
    from rich.console import Console

    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=WIDE)


def table(*columns: str) -> Table:
    """An empty table whose cells are folded, never cut."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made
