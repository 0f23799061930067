"""One package under one name, and all of it installed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_passes_are_imported_under_one_name_only() -> None:
    code = "import sys, onnxplain; print('onnxplain.passes' in sys.modules, 'passes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "True False"


def test_every_folder_with_sources_is_installed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {path.parent for top in ("onnxplain", "passes") for path in (ROOT / top).rglob("*.py")}
    names = {".".join(path.relative_to(ROOT).parts) for path in folders}
    assert {f"onnxplain.{n}" if n.startswith("passes") else n for n in names} == listed


def test_no_source_file_is_longer_than_a_reader_can_bear() -> None:
    long = {
        p.name: n
        for top in ("onnxplain", "passes")
        for p in (ROOT / top).rglob("*.py")
        if (n := len(p.read_text().splitlines())) > 400
    }
    assert not long
