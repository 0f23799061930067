"""Softmax of older opsets becomes Softmax along one axis where that is what it was."""

from __future__ import annotations

import pytest

from tests.passes.graphs import assert_unchanged, canonical, node, operators
from tests.running import net

HIDDEN = """g (float[N,{sizes}] x) => (float[N,{sizes}] y) <int64[{rank}] target = {{{target}}}> {{
    n = Neg(x) r = Reshape(n, target) s = {op}<axis = {axis}>(r) y = Neg(s) }}"""


@pytest.mark.parametrize(
    ("sizes", "axis", "found"), [((3, 5, 4), 3, 3), ((3, 5, 1), 2, 2), ((6, 1, 1), 1, 1), ((3, 1, 7), -1, 3)]
)
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_rows_along_one_axis(sizes: tuple[int, ...], axis: int, found: int, op: str) -> None:
    """The converter flattens wherever it does not see the rank of the input, as behind a Reshape."""
    text = HIDDEN.format(
        sizes=",".join(map(str, sizes)), rank=4, target=", ".join(map(str, (-1, *sizes))), axis=axis, op=op
    )
    model, _ = canonical(net(text, 12))
    assert operators(model) == ["Neg", "Reshape", op, "Neg"]
    assert node(model, "s").attrs["axis"] in (found, found - 4)
    assert_unchanged(model, text, [(1, *sizes), (3, *sizes)], opset=12)


CHAIN = """g (float[N,3,4] x) => (float[N,3,4] y{more}) <int64[3] turned = {{-1, 4, 3}}> {{
    whole = Shape(x) f = Flatten<axis = {first}>(x) s = Softmax<axis = {axis}>(f) y = Reshape(s, {target}) {tail} }}"""
PLAIN = {"first": 2, "axis": 1, "more": "", "tail": "", "target": "whole"}


@pytest.mark.parametrize(
    ("how", "count"),
    [
        ({}, 1),
        ({"first": 1}, 0),
        ({"first": 3}, 0),
        ({"axis": 0}, 0),
        ({"more": ", float[M,4] z", "tail": "z = Neg(s)"}, 0),
        ({"more": ", float[M,4] s"}, 0),
    ],
)
def test_it_stays_where_rows_are_several_axes_or_others_read_them(how: dict[str, object], count: int) -> None:
    text = CHAIN.format(**PLAIN | how)
    model, log = canonical(text)
    assert dict(log.entries)["SoftmaxInPlace"].changed == count
    assert ("Flatten" in operators(model)) is not bool(count)
    assert_unchanged(model, text, [(2, 3, 4)])


def test_it_says_why_not() -> None:
    for how, why in (
        ({"first": 1}, "its rows are several axes, or become something else"),
        ({"target": "turned"}, "its rows are several axes, or become something else"),
        ({"more": ", float[M,4] s"}, "'s' is read elsewhere too"),
    ):
        text = CHAIN.format(**PLAIN | how)
        text = text.replace("=> (float[N,3,4] y", "=> (float[N,a,b] y")
        (refusal,) = dict(canonical(text)[1].entries)["SoftmaxInPlace"].refusals
        assert refusal.why == why
