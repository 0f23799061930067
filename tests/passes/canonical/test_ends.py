"""The two ends of what is explained: the input, and the scores behind the output."""

from __future__ import annotations

import re

import pytest
from onnx import parser

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedModel, UnsupportedOp, UsageError
from onnxplain.passes.canonical.inputs import select_input
from onnxplain.passes.canonical.scores import scores_of, select_output
from tests.passes.graphs import canonical

TWO = """g (float[N,3] pixels, int64[N,2] index) => (float[N,3] logits, float[N] aside) <int64[1] axis = {1}> {
    logits = Relu(pixels)  k = Cast<to = 1>(index)  aside = ReduceSum<keepdims = 0>(k, axis) }"""


def test_the_only_input_or_the_one_that_is_named() -> None:
    alone, _ = canonical("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    assert select_input(alone, None).name == select_input(alone, "x").name == "x"
    several, _ = canonical(TWO)
    assert select_input(several, "pixels").name == "pixels"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (None, UsageError, "has 2 inputs: pixels float32, index int64.\n  Say which to explain: --input NAME."),
        ("pixel", UsageError, "has no input 'pixel'. Did you mean 'pixels'? The inputs are: pixels, index."),
        ("index", UnsupportedModel, "input 'index' holds int64, and an attribution needs real numbers."),
    ],
)
def test_another_input_is_refused(name: str | None, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        select_input(canonical(TWO)[0], name)


def test_an_input_without_a_batch_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="input 'x' has no batch axis"):
        select_input(canonical("g (float[3] x) => (float[3] y) { y = Relu(x) }")[0], None)


def test_an_input_of_nothing_is_refused() -> None:
    with pytest.raises(UnsupportedModel) as caught:
        select_input(canonical("g (float[2,0] x) => (float[2,0] y) { y = Relu(x) }")[0], None)
    assert str(caught.value) == "input 'x' has shape (2, 0) and so holds nothing to explain."


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "has 2 outputs: logits (N, 3), aside (N,).\n  Say which to explain: --output NAME."),
        ("logit", "has no output 'logit'. Did you mean 'logits'? The outputs are: logits, aside."),
    ],
)
def test_an_output_must_be_chosen_where_there_are_several(name: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        select_output(canonical(TWO)[0], name)


TAILS = [
    ("y = Softmax(s)", "s"),
    ("y = LogSoftmax(s)", "s"),
    ("y = Sigmoid(s)", "s"),
    ("a = Softmax(s) b = Identity(a) y = Flatten(b)", "s"),
    ("a = Flatten(s) y = Softmax(a)", "a"),
    ("a = Sigmoid(s) y = Softmax(a)", "s"),  # both only rescale: the scores are before the first
    ("a = Softmax(s) y = Neg(a)", "y"),
    ("a = Softmax(s) y = Add(a, s)", "y"),
    ("y = Relu(s)", "y"),
]


@pytest.mark.parametrize(("tail", "expected"), TAILS)
def test_the_scores_are_what_goes_into_the_last_softmax(tail: str, expected: str) -> None:
    model, _ = canonical(f"g (float[N,3] x) => (float[N,3] y) {{ s = Exp(x) {tail} }}")
    assert scores_of(model, select_output(model, None)).tensor.name == expected


def test_an_output_that_holds_nothing_is_no_classifiers() -> None:
    model, _ = canonical("g (float[N,0] x) => (float[N,0] y) { y = Relu(x) }")
    with pytest.raises(UnsupportedModel, match="output 'y' is not a classifier's"):
        scores_of(model, select_output(model, None))


def test_operators_for_classical_models_are_refused_by_name() -> None:
    """ONNX knows them, and there is no rule for any: behind one, sizes are unknown for no other reason."""
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 20, "ai.onnx.ml": 3]>
        g (float[N,3] x) => (float[N,3] y) {
            [scales] m = ai.onnx.ml.Scaler <offset = [0.0], scale = [2.0]> (x) r = Relu(m) y = Softmax(r) }""")
    with pytest.raises(UnsupportedOp) as caught:
        compile_model(model)
    assert str(caught.value) == (
        "there is no rule for 'Scaler' of domain 'ai.onnx.ml' (node 'scales').\n"
        "  It lies before output 'y'; neither its derivative nor what it returns is known.\n"
        "  Export the model with standard ONNX operators."
    )
