from __future__ import annotations

import json
from pathlib import Path

import pytest

import onnxplain
from onnxplain.runtime.profile import Node, Spent
from tests.cli.program import program
from tests.runtime.tiny import classifier, saved


@pytest.fixture
def explained(tmp_path: Path) -> Path:
    saved(classifier(), tmp_path / "model.onnx")
    onnxplain.compile_file(tmp_path / "model.onnx", tmp_path / "explained.onnx", "gradient")
    return tmp_path / "explained.onnx"


def test_bench_sets_the_explained_model_beside_its_forward_pass(explained: Path) -> None:
    result = program("bench", explained, "--runs", 2, "--turns", 2, "--batch", 1, "--batch", 3, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [each["batch"] for each in found] == [1, 3]
    for each in found:
        assert len(each["ratios"]) == len(each["forward"]) == len(each["explained"]) == 2
        before, after = each["forward"][0]["nodes"], each["explained"][0]["nodes"]
        assert sum(after.values()) > sum(before.values()), "the explanation has nodes that the forward pass has not"
        assert all(ms > 0 for cost in each["explained"] for ms in cost["milliseconds"])


def test_bench_against_the_model_itself_counts_the_same_forward_nodes(explained: Path) -> None:
    given = program(
        "bench", explained, "--against", explained.with_name("model.onnx"), "--runs", 1, "--turns", 1, "--json"
    )
    cut = program("bench", explained, "--runs", 1, "--turns", 1, "--json")
    nodes = [json.loads(r.stdout)[0]["forward"][0]["nodes"] for r in (given, cut)]
    assert nodes[0] == nodes[1]


def test_bench_of_a_model_that_explains_nothing_says_so(explained: Path) -> None:
    result = program("bench", explained.with_name("model.onnx"))
    assert result.exit_code == 2
    assert "was not compiled by onnxplain" in result.stderr


def test_profile_names_the_model_s_layers_on_both_ways(explained: Path) -> None:
    result = program("profile", explained, "--runs", 2)
    assert result.exit_code == 0, result.stderr
    assert "forward ms" in result.stdout
    assert "onnxplain/" not in result.stdout, "what was inserted counts for its layer"


def test_time_is_summed_by_operator_and_by_layer() -> None:
    spent = Spent((Node("a", "Conv", False, 2.0), Node("a", "Conv", True, 3.0), Node("b", "Mul", True, 1.0)))
    assert spent.total() == (2.0, 4.0)
    assert spent.operators() == [("Conv", (2.0, 3.0, 2)), ("Mul", (0.0, 1.0, 1))]
    assert spent.layers() == [("a", (2.0, 3.0)), ("b", (0.0, 1.0))]
