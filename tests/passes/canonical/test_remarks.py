from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedModel
from onnxplain.passes.canonical.remarks import remark_on
from onnxplain.passes.canonical.scores import scores_of, select_output
from tests.cli.program import program
from tests.passes.graphs import canonical
from tests.running import explained, net

CONSTANTS = "one = Constant<value_ints = [1]>() unit = Constant<value = float {1.0}>() "
MADE_OF = "the scores 'y' are made of what a {} returns (node '{}') by more than could be stepped over"
BEST = "output 'y' holds the best of the scores by {} (node '{}'), so that the class explained is the rank among them"


def remark(tail: str, shape: str = "N,5") -> str:
    model, _ = canonical(f"g (float[N,5] x) => (float[{shape}] y) {{ {CONSTANTS} s = Tanh(x) {tail} }}")
    output = select_output(model, None)
    return remark_on(model, output, scores_of(model, output).tensor)


@pytest.mark.parametrize(
    ("tail", "shape", "begins", "tensor"),
    [
        ("p = Softmax(s) y = Neg(p)", "N,5", MADE_OF.format("Softmax", "p"), "s"),
        ("p = Sigmoid(s) q = Sub(unit, p) y = Concat<axis = 1>(q, p)", "N,10", MADE_OF.format("Sigmoid", "p"), "s"),
        ("p = Softmax(s) q = Sigmoid(x) r = Add(p, q) y = Sqrt(r)", "N,5", MADE_OF.format("Softmax", "p"), "s"),
        ("p = Softmax(s) y, i = TopK(p, one)", "N,1", BEST.format("TopK", "y"), "p"),
        ("v, i = TopK(s, one) y = Softmax(v)", "N,1", BEST.format("TopK", "v"), "s"),
        ("p = Softmax(s) y = ReduceMax<keepdims = 0>(p, one)", "N", BEST.format("ReduceMax", "y"), "p"),
    ],
)
def test_what_is_said_of_scores_that_may_not_be_meant(tail: str, shape: str, begins: str, tensor: str) -> None:
    said = remark(tail, shape)
    assert said.startswith(begins)
    assert said.endswith(f"onnx.utils.extract_model('the given ModelProto', 'scores.onnx', ['x'], ['{tensor}']).")


@pytest.mark.parametrize(
    ("tail", "shape"),
    [
        ("y = Softmax(s)", "N,5"),
        ("p = Softmax(s) y = Mul(p, unit)", "N,5"),
        ("p = Sigmoid(s) y = Mul(p, s)", "N,5"),  # a gate
        ("p = Sigmoid(s) y = MatMul(p, w)", "N,5"),  # a layer
        ("y = ReduceMean<keepdims = 1>(s, one)", "N,1"),
    ],
)
def test_nothing_is_said_of_scores(tail: str, shape: str) -> None:
    text = f"g (float[N,5] x) => (float[{shape}] y) {{ {CONSTANTS} s = Tanh(x) {tail} }}"
    model = net(text)
    if "w)" in tail:
        model.graph.initializer.append(numpy_helper.from_array(np.eye(5, dtype=np.float32), "w"))
    found, _ = canonical(model)
    output = select_output(found, None)
    assert remark_on(found, output, scores_of(found, output).tensor) == ""


def test_the_largest_of_each_class_over_places_is_that_class() -> None:
    text = f"g (float[N,5,7] x) => (float[N,5] y) {{ {CONSTANTS} two = Add(one, one)"
    text += " y = ReduceMax<keepdims = 0>(x, two) }"
    model, _ = canonical(text)
    output = select_output(model, None)
    assert remark_on(model, output, scores_of(model, output).tensor) == ""


@pytest.mark.parametrize(
    ("tail", "output", "node", "tensor"),
    [
        ("p = Softmax(s) y = ArgMax<axis = 1, keepdims = 0>(p)", "int64[N] y", "ArgMax (node 'y')", "p"),
        ("i = ArgMax<axis = 1>(s) y = Cast<to = 1>(i)", "float[N,1] y", "ArgMax (node 'i')", "s"),
        ("i = ArgMax<axis = 1, keepdims = 0>(s) y = Gather(names, i)", "float[N] y", "ArgMax (node 'i')", "s"),
        ("v, y = TopK(s, one)", "int64[N,1] y", "TopK (node 'v')", "s"),
        ("y = Hardmax(s)", "float[N,5] y", "Hardmax (node 'y')", "s"),
        ("p = Sigmoid(s) y = Less(unit, p)", "bool[N,5] y", "Less (node 'y')", "p"),
    ],
)
def test_an_output_that_is_decided_by_the_scores_is_refused(tail: str, output: str, node: str, tensor: str) -> None:
    names = "names = Constant<value_floats = [1.0, 2.0, 3.0, 4.0, 5.0]>() "
    model = net(f"g (float[N,5] x) => ({output}) {{ {CONSTANTS} {names} s = Tanh(x) {tail} }}")
    with pytest.raises(UnsupportedModel) as caught:
        compile_model(model, "gradient")
    assert str(caught.value) == (
        f"output 'y' holds what {node} decides by the scores and not the scores, and a decision has no derivative.\n"
        f"  Cut the model before it, so that it returns '{tensor}': "
        f"onnx.utils.extract_model('the given ModelProto', 'scores.onnx', ['x'], ['{tensor}']). Or name an output that "
        "holds scores with --output, if there is one."
    )


@pytest.fixture
def ranked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A classifier of pictures that returns its two best probabilities."""
    monkeypatch.chdir(tmp_path)
    model = net("""g (float[N,3,4,4] x) => (float[N,2] best, int64[N,2] which) <float[3,3] w = {1,2,3,4,-5,6,7,8,-9}> {
        p = GlobalAveragePool(x) f = Flatten(p) s = MatMul(f, w) q = Softmax(s) k = Constant<value_ints = [2]>()
        best, which = TopK(q, k) }""")
    onnx.save(model, "model.onnx")
    return model


def test_it_is_said_wherever_a_model_is_read_and_what_it_says_to_do_helps(ranked: onnx.ModelProto) -> None:
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)).save("a.png")
    for command in (
        ["compile", "model.onnx", "-o", "e.onnx", "--output", "best", "-m", "gradient"],
        ["plan", "model.onnx", "--output", "best", "-m", "gradient"],
        ["explain", "model.onnx", "a.png", "--output", "best", "--preprocess", "unit"],
    ):
        result = program(*command)
        assert result.exit_code == 0
        assert result.stderr.startswith("note: output 'best' holds the best of the scores by TopK (node 'best'), so ")
    said = re.search(r"cut the model before it: (onnx\.utils\.extract_model\(.*\))\.", result.stderr)
    assert said is not None
    eval(said[1], {"onnx": onnx})
    x = np.random.default_rng(1).standard_normal((3, 3, 4, 4)).astype(np.float32)
    scores = x.mean((2, 3)) @ np.array([[1, 2, 3], [4, -5, 6], [7, 8, -9]])
    found = explained(onnx.load("scores.onnx"), x)
    np.testing.assert_array_equal(found["explained_class"], scores.argmax(1))
    np.testing.assert_allclose(found["explained_score"], scores.max(1), rtol=1e-5)
