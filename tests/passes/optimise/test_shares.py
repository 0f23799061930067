"""A multiple of a tensor over the tensor itself: the multiple is left, times a share that hardly differs from one."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.compiler import compile_model
from onnxplain.ir.save import to_proto
from onnxplain.passes.optimise.dead_code import DropDeadCode
from onnxplain.passes.optimise.shares import ShareOfItself
from tests.catalogue import SPECIMENS
from tests.passes.graphs import emitted, operators, refusals
from tests.running import explained, net, run

SIGNED = "b = Less(y, o) s = Where(b, m, e) t = Add(y, s)"
AT_ZERO = "b = Equal(y, o) s = Cast<to = 1>(b) t = Add(y, s)"
CONSTANTS = "float o = {0}, float e = {0.25}, float m = {-0.25}, float big = {3}"


def graph(body: str) -> str:
    return f"g (float[2,6] x, float[2,6] d, float[2,6] k) => (float[2,6] q) <{CONSTANTS}> {{ {body} }}"


FEEDS = {
    "x": np.array([[0, -0.0, 1, -1, 0.1, -0.3], [2, -2, 0, 1e-3, -1e-3, 5]], np.float32),
    "d": np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32),
    "k": np.random.default_rng(1).standard_normal((2, 6)).astype(np.float32),
}


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (f"y = Neg(x) {SIGNED} r = Mul(y, d) q = Div(r, t)", ["Neg", "Abs", "Add", "Div", "Mul"]),
        (f"y = Neg(x) {SIGNED} r = Mul(d, y) q = Div(r, t)", ["Neg", "Abs", "Add", "Div", "Mul"]),
        (
            f"y = Neg(x) {SIGNED} u = Mul(y, d) v = Mul(k, y) r = Add(u, v) q = Div(r, t)",
            ["Neg", "Add", "Abs", "Add", "Div", "Mul"],
        ),
        (
            "y = Relu(x) t = Add(y, e) u = Mul(y, d) v = Mul(k, y) r = Add(u, v) q = Div(r, t)",
            ["Relu", "Add", "Add", "Div", "Mul"],
        ),
        (f"y = Relu(x) {AT_ZERO} r = Mul(y, d) q = Div(r, t)", ["Relu", "Greater", "Cast", "Mul"]),
        (f"y = Neg(x) {AT_ZERO} r = Mul(y, d) q = Div(r, t)", ["Neg", "Abs", "Greater", "Cast", "Mul"]),
    ],
)
def test_the_tensor_falls_out(body: str, left: list[str]) -> None:
    model = emitted(graph(body))
    before = run(net(graph(body)), FEEDS)["q"]
    assert refusals(model, ShareOfItself())[0] == 1
    DropDeadCode().run(model)
    assert operators(model) == left
    np.testing.assert_allclose(run(to_proto(model), FEEDS)["q"], before, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (f"y = Neg(x) {SIGNED} r = Mul(k, d) q = Div(r, t)", "not known to be a multiple"),
        (f"y = Neg(x) {SIGNED} u = Mul(y, d) r = Add(u, k) q = Div(r, t)", "not known to be a multiple"),
        (f"y = Neg(x) {SIGNED} q = Div(d, t)", "not known to be a multiple"),
        ("y = Relu(x) t = Add(y, e) r = Mul(y, d) q = Div(r, t)", "cost as much either way"),
    ],
)
def test_elsewhere_it_stays_and_says_why(body: str, why: str) -> None:
    model = emitted(graph(body))
    changed, (refusal,) = refusals(model, ShareOfItself())
    assert (changed, why in refusal.why) == (0, True)


@pytest.mark.parametrize(
    "body",
    [
        "y = Neg(x) t = Add(y, e) r = Mul(y, d) q = Div(r, t)",  # a sum that may be zero where y is not
        f"y = Neg(x) {SIGNED.replace('Where(b, m, e)', 'Where(b, m, big)')} r = Mul(y, d) q = Div(r, t)",
        f"y = Neg(x) {SIGNED.replace('Less(y, o)', 'Less(y, e)')} r = Mul(y, d) q = Div(r, t)",
        f"y = Neg(x) {SIGNED.replace('Less(y, o)', 'Less(k, o)')} r = Mul(y, d) q = Div(r, t)",
        "y = Neg(x) t = Mul(y, e) r = Mul(y, d) q = Div(r, t)",
    ],
)
def test_what_is_no_stabilised_denominator_is_not_looked_at(body: str) -> None:
    assert refusals(emitted(graph(body)), ShareOfItself()) == (0, ())


def test_lrp_0_of_a_network_of_relus_has_no_quotients_and_is_gradient_times_input() -> None:
    (shapes,) = (s for s in SPECIMENS if s.name == "digits")
    model, x = shapes.load(), shapes.images(3, 0)
    relevance = compile_model(model, "lrp-0", runtime="cpu")
    product = explained(model, x, "gradient-x-input")["attribution"]
    found = run(relevance, x)["attribution"]
    assert np.linalg.norm(found - product) <= 1e-4 * np.linalg.norm(product)
