"""Every operator of the oracle against ONNX Runtime, in float32."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from .cases import Array, Case, X, cases, ints, positive
from .cases_pointwise import POINTWISE
from .cases_spatial import SPATIAL
from .cases_structural import STRUCTURAL
from .interpreter import Oracle
from .registry import HANDLERS

CASES = [*POINTWISE, *SPATIAL, *STRUCTURAL]


def by_onnxruntime(case: Case) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        case.model().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    results: list[Array] = session.run(None, case.inputs())
    return results


def by_oracle(case: Case) -> list[Array]:
    found = Oracle(case.model(), torch.float32).run({k: torch.from_numpy(v) for k, v in case.inputs().items()})
    return [value.numpy() for value in found.values()]


def assert_same(found: list[Array], expected: list[Array]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operator_agrees_with_onnxruntime(case: Case) -> None:
    assert_same(by_oracle(case), by_onnxruntime(case))


V = positive(3)
OLD_FORMS = [
    ("y = Add<broadcast = 1, axis = 1>(p, v)", 6, "y = Add(p, w)"),
    ("y = Mul<broadcast = 1>(p, w)", 6, "y = Mul(p, w)"),
    ("y = PRelu(p, v)", 6, "y = PRelu(p, w)"),
    ("y = BatchNormalization<is_test = 1>(p, v, v, v, v)", 6, "y = BatchNormalization(p, v, v, v, v)"),
    ("y = Gemm<broadcast = 1>(a, a, v)", 6, "y = Gemm(a, a, v)"),
    ("y = Dropout<is_test = 1>(p)", 6, "y = Dropout(p)"),
    ("y = Pad<paddings = [0, 1, 0, 2], value = 1.5>(a)", 1, "y = Pad<pads = [0, 1, 0, 2], value = 1.5>(a)"),
    ("y = Tile(a, n, k)", 1, "y = Tile(a, r)"),
    ("y = Concat(p, p)", 1, "y = Concat<axis = 1>(p, p)"),
    ("q, s = Split<axis = 1, split = [1, 2]>(p)", 1, "q, s = Split<axis = 1, split = [1, 2]>(p)"),
    ('y = Cast<to = "INT64">(p)', 5, "y = Cast<to = 7>(p)"),
]


@pytest.mark.parametrize(("old", "opset", "new"), OLD_FORMS)
def test_forms_too_old_for_onnxruntime_equal_their_successors(old: str, opset: int, new: str) -> None:
    values = {"p": positive(*X), "a": positive(3, 3), "v": V, "w": V.reshape(3, 1, 1)}
    values |= {"n": ints(2), "k": ints(1), "r": ints(1, 2)}
    (before,), (after,) = cases(old, opset, **values), cases(new, 9, **values)
    assert_same(by_oracle(before), by_onnxruntime(after))


def test_every_operator_has_a_case() -> None:
    tried = {node.op_type for case in CASES for node in case.model().graph.node}
    # Their integers are kept as real numbers here, so that a derivative passes; tests/precision holds whole models.
    assert set(HANDLERS) - tried == {"QuantizeLinear", "DynamicQuantizeLinear"}
