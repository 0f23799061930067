"""Loops: their bodies see what is outside, outside does not see into them, and constants are stored once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxplain.ir.save import to_proto
from onnxplain.ir.value import Value
from onnxplain.passes.optimise.dead_code import DropDeadCode
from tests.ir.graphs import Bench
from tests.running import run

X = np.array([[1, -2, 3]], np.float32)


def test_the_state_goes_through_a_step_so_many_times() -> None:
    b = Bench("N", 3)
    g = b.g

    def step(i: Value, state: list[Value]) -> list[Value]:
        total, product = state
        return [total + b.y * g.cast(i, b.y), product * 2]

    total, product = g.repeat(4, [g.named(g.full_like(b.x, n), b.x.shape) for n in (0, 1)], step)
    found = b.numbers(X, total, product)
    np.testing.assert_array_equal(found, [[[6, 0, 18]], [[16, 16, 16]]])
    assert [v.shape for v in (total, product)] == [("N", 3)] * 2


def test_a_body_uses_what_is_outside_and_shares_it() -> None:
    """relu(x) is emitted before: the body reads it and does not compute it again."""
    b = Bench("N", 3)
    outside = b.g.exp(b.x)
    (last,) = b.g.repeat(2, [outside], lambda i, state: [state[0] + b.g.exp(b.x) + b.g.relu(b.x)])
    (loop,) = (node for node in b.model.graph.nodes if node.op == "Loop")
    assert sorted(node.op for node in loop.attrs["body"].nodes) == ["Add", "Add", "Identity", "Identity"]
    (found,) = b.numbers(X, last)
    np.testing.assert_allclose(found, 3 * np.exp(X) + 2 * np.maximum(X, 0), rtol=1e-6)


def test_what_a_body_emits_does_not_exist_outside() -> None:
    b = Bench("N", 3)
    with b.g.body() as nodes:
        inside = b.g.exp(b.x)
    assert [node.op for node in nodes] == ["Exp"]
    outside = b.g.exp(b.x)
    assert outside.tensor is not inside.tensor
    assert b.operators == ["Exp"]


def test_an_error_inside_a_body_leaves_the_builder_as_it_was() -> None:
    b = Bench("N", 3)
    with pytest.raises(KeyError), b.g.body():
        b.g.exp(b.x)
        raise KeyError
    b.g.log(b.x)
    assert b.operators == ["Log"]


def test_constants_of_bodies_are_stored_once_in_the_main_graph() -> None:
    b = Bench("N", 3)
    g = b.g
    weights = np.arange(9, dtype=np.float32).reshape(3, 3)

    def step(i: Value, state: list[Value]) -> list[Value]:
        return [state[0] @ g.constant(weights)]

    (first,) = g.repeat(2, [b.x @ g.constant(weights)], step)
    (last,) = g.repeat(3, [first], step)
    b.model.graph.outputs.append(g.publish(last, "last").tensor)
    DropDeadCode().run(b.model)
    proto = to_proto(b.model)
    onnx.checker.check_model(proto, full_check=True)
    assert sum(list(t.dims) == [3, 3] for t in proto.graph.initializer) == 1
    bodies = [a.g for node in proto.graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    assert len(bodies) == 2
    assert not any(body.initializer for body in bodies)
    np.testing.assert_allclose(run(proto, X)["last"], X @ np.linalg.matrix_power(weights, 6), rtol=1e-5)
