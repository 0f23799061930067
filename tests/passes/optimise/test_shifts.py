"""Numbers added behind a convolution join its bias, where nothing else reads the convolution."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.passes.optimise.dead_code import DropDeadCode
from onnxplain.passes.optimise.shifts import ShiftInBlocks, ShiftIntoBias
from tests.passes.graphs import assert_unchanged, emitted, node, operators, refusals

W = "float[4,3,1,1] w = {1,2,3, -4,5,6, 7,8,9, -1,0,1}"


EXP = ["Exp", "ReduceMax", "Conv", "Add"]
V = ", float[4,3,1,1] v = {3,2,1, 4,5,6, 7,8,9, -1,0,1}"


def graph(body: str, more: str = "") -> str:
    return f"g (float[N,3,5,5] x) => (float[N,4,A,B] y) <{W}, float c = {{0.25}}{more}> {{ {body} }}"


@pytest.mark.parametrize(
    ("body", "more", "left"),
    [
        ("z = Conv(x, w) y = Add(z, c)", "", ["Conv"]),
        ("z = Conv(x, w) y = Add(c, z)", "", ["Conv"]),
        ("z = Conv(x, w, b) y = Add(z, c)", ", float[4] b = {1,2,3,4}", ["Conv"]),
        ("z = Conv(x, w) y = Add(z, k)", ", float[1,1,1,1] k = {-2}", ["Conv"]),
        ("z = Conv(x, w) r = Relu(z) y = Add(r, c)", "", ["Conv", "Clip"]),
        ("z = Conv(x, w) r = Relu(z) y = Add(r, k)", ", float[1] k = {-2}", ["Conv", "Clip"]),
        ("s = Exp(x) m = ReduceMax(s) z = Conv(x, w) t = Add(m, z) y = Add(t, c)", "", EXP),
        (
            "s = Exp(x) m = ReduceMax(s) z = Conv(x, w) r = Relu(z) t = Add(r, m) y = Add(c, t)",
            "",
            [*EXP[:3], "Clip", "Add"],
        ),
        ("z = Conv(x, w) m = Conv(x, v) t = Add(z, m) y = Add(t, c)", V, ["Conv", "Conv", "Add"]),
    ],
)
def test_a_number_joins_the_bias(body: str, more: str, left: list[str]) -> None:
    model = emitted(graph(body, more))
    assert refusals(model, ShiftIntoBias()) == (1, ())
    DropDeadCode().run(model)
    assert operators(model) == left
    assert_unchanged(model, graph(body, more), [(2, 3, 5, 5)])


def test_a_transposed_convolution_has_a_bias_too() -> None:
    text = """g (float[N,3,5,5] x) => (float[N,4,A,B] y) <float[3,2,1,1] w = {1,2,3,4,5,6}, float c = {0.5}>
              { z = ConvTranspose(x, w) y = Add(z, c) }""".replace("N,4", "N,2")
    model = emitted(text)
    assert refusals(model, ShiftIntoBias()) == (1, ())
    DropDeadCode().run(model)
    assert operators(model) == ["ConvTranspose"]
    assert_unchanged(model, text, [(2, 3, 5, 5)])


@pytest.mark.parametrize(
    ("body", "more", "why"),
    [
        ("z = Conv(x, w) a = Abs(z) b = Add(z, c) y = Mul(a, b)", "", "others read the convolution as it is"),
        ("z = Conv(x, w) r = Relu(z) b = Add(r, c) y = Mul(r, b)", "", "others read the convolution as it is"),
        ("z = Conv(x, w) r = Relu(z) b = Add(r, c) y = Mul(z, b)", "", "others read the convolution as it is"),
        (
            "z = Conv(x, w) m = ReduceMax(x) t = Add(z, m) b = Add(t, c) y = Mul(b, t)",
            "",
            "others read the convolution as it is",
        ),
        ("z = Conv(x, w) y = Add(z, k)", ", float[4,1,1] k = {1,2,3,4}", "what it adds is not one number"),
        ("z = Conv(x, w) y = Add(z, k)", ", float[1,1,1,1,1] k = {2}", "what it adds is not one number"),
    ],
)
def test_elsewhere_it_stays(body: str, more: str, why: str) -> None:
    text = graph(body, more).replace("float[N,4,A,B] y", "float[] y")
    model = emitted(text)
    add = node(model, "b" if "b = " in body else "y")
    changed, declined = refusals(model, ShiftIntoBias())
    assert (changed, [(r.where, r.why) for r in declined]) == (0, [(add.name, why)])


def test_what_is_no_convolution_is_not_looked_at() -> None:
    model = emitted("g (float[N,3] x) => (float[N,3] y) <float c = {1}> { z = Exp(x) y = Add(z, c) }")
    assert refusals(model, ShiftIntoBias()) == (0, ())


def test_a_summand_that_others_read_is_not_looked_at() -> None:
    model = emitted(graph("z = Conv(x, w) m = Exp(z) t = Add(z, m) y = Add(t, c)"))
    assert refusals(model, ShiftIntoBias()) == (0, ())


def blocks(body: str, channels: int = 16) -> str:
    values = ",".join(f"{v:.3f}" for v in np.random.default_rng(1).standard_normal(channels))
    return f"""g (float[N,1,3,3] x) => (float[N,{channels},3,3] y) <float[{channels},1,1,1] w = {{{values}}},
               float c = {{0.25}}, float[{channels},1,1] k = {{{values}}}> {{ z = Conv(x, w) r = Relu(z) {body} }}"""


def test_where_others_read_the_convolution_it_gets_one_of_its_own() -> None:
    text = blocks("a = Add(r, c) y = Mul(a, z)")
    model = emitted(text)
    assert refusals(model, ShiftInBlocks()) == (1, ())
    DropDeadCode().run(model)
    assert operators(model) == ["Conv", "Conv", "Clip", "Mul"]
    assert_unchanged(model, text, [(2, 1, 3, 3)])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (blocks("a = Add(r, c) y = Mul(a, r)"), "it is no convolution in blocks, or others read its ReLU"),
        (blocks("a = Add(r, c) y = Mul(a, z)", 8), "it is no convolution in blocks, or others read its ReLU"),
        (blocks("a = Add(r, k) y = Mul(a, z)"), "what it adds is not one number"),
    ],
)
def test_otherwise_it_does_not(text: str, why: str) -> None:
    changed, declined = refusals(emitted(text), ShiftInBlocks())
    assert (changed, [r.why for r in declined]) == (0, [why])
