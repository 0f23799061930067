from __future__ import annotations

import json

from benchmarks.cuda.kernel_table import rows, short, table
from benchmarks.cuda.partitioner import Answer, agree
from onnxplain.placement.lint import Fallback, Placement

OPEN = 2**31 - 1


def line(types: dict[str, list[str]], last: int = OPEN, op: str = "Op", provider: str = "CUDA") -> str:
    return json.dumps([f"{provider}ExecutionProvider", "", op, 7, last, types])


def test_types_are_written_short() -> None:
    assert [short(t) for t in ("tensor(float)", "seq(tensor(int64))", "other")] == ["float", "seq(int64)", "other"]


def test_kernels_that_differ_in_one_type_are_one_row() -> None:
    listing = [line({"T": ["tensor(float)"]}), line({"T": ["tensor(double)"]}), line({"T": ["tensor(float)"]}, 12)]
    assert table(rows(listing)) == "cuda\t\tOp\t7\t\tT=double,float\ncuda\t\tOp\t7\t12\tT=float\n"


def test_kernels_that_differ_in_two_types_stay_apart() -> None:
    """Otherwise the table would allow combinations that there are no kernels for."""
    listing = [
        line({"T": ["tensor(float)"], "I": ["tensor(int32)"]}),
        line({"T": ["tensor(double)"], "I": ["tensor(int64)"]}),
    ]
    assert len(table(rows(listing)).splitlines()) == 2


def test_other_providers_are_left_out() -> None:
    assert rows([line({}, provider="Tensorrt")]) == []


def test_the_partitioner_and_the_lint_are_compared_node_by_node() -> None:
    lint = Placement(4, (Fallback("f", "Celu", "why"),), ("s",), ("t",))
    said = Answer({"f": "Celu", "s": "Gather"}, (("MemcpyToHost", "t_CUDAExecutionProvider"),))
    assert agree(said, lint)
    assert not agree(Answer({"f": "Celu"}, said.copies), lint)
    assert not agree(Answer(said.on_cpu, ()), lint)
