"""Running the program inside the test's own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from onnxplain.cli.app import app


def program(*arguments: object) -> Any:
    """The program's result: exit_code, stdout, stderr."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
