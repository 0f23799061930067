"""Roles: which layer is first, how deep it lies, and which factor of a product is the signal."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxplain.ir.site import Role
from tests.rules.lrp.small import opened, small

W = {
    "w": np.ones((4, 4, 1, 1)), "v": np.ones((4, 4, 1, 1)), "u": np.ones((4, 4, 1, 1)), "m": np.ones((3, 3)),
    "k": np.ones((4, 1, 1)),
}  # fmt: skip


def roles(body: str, weights: dict[str, NDArray[np.float64]] | None = None) -> dict[str, Role]:
    """The role of the node that makes each tensor."""
    _, seen = opened(small(body, (1, 4, 3, 3), W if weights is None else weights))
    return {site.y.name: site.role for site in seen.sites}


def test_a_chain_has_one_first_layer() -> None:
    found = roles("s = Mul(x, k) a = Conv(s, w) b = Relu(a) c = Conv(b, v) y = Conv(c, u)")
    assert [found[t].first for t in ("s", "a", "b", "c", "y")] == [False, True, False, False, False]
    assert [found[t].depth for t in ("a", "c", "y")] == [0, 0.5, 1]


def test_branches_at_the_input_have_a_first_layer_each() -> None:
    found = roles("a = Conv(x, w) b = Conv(x, v) c = Add(a, b) d = Relu(c) y = Conv(d, u)")
    assert [found[t].first for t in ("a", "b", "y")] == [True, True, False]


def test_a_shortcut_past_the_first_layer_leads_to_no_second_one() -> None:
    """What adds the input to a layer's output lies behind that layer."""
    found = roles("a = Conv(x, w) b = Add(a, x) y = Conv(b, v)")
    assert found["a"].first
    assert not found["y"].first


def test_a_product_of_two_signals_is_no_layer() -> None:
    found = roles("a = Mul(x, k) b = MatMul(x, a) y = Conv(b, w)")
    assert found["y"].first


def test_a_model_of_one_layer() -> None:
    role = roles("y = Conv(x, w)")["y"]
    assert role.first
    assert role.depth == 0


@pytest.mark.parametrize(("body", "signal"), [
    ("s = Sigmoid(x) y = Mul(x, s)", 0),
    ("s = Sigmoid(x) y = Mul(s, x)", 1),
    ("a = Conv(x, w) p = GlobalAveragePool(a) q = Conv(p, v) s = Sigmoid(q) y = Mul(s, a)", 1),
    ("h = Mul(x, k) s = Tanh(x) y = Mul(h, s)", 0),
    ("h = Transpose<perm = [0, 1, 3, 2]>(x) s = Sigmoid(x) y = Mul(s, h)", 1),
    ("n = ReduceL2<keepdims = 1>(x) y = Div(x, n)", 0),
    ("a = Conv(x, w) b = Conv(x, v) y = Mul(a, b)", None),
    ("a = Conv(x, w) b = Conv(x, v) s = Sigmoid(b) y = Mul(a, s)", 0),
    ("a = Conv(x, w) b = Conv(x, v) s = Sigmoid(b) t = Neg(s) y = Mul(t, a)", 1),
    ("a = Conv(x, w) b = Conv(x, v) s = HardSigmoid(b) t = Sigmoid(a) y = Mul(t, s)", None),
    ("a = Sigmoid(x) y = Div(a, x)", None),
    ("y = Mul(x, x)", None),
    ("a = Mul(x, k) y = Mul(a, x)", None),
    ("y = Mul(x, k)", None),
])  # fmt: skip
def test_the_signal_of_a_product_is_what_the_other_factor_was_computed_from_or_else_no_gate(
    body: str, signal: int | None
) -> None:
    assert roles(body)["y"].signal == signal
