"""Measured tables in docs/, each between `<!-- name -->` and `<!-- end of name -->`."""

from __future__ import annotations

from pathlib import Path


def put(page: Path, name: str, table: str) -> None:
    """Replace what stands between the markers of `name`; a page without them stays as it is."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = page.read_text(encoding="utf-8")
    if begin not in text:
        return
    before, rest = text.split(begin)
    page.write_text(f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}", encoding="utf-8")
