"""What a condition keeps is chosen on CUDA, and multiplied elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.compiler import compile_model
from onnxplain.ir.save import to_proto
from onnxplain.passes.optimise.dead_code import DropDeadCode
from onnxplain.passes.optimise.kept import KeptByChoice
from onnxplain.placement.lint import place
from tests.passes.graphs import emitted, operators, refusals
from tests.running import net, run

RELUS = """g (float[N,4] x) => (float[N,3] y)
    <float[4,5] w = {1,-2,3,-4,5,-6,7,-8,9,-1,2,-3,4,-5,6,-7,8,-9,1,-2},
     float[5,3] v = {1,2,3,4,5,6,-7,8,9,1,-2,3,4,5,6}>
    { a = MatMul(x, w)  r = Relu(a)  y = MatMul(r, v) }"""


@pytest.mark.parametrize("product", ["Mul(x, m)", "Mul(m, x)"])
@pytest.mark.parametrize("kind", ["float", "float16", "double"])
def test_a_product_with_a_condition_is_a_choice(product: str, kind: str) -> None:
    number = {"float": 1, "float16": 10, "double": 11}[kind]
    model = emitted(f"""g ({kind}[N,4] x) => ({kind}[N,4] y) <{kind} c = {{0}}>
                      {{ b = Greater(x, c)  m = Cast<to={number}>(b)  y = {product} }}""")
    assert refusals(model, KeptByChoice()) == (1, ())
    DropDeadCode().run(model)
    assert operators(model) == ["Greater", "Where"]
    x = np.array([[-1, 0, 0.75, 8]], {"float": np.float32, "float16": np.float16, "double": np.float64}[kind])
    np.testing.assert_array_equal(run(to_proto(model), x)["y"], [[0, 0, 0.75, 8]])


def test_products_with_numbers_are_not_looked_at() -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { h = Cast<to=10>(x) b = Cast<to=1>(h) y = Mul(x, b) }"
    assert refusals(emitted(text), KeptByChoice()) == (0, ())


def test_a_relu_takes_two_kernels_on_the_card() -> None:
    cuda, portable = (compile_model(net(RELUS), "gradient", runtime=r, target=1) for r in ("cuda", "portable"))
    found, expected = ([n.op_type for n in each.graph.node] for each in (cuda, portable))
    assert (found.count("Where"), found.count("Cast")) == (expected.count("Where") + 1, expected.count("Cast") - 1)
    assert place(cuda).whole
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(cuda, x)["attribution"], run(portable, x)["attribution"])
