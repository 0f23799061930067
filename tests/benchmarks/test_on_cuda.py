from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import on_cuda
from benchmarks.cuda import parity
from benchmarks.cuda.parity import COLUMNS, Placement, Report, Row
from onnxplain.runtime.agreement import ALIKE, Distance

FACTS = {"card": "NVIDIA Test 1", "driver": "1.2", "ONNX Runtime": "1.31.1"}


def event(name: str, op: str, provider: str, index: int = 0) -> dict[str, object]:
    args = {"op_name": op, "provider": f"{provider}ExecutionProvider", "node_index": str(index)}
    return {"cat": "Node", "name": f"{name}_kernel_time", "args": args}


def some_report() -> Report:
    place = Placement(97, {"Shape": 2, "Concat": 1}, 1)
    rows = [
        Row("gradient", Distance(1e-6), 2e-7, place),
        Row("fem", Distance(2e-3, 1e-4), 0.1, place),
        Row("lrp-0", Distance(2e-3, 1e-3), 0.1, place),
        Row("cam", note="cam needs a network of another form."),
    ]
    return Report("shapes", 4, Placement(30, {}, 0), rows)


def test_without_a_gpu_it_says_so_and_exits_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(on_cuda, "why_no_cuda", lambda: "there is no CUDA device")
    assert on_cuda.main([]) == 0
    assert capsys.readouterr().out == "nothing was measured: there is no CUDA device\n"


def test_rehearsal_runs_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(parity, "RESULTS", tmp_path / "results")
    assert on_cuda.main(["--rehearse", "--parts", "parity", "--models", "digits", "--methods", "gradient,cam"]) == 0
    said = capsys.readouterr().out.splitlines()
    (gradient,) = (each.split() for each in said if each.startswith("gradient "))
    assert len(gradient) == len(COLUMNS) - 1  # it does not move
    assert gradient[1:3] == ["0.0e+00", "0.0e+00"]
    assert any(each.startswith("cam ") and "grad-cam" not in each and "pooling" in each for each in said)
    assert not (tmp_path / "results").exists()


def test_every_method_is_asked_of_every_model(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        parity, "reports", lambda chosen, methods, *_, **__: asked.extend(m.name for m in methods) or []
    )
    assert on_cuda.main(["--rehearse", "--parts", "parity"]) == 0
    assert set(asked) == {m.name for m in on_cuda.onnxplain.methods()} - {"lrp"}


def test_a_part_that_there_is_not_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        on_cuda.main(["--parts", "latency"])
    assert "there is no part 'latency': there are parity, speed" in capsys.readouterr().err


def test_nodes_are_counted_once_and_by_provider() -> None:
    events = [
        event("conv", "Conv", "CUDA"),
        event("body", "Mul", "CUDA", 3),
        event("body", "Mul", "CUDA", 3),
        event("shape", "Shape", "CPU"),
        event("copy", "MemcpyToHost", "CUDA"),
        {"cat": "Session", "name": "model_run"},
    ]
    assert parity.placed(events, "CUDAExecutionProvider") == Placement(3, {"Shape": 1}, 1)


def test_document() -> None:
    text = parity.document([some_report()], FACTS)
    assert text.startswith("# NVIDIA Test 1\n")
    assert "3 graphs ran, 1 did not" in text
    assert "2 differ from the CPU by more than 0.001, 1 of them by more than 5 times what they move" in text
    assert "(marked !). 3 Memcpy nodes in all." in text
    assert "by operator: Shape 6, Concat 3." in text
    assert "Options: use_tf32=0." in text
    table = [each for each in text.splitlines() if each.startswith("|")]
    assert {each.count("|") for each in table} == {len(COLUMNS) + 1}
    assert "| `gradient` | 1.0e-06 |  | 2.0e-07 | 97 | 3 | 1 |" in table
    assert "| `fem` | 2.0e-03 (!) | 1.0e-04 |" in text
    assert "| `lrp-0` | 2.0e-03 | 1.0e-03 |" in text


def test_files_are_named_after_the_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parity, "RESULTS", tmp_path)
    parity.save([some_report()], FACTS)
    parity.save([some_report()], FACTS, {"use_tf32": "0", "prefer_nhwc": "1"})
    names = sorted(each.stem for each in tmp_path.iterdir())
    assert names == ["NVIDIA-Test-1"] * 2 + ["NVIDIA-Test-1-prefer_nhwc-1"] * 2
    (model,) = json.loads((tmp_path / "NVIDIA-Test-1.json").read_text())["models"]
    assert model["rows"][0]["placement"]["elsewhere"] == {"Shape": 2, "Concat": 1}


@pytest.mark.gpu
def test_on_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lacking = on_cuda.why_no_cuda()
    if lacking:
        pytest.skip(lacking.splitlines()[0])
    monkeypatch.setattr(parity, "RESULTS", tmp_path)
    assert (
        on_cuda.main(["--parts", "parity", "--models", "digits,shapes", "--methods", "gradient,grad-cam,lrp-eps"]) == 0
    )
    (results,) = (json.loads(each.read_text()) for each in tmp_path.glob("*.json"))
    rows = [row for model in results["models"] for row in model["rows"]]
    assert len(rows) == 6
    assert all(row["apart"]["error"] <= ALIKE and row["placement"]["memcpy"] == 0 for row in rows)
