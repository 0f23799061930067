"""The command line."""

from __future__ import annotations


def main() -> None:
    """The entry point `onnxplain`."""
    from onnxplain.cli.app import app

    app(prog_name="onnxplain")
