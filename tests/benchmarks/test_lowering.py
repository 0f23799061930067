from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cuda import timing


def test_a_rehearsal_of_lowerings_for_cuda(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from benchmarks.cuda import lowering

    monkeypatch.setattr(timing, "SECONDS", 0.05)
    monkeypatch.setattr(lowering, "RESULTS", Path("nowhere"))
    assert lowering.main(["--rehearse", "--columns", "tiny * float32", "--variants=*cuda,masks*,prefer_nhwc"]) == 0
    table = [each for each in capsys.readouterr().out.splitlines() if each.startswith("|")]
    assert table[0] == "| ms (error) | tiny, `gradient`, 1, float32 |"
    rows = [each.strip("| ").split(" | ") for each in table[2:]]
    assert [name for name, _ in rows] == ["--for cuda", "masks as products", "prefer_nhwc"]
    for _, cell in rows:
        ms, error = cell.split()
        assert float(ms) > 0
        assert float(error.strip("()")) < 1e-5


def test_passes_that_are_left_out_are_there() -> None:
    pytest.importorskip("torch")
    from benchmarks.cuda.lowering import variants
    from onnxplain.passes.optimise import LOWERING

    whole = len(LOWERING["cuda"])
    lengths = {v.name: len(v.passes) for v in variants() if v.name.startswith(("without", "masks"))}
    assert sorted(lengths.values()) == [whole - 2, whole - 1, whole - 1]
