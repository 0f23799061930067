"""The forward pass once more on another input, sharing all that does not depend on it; whether batches stack."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.ir.builder import Builder
from onnxplain.ir.model import Model
from onnxplain.ir.save import to_proto
from onnxplain.passes.explain.trace import Trace, trace
from onnxplain.passes.explain.twin import broadcasts, twin, unstackable, value_at
from tests.passes.graphs import canonical, seeded
from tests.running import assert_near, explained, net, run

TEXT = """g (float[{n},2,3] x, float[{n},6] other) => (float[{n},4] y)
    <int64[2] flat = {{{first}, 6}}, float[6,4] w = {{{w}}}> {{
    gate = Sigmoid(other)  r = Reshape(x, flat)  a = Relu(r)  m = Mul(a, gate)  y = MatMul(m, w) }}"""


def prepared(text: str) -> tuple[Model, Builder, Trace]:
    model, _ = canonical(text)
    g = Builder(model)
    tensors = model.graph.tensors()
    return model, g, trace(g, list(model.graph.nodes), g.wrap(tensors["x"]), g.wrap(tensors["y"]))


def text_for(n: int | str) -> str:
    return TEXT.format(n=n, first=n if isinstance(n, int) else -1, w=",".join(str(v / 10) for v in range(24)))


def test_it_computes_the_model_on_another_input_and_shares_the_rest() -> None:
    model, g, original = prepared(text_for("N"))
    before = len(model.graph.nodes)
    other = twin(g, original, original.source * 2 + 1, "label")
    emitted = [n for n in model.graph.nodes[before:] if n.name.startswith("onnxplain/label/")]
    assert [n.op for n in emitted] == ["Reshape", "Relu", "Mul", "MatMul"]
    assert [n.name for n in emitted] == [f"onnxplain/label/{s.name}/{s.op}" for s in original.sites]
    assert other.of(original.source).tensor is other.source.tensor
    gate = emitted[2].inputs[1]
    assert gate.name == "gate", "what does not depend on the input is shared"
    model.graph.outputs.append(g.publish(other.score, "again").tensor)
    x, aside = seeded(3, 2, 3), seeded(3, 6)
    returned = run(to_proto(model), {"x": x, "other": aside})
    expected = run(net(text_for("N")), {"x": x * 2 + 1, "other": aside})["y"]
    np.testing.assert_allclose(returned["again"], expected, rtol=1e-6)


def test_its_own_nodes_can_be_walked() -> None:
    _, g, original = prepared(text_for("N"))
    other = twin(g, original, original.source + 1, "label")
    again = other.trace(original)
    assert [s.op for s in again.sites] == [s.op for s in original.sites]
    assert (again.source.name, again.score.name) == (other.source.name, other.score.name)


def test_the_value_of_one_tensor_takes_only_what_it_needs() -> None:
    model, g, original = prepared(text_for("N"))
    before = len(model.graph.nodes)
    relu = next(s.y for s in original.sites if s.op == "Relu")
    found = value_at(g, original, relu, original.source * 0, "bound")
    assert [n.op for n in model.graph.nodes[before:] if "bound" in n.name] == ["Reshape", "Relu"]
    assert found.name.startswith("onnxplain/bound/")


FREE = "g (float[{n},2,3] x) => (float[{n},6] y) <int64[2] flat = {{{target}}}> {{ r = Reshape(x, flat) y = Relu(r) }}"
MIXED = """g (float[2,2,3] x) => (float[2,6] y) <int64[2] a = {3, 4}, int64[2] b = {2, 6}> {
    r = Reshape(x, a) s = Relu(r) y = Reshape(s, b) }"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FREE.format(n="N", target="-1, 6"), True),
        (FREE.format(n=2, target="2, 6"), True),
        (FREE.format(n=2, target="-1, 6"), True),
        (FREE.format(n=1, target="1, 6"), True),
        (MIXED, False),
    ],
)
def test_whether_batches_stack_is_tried_and_leaves_nothing_behind(text: str, expected: bool) -> None:
    model, g, original = prepared(text)
    before = [n.name for n in model.graph.nodes]
    assert unstackable(g, original, 1) is None
    assert unstackable(g, original, 3) == (None if expected else "Reshape (node 'r') may mix them")
    assert [n.name for n in model.graph.nodes] == before


def test_whether_one_sample_broadcasts_against_many() -> None:
    for text, expected in ((FREE.format(n="N", target="-1, 6"), True), (MIXED, False)):
        model, g, original = prepared(text)
        before = len(model.graph.nodes)
        assert broadcasts(g, original) is expected
        assert len(model.graph.nodes) == before


TOKEN = """g (float[N,2,3] x{other}) => (float[N,3,3] y)
    <int64 i = {{0}}, int64[1] axis = {{0}}, int64[2] rest = {{1, 3}}> {{
    s = Shape(x) n = Gather(s, i) u = Unsqueeze(n, axis) t = Concat<axis = 0>(u, rest)
    token = ConstantOfShape(t) all = Concat<axis = 1>(token, x) y = {tail} }}"""


@pytest.mark.parametrize(
    ("other", "tail", "alone"),
    [
        ("", "Relu(all)", True),
        (", float[N,3,3] mask", "Add(all, mask)", False),
    ],
)
def test_a_token_for_each_sample_is_one_for_one_sample(other: str, tail: str, alone: bool) -> None:
    """Its first size is the batch's, which inference does not see; with another input it may be that other's."""
    _, g, original = prepared(TOKEN.format(other=other, tail=tail))
    assert broadcasts(g, original) is alone
    first = g.named(g.slice(original.source, [0], [1], [0]), [1, 2, 3])
    token = twin(g, original, first, "one").values["token"]
    assert token.shape == ((1 if alone else None), 1, 3)


def test_a_size_of_the_batch_s_name_is_not_always_the_batch() -> None:
    text = """g (float[N,2,N] x) => (float[N,M] y) <int64[2] flat = {0, -1}> { r = Reshape(x, flat) y = Relu(r) }"""
    _, g, original = prepared(text)
    assert twin(g, original, g.slice(original.source, [0], [1], [0]), "one").score.shape[1] != 1


@pytest.mark.parametrize(("rows", "alone"), [("{0, 1}", False), ("{0}", True)])
def test_writing_to_places_that_are_stated_for_each_sample_takes_the_whole_batch(rows: str, alone: bool) -> None:
    count = rows.count(",") + 1
    text = f"""g (float[2,4] x) => (float[2,4] y) <int64[{count},1] at = {rows}, float[{count},1] put = {rows}> {{
        r = Relu(x) y = ScatterElements<axis = 1>(r, at, put) }}"""
    _, g, original = prepared(text)
    assert broadcasts(g, original) is alone


@pytest.mark.parametrize(
    ("batch", "op", "at", "alone"),
    [
        (2, "ScatterND(r, at, put)", "int64[2,2] at = {0, 1, 1, 1}", False),
        (2, "GatherND(r, at)", "int64[2,2,2] at = {0, 0, 0, 1, 1, 0, 1, 1}", False),
        (2, "GatherND<batch_dims = 1>(r, at)", "int64[2,2,1] at = {0, 1, 0, 1}", False),
        (1, "ScatterND(r, at, put)", "int64[2,2] at = {0, 1, 0, 2}", True),
    ],
)
def test_a_place_that_begins_with_the_sample_takes_the_whole_batch(batch: int, op: str, at: str, alone: bool) -> None:
    text = f"""g (float[{batch},4] x) => (float[{batch},classes] y) <{at}, float[2] put = {{1, 2}}> {{
        r = Relu(x) y = {op} }}"""
    _, g, original = prepared(text)
    assert broadcasts(g, original) is alone


ASSIGNED = """g (float[2,4] x) => (float[2,3] y) <int64[2,2] at = {0, 1, 1, 1}, float[2] put = {0.5, 0.5},
    float[4] kept = {1, 0, 1, 1}, float[4] half = {0, 0.5, 0, 0}, float[4,3] w = {1,-2,3,4,-5,6,-7,8,9,1,2,-3}> {
    [form] z = Tanh(s) y = MatMul(z, w) }"""


@pytest.mark.parametrize(
    ("method", "how"),
    [
        ("deeplift-rescale", {"fold_baseline": "yes"}),
        ("deeplift-rescale", {"fold_baseline": "no"}),
        ("integrated-gradients", {"steps": 8}),
    ],
)
def test_writing_one_number_into_every_sample_is_explained_like_a_mask(method: str, how: dict[str, object]) -> None:
    """As exporters write `y[:, 1] = 0.5` for a fixed batch."""
    places, mask = "r = Abs(x) s = ScatterND(r, at, put)", "r = Abs(x) m = Mul(r, kept) s = Add(m, half)"
    found, wanted = (
        explained(net(ASSIGNED.replace("[form]", form)), seeded(2, 4), method, target=1, **how)
        for form in (places, mask)
    )
    assert_near(found["attribution"], wanted["attribution"], 1e-5)
