from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import on_cuda
from benchmarks.cuda import speed, timing
from benchmarks.cuda.graphs import arithmetic
from benchmarks.cuda.speed import COLUMNS, Row, cells, document
from benchmarks.cuda.torch_peers import PEERS
from tests.running import net

FACTS = {"card": "NVIDIA Test 1", "driver": "1.2", "tf32": "off"}


def zeros(count: int) -> str:
    return ",".join(["0"] * count)


def test_arithmetic_is_that_of_convolutions_and_products() -> None:
    model = net(f"""
        g (float[2,4,8,8] x) => (float[2,5] y)
        <float[6,2,3,3] w = {{{zeros(108)}}}, float[6,3,2,2] t = {{{zeros(72)}}}, float[192,5] v = {{{zeros(960)}}}> {{
            c = Conv<group=2, pads=[1,1,1,1], strides=[2,2]>(x, w)  d = ConvTranspose<strides=[2,2]>(c, t)
            r = Relu(d)  f = Flatten(r)  y = MatMul(f, v)
        }}
    """)
    convolution = 2 * (2 * 6 * 4 * 4) * (2 * 3 * 3)
    transposed = 2 * (2 * 6 * 4 * 4) * (3 * 2 * 2)
    product = 2 * (2 * 5) * 192
    assert arithmetic(model) == convolution + transposed + product


def test_arithmetic_is_unknown_where_a_size_is() -> None:
    model = net("g (float[N,4] x) => (float[N,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}> { y = MatMul(x, w) }")
    assert arithmetic(model) is None


def test_rows_as_text() -> None:
    row = Row("ResNet-50", "gradient", "tf32", 64, graph=True, ms=8.0, share=0.456, error=2e-4)
    assert cells(row) == ["ResNet-50", "gradient", "tf32", "64", "", "yes", "8.00", "8000", "46%", "2.0e-04"]
    assert cells(replace(row, channels_last=True))[4] == "NHWC"
    assert cells(replace(row, share=None, error=None))[6:] == ["8.00", "8000", "", ""]
    failed = Row("ResNet-50", "gradient", "tf32", 64, note="FAILED: why")
    assert cells(failed)[6:] == ["FAILED: why", "", "", ""]
    text = document([row, failed], FACTS)
    assert {each.count("|") for each in text.splitlines() if each.startswith("|")} == {len(COLUMNS) + 1}


def test_a_rehearsal_measures_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    monkeypatch.setattr(speed, "METHODS", {name: speed.METHODS[name] for name in ("forward", "gradient", "lrp-eps")})
    monkeypatch.setattr(timing, "SECONDS", 0.05)
    asked = ["--parts", "speed", "--networks", "tiny", "--batches", "1,2", "--precisions", "float32", "--peers", "Cap*"]
    assert on_cuda.main(["--rehearse", *asked]) == 0
    rows = [each.split() for each in capsys.readouterr().out.splitlines() if "tiny" in each]
    assert [row[1] for row in rows] == ["forward", "gradient", "lrp-eps", "Captum", "forward", "gradient", "Captum"]
    assert all(float(row[5]) > 0 for row in rows if row[1] != "Captum")
    assert all(float(row[-1]) < 1e-5 for row in rows[1:3])
    assert not list(tmp_path.iterdir())


def test_channels_last_is_asked_for_on_a_card_only() -> None:
    labels = [row.label for row in speed.asked(["ResNet-50"], [1, 16], ["tf32"], PEERS, "cuda")]
    assert {"ResNet-50 gradient tf32 16", "ResNet-50 gradient tf32 16 nhwc"} <= set(labels)
    assert "ResNet-50 integrated-gradients tf32 1" in labels
    assert not [x for x in labels if "integrated-gradients tf32 16" in x or "torch.compile gradient tf32 16" in x]
    assert not [row for row in speed.asked(["tiny"], [1], ["tf32"], PEERS, "cpu") if row.channels_last]


def test_files_are_named_after_the_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    speed.save([Row("tiny", "gradient", "float16", 16, ms=4.0)], FACTS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["NVIDIA-Test-1-speed.json", "NVIDIA-Test-1-speed.md"]
    (row,) = json.loads((tmp_path / "NVIDIA-Test-1-speed.json").read_text())["rows"]
    assert row["pictures"] == 4000
