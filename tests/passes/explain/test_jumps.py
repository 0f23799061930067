"""What follows the input without a derivative is refused where a rule of differences would not see it."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedOp
from tests.running import explained, net

JUMPS = {
    "p = Greater(x, o) m = Cast<to=1>(p) y = Add(x, m)": ("Add", "y", "m", "Greater", "p"),
    "i = ArgMax<axis=1>(x) t = Gather(table, i) u = Reshape(t, flat) y = Mul(x, x) z = Sub(y, u)": (
        "Sub",
        "z",
        "u",
        "ArgMax",
        "i",
    ),
    "c = Cast<to=7>(x) f = Cast<to=1>(c) q = Concat<axis=1>(x, f)": ("Concat", "q", "f", "Cast", "c"),
}


@pytest.mark.parametrize("text", JUMPS)
def test_what_jumps_unseen_is_refused_by_name(text: str) -> None:
    op, name, operand, origin, at = JUMPS[text]
    model = net(f"""g (float[N, 4] x) => (float[N, 1] s) <float o = {{0}}, int64[1] last = {{1}}, float[4] table =
        {{1, 2, 3, 4}}, int64[2] flat = {{-1, 1}}> {{ {text} s = ReduceSum({name}, last) }}""")
    for n in model.graph.node:
        n.name = n.output[0]
    with pytest.raises(UnsupportedOp) as error:
        compile_model(model, "deeplift-rescale")
    assert str(error.value) == (
        f"deeplift-rescale cannot pass {op!r} (node {name!r}): its operand {operand!r} jumps with the input, at "
        f"{origin!r} (node {at!r}).\n"
        "  A jump has no rule there, and the differences from the baseline would not add up.\n"
        "  Use integrated-gradients, whose residual says what jumps, or a method without a baseline."
    )


def test_what_follows_the_shape_alone_is_no_jump() -> None:
    model = net("""g (float[N, 4] x) => (float[N, 4] y) <int64 one = {1}> { s = Shape(x) n = Gather(s, one)
        c = Cast<to=1>(n) d = Div(x, c) e = CastLike(c, x) t = Add(d, e) y = Relu(t) }""")
    found = explained(model, np.array([[1, 2, 3, -4]], np.float32), "deeplift-rescale")
    np.testing.assert_allclose(found["residual"], 0, atol=1e-6)


@pytest.mark.parametrize(
    "text", ["p = Greater(x, o) s = Where(p, x, e)", "p = Greater(x, o) m = Cast<to=1>(p) s = Mul(x, m)"]
)
def test_choices_and_masks_are_passed(text: str) -> None:
    model = net(f"""g (float[N, 4] x) => (float[N, 4] y) <float o = {{0}}, float e = {{-1}}> {{ {text} y = Neg(s) }}""")
    found = explained(model, np.array([[1, 2, 3, -4]], np.float32), "deeplift-rescale")
    np.testing.assert_allclose(found["residual"], 0, atol=1e-6)
