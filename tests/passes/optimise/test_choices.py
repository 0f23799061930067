"""Choices between two numbers, and signs, as bounds of a steep line; between two lines as a LeakyRelu."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.ir.save import to_proto
from onnxplain.passes.optimise.choices import BentLines, SteepClips
from onnxplain.passes.optimise.dead_code import DropDeadCode
from tests.passes.graphs import emitted, operators, refusals
from tests.running import net, run

TINY = float(np.finfo(np.float32).tiny)


def graph(op: str, c: float, a: float, b: float, kind: str = "float") -> str:
    return f"""g ({kind}[N,K] x) => ({kind}[N,K] y) <{kind} c = {{{c!r}}}, {kind} a = {{{a!r}}}, {kind} b = {{{b!r}}}>
               {{ m = {op}(x, c) y = Where(m, a, b) }}"""


def row(c: float) -> np.ndarray:
    """Numbers at, next to and far from c, of either sign."""
    at = np.float32(c)
    near = [np.nextafter(at, np.float32(s)) if c else np.float32(s * TINY) for s in (-9, 9)]
    return np.array(
        [[at, *near, 0.0, -0.0, 1, -1, 3e38, -3e38, 1e-30, -1e-30, np.inf, -np.inf, TINY, -TINY]], np.float32
    )


@pytest.mark.parametrize("op", ["Greater", "Less"])
@pytest.mark.parametrize(
    ("c", "a", "b"),
    [
        (0.0, -1e-6, 1e-6),
        (0.0, 1.0, 0.01),
        (0.0, 0.25, 1.0),
        (0.0, 1.0, -1.0),
        (0.0, 1.0, 0.0),
        (-3.0, 0.5, 1.5),
        (2.0, 0, 1),
    ],
)
def test_a_choice_between_numbers_is_a_clip_and_exact(op: str, c: float, a: float, b: float) -> None:
    text = graph(op, float(c), float(a), float(b))
    model = emitted(text)
    assert refusals(model, SteepClips()) == (1, ())
    DropDeadCode().run(model)
    assert not {"Where", op} & set(operators(model))
    np.testing.assert_array_equal(run(to_proto(model), row(c))["y"], run(net(text), row(c))["y"])


def test_a_sign_is_a_clip_and_exact() -> None:
    text = "g (float[N,K] x) => (float[N,K] y) { y = Sign(x) }"
    model = emitted(text)
    assert refusals(model, SteepClips()) == (1, ())
    assert operators(model) == ["Mul", "Clip"]
    np.testing.assert_array_equal(run(to_proto(model), row(0))["y"], run(net(text), row(0))["y"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (graph("Greater", 0.0, 5.0, 1.0), "its numbers are too far apart, or too near zero"),
        (graph("Greater", 1e-30, 1.0, 0.0), "its numbers are too far apart, or too near zero"),
        (graph("Less", 0.0, 1.0, 0.0, kind="double"), "it is of float64"),
        (graph("Less", 0.0, 1.0, 0.0).replace("Where(m, a, b)", "Where(m, x, b)"),
         "it does not choose between two numbers by a third"),
        (graph("Less", 0.0, 1.0, 0.0).replace("float c", "float[1,1,1] c").replace("float[N,K] y", "float[] y"),
         "it does not choose between two numbers by a third"),
    ],
)  # fmt: skip
def test_elsewhere_it_stays(text: str, why: str) -> None:
    changed, declined = refusals(emitted(text), SteepClips())
    assert (changed, [r.why for r in declined]) == (0, [why])


def lines(maximum: str, slope: float, kind: str = "float") -> str:
    return f"g ({kind}[N,K] x) => ({kind}[N,K] y) <{kind} c = {{{slope}}}> {{ m = Mul(x, c) y = {maximum} }}"


@pytest.mark.parametrize("maximum", ["Max(x, m)", "Max(m, x)"])
@pytest.mark.parametrize("slope", [-1.25, -1.0, 0.5])
def test_the_larger_of_two_lines_through_zero_is_a_leaky_relu(maximum: str, slope: float) -> None:
    text = lines(maximum, slope)
    model = emitted(text)
    assert refusals(model, BentLines()) == (1, ())
    DropDeadCode().run(model)
    assert operators(model) == ["LeakyRelu"]
    finite = np.array([[0.0, -0.0, 1, -1, 1e30, -1e30, TINY, -TINY, np.inf, -np.inf, np.nan]], np.float32)
    np.testing.assert_array_equal(run(to_proto(model), finite)["y"], run(net(text), finite)["y"])


@pytest.mark.parametrize("text", [lines("Max(x, m)", 2.0), lines("Max(x, m)", -1.25, "double")])
def test_lines_stay_where_the_other_would_be_larger_or_the_slope_be_rounded(text: str) -> None:
    changed, declined = refusals(emitted(text), BentLines())
    assert changed == 0
    assert [r.why for r in declined] == ["the slope is no number below 1, or not in single precision"]


def test_other_maxima_are_not_looked_at() -> None:
    assert refusals(emitted("g (float[N,K] x) => (float[N,K] y) { r = Relu(x) y = Max(x, r) }"), BentLines()) == (0, ())
