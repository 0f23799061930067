"""What the documents say: examples run, tables are those of the code, links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md"), ROOT / "models/README.md"])
WITH_EXAMPLES = [ROOT / "README.md", ROOT / "docs/interface.md"]
SHAPES = ROOT / "models/shapes"

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
CITED = re.compile(r"([A-Z]\w+) (?:et al\.|and [A-Z]\w+) (\d{4})")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", WITH_EXAMPLES, ids=name_of)
def test_examples_run(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(SHAPES / "shapes.onnx", "model.onnx")
    shutil.copy(SHAPES / "samples/0000_cross.png", "photo.png")
    blocks = BLOCK.findall(document.read_text(encoding="utf-8"))
    assert blocks
    variables = {"images": np.random.default_rng(0).uniform(size=(2, 3, 64, 64)).astype(np.float32)}
    for block in blocks:
        exec(block, variables)


def test_tables_are_those_of_the_code() -> None:
    run = [sys.executable, ROOT / "docs/make_tables.py", "--check"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run docs/make_tables.py; {done.stdout}{done.stderr}"


def test_every_work_that_is_cited_is_in_the_references() -> None:
    def cited(path: Path) -> set[tuple[str, str]]:
        return set(CITED.findall(path.read_text(encoding="utf-8").replace("é", "e")))

    known = cited(ROOT / "docs/references.md")
    code = [
        path for folder in ("onnxplain", "passes", "tests", "benchmarks") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    unknown = {
        f"{name} {year} in {name_of(path)}" for path in [*DOCUMENTS, *code] for name, year in cited(path) - known
    }
    assert known
    assert not unknown


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    lost = []
    for target, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        path = document.parent / target if target else document
        exists = path.exists()
        if not exists or (anchor and path.suffix == ".md" and anchor not in anchors(path.read_text(encoding="utf-8"))):
            lost.append(f"{target}#{anchor}" if anchor else target)
    assert not lost
