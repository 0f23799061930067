"""The benchmark of compiling measures what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.compile import GOALS, HEAD, LARGE, rows
from tests.running import net

MODEL = net("g (float[N,4] x) => (float[N,3] y) <float[4,3] w = {1,2,3,4,5,6,7,8,9,1,2,3}> { y = MatMul(x, w) }")


def test_a_row_for_each_method_and_runtime(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.onnx").write_bytes(MODEL.SerializeToString())
    found = rows(tmp_path / "model.onnx", "small", ("gradient", "grad-cam"), ("portable", "cpu"), 1)
    assert [(row.method, row.runtime) for row in found] == [("gradient", "portable"), ("gradient", "cpu")]
    assert "small, grad-cam: " in capsys.readouterr().out  # it has no convolution to tap
    assert all(row.size == MODEL.ByteSize() and row.cost.written > row.size and row.cost.seconds > 0 for row in found)
    assert len(str(found[0]).split("|")) == len(HEAD[0].split("|"))


def test_a_goal_is_missed_by_any_of_its_figures(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(MODEL.SerializeToString())
    (small,) = rows(tmp_path / "model.onnx", "small", ("gradient",), ("portable",), 1)
    assert not small.missed  # there is no goal for it
    goal, size = GOALS[LARGE], 1000
    cost = replace(small.cost, seconds=goal.seconds, written=int(size * goal.file), memory=int(size * goal.memory))
    large = replace(small, model=LARGE, size=size, cost=cost)
    assert not large.missed
    for worse in ({"seconds": goal.seconds * 1.1}, {"written": 2 * size}, {"memory": 2 * size}):
        assert replace(large, cost=replace(cost, **worse)).missed
