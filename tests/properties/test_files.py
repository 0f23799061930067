"""Of a broken file there is a clear error or a right answer: no traceback, no hang, no file read outside its folder."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.properties.mutations import furnish, mutant

PATIENCE = 60
"""Seconds for one small file, on a busy machine. None should take one."""

REPOSITORY = Path(__file__).resolve().parents[2]


class Workers:
    """One worker at a time; the next takes over where one crashes or hangs."""

    def __init__(self, outside: Path) -> None:
        self.outside, self.process = outside, None  # type: Path, subprocess.Popen[str] | None

    def outcome(self, path: Path) -> str:
        if self.process is None:
            command = [sys.executable, "-W", "ignore", "-m", "tests.properties.worker", str(self.outside.resolve())]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                cwd=REPOSITORY,
            )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if ready else ""
        if line:
            return str(json.loads(line))
        why = f"ended with status {self.process.wait()}" if ready else f"took more than {PATIENCE} s"
        self.stop()
        return f"WRONG: the process {why}"

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    found = Workers(tmp_path / "outside")
    yield found
    found.stop()


def fuzz(folder: Path, workers: Workers, seeds: range) -> Counter[str]:
    """Try every seed. Returns: how often each outcome came. Raises: AssertionError listing what went wrong."""
    models, seen, wrong = furnish(folder), Counter[str](), {}
    path = models / "model.onnx"
    for seed in seeds:
        path.write_bytes(mutant(seed, folder / "outside"))
        result = workers.outcome(path)
        seen[result.split(":")[0]] += 1
        if result.startswith("WRONG"):
            wrong[seed] = result
    assert not wrong, f"{len(wrong)} of {len(seeds)}: " + "\n".join(
        f"{s}: {w[-600:]}" for s, w in list(wrong.items())[:5]
    )
    return seen


def test_broken_files_end_in_a_clear_error_or_a_right_answer(tmp_path: Path, workers: Workers) -> None:
    seen = fuzz(tmp_path, workers, range(150))
    assert seen["refused"] > 30
    assert seen["compiled"] > 10


@pytest.mark.slow
def test_ten_thousand_broken_files(tmp_path: Path, workers: Workers) -> None:
    fuzz(tmp_path, workers, range(1000, 11_000))
