"""Names that nothing bears yet."""

from __future__ import annotations

from onnxplain.ir.load import load
from onnxplain.ir.model import Model
from onnxplain.ir.names import names_in, unique
from tests.running import net

BRANCHES = """g (float[2] x, bool c) => (float[2] y) <float[2] w = {1, 2}> {
    [picks] a = If(c) <then_branch = one () => (float[2] p) { [within] p = Add(x, w) },
                       else_branch = two () => (float[2] q) { q = Neg(x) }>
    [last] y = Relu(a) }"""


def test_a_name_is_given_once() -> None:
    taken = {"a", "a_1"}
    assert [unique(name, taken) for name in ("a", "a", "b", "b")] == ["a_2", "a_3", "b", "b_1"]


def test_names_of_a_graph_are_those_of_tensors_and_nodes_in_branches_too() -> None:
    assert {"x", "c", "y", "w", "a", "p", "q", "picks", "within", "last"} <= names_in(net(BRANCHES).graph)


def test_a_model_gives_no_name_that_is_there() -> None:
    model = Model.of(load(net(BRANCHES)))
    assert [model.fresh(name) for name in ("w", "p", "within", "new", "new")] == [
        "w_1",
        "p_1",
        "within_1",
        "new",
        "new_1",
    ]
