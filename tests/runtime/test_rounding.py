"""How coarsely a model computes, and that `verify` allows what that brings about and no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

import onnxplain
from onnxplain import Explainer
from onnxplain.runtime.rounding import roundings
from onnxplain.runtime.verify import random_batch, verify
from tests.running import net
from tests.runtime.tiny import classifier, saved

HALF, SHORT, SINGLE = (float(np.finfo(np.float16).eps), 2.0**-7, float(np.finfo(np.float32).eps))

TWO = """g (float[N,4] x, int64[N] i) => (float[N,4] y, float[N,4] z, float[4] c, int64[N] j) {
    h = Cast<to = TYPE>(x) t = Tanh(h) y = Cast<to = 1>(t)
    z = Tanh(x) w = Constant<value = float16[4] {1, 2, 3, 4}>() c = Cast<to = 1>(w) j = Neg(i) }"""

BRANCH = """g (float[N,4] x, bool b) => (float[N,4] y) {
    y = If (b) <then_branch = t () => (float[N,4] p) { h = Cast<to = 10>(x) p = Cast<to = 1>(h) },
                else_branch = e () => (float[N,4] q) { q = Identity(x) }> }"""

FUNCTION = """<ir_version: 10, opset_import: ["" : 20, "own" : 1]>
g (float[N,4] x) => (float[N,4] y) { y = own.rounded(x) }
<opset_import: ["" : 20], domain: "own">
rounded (a) => (c) { h = Cast<to = 10>(a) t = Tanh(h) c = Cast<to = 1>(t) }"""


@pytest.mark.parametrize(("kind", "eps"), [("10", HALF), ("16", SHORT), ("1", SINGLE)])
def test_the_coarsest_type_on_the_way_counts(tmp_path: Path, kind: str, eps: float) -> None:
    """z goes another way, c and the weights inside it never meet the input, j holds no real numbers."""
    path = saved(net(TWO.replace("TYPE", kind)), tmp_path / "m.onnx")
    assert roundings(path) == {"y": eps, "z": SINGLE, "c": 0, "j": 0}


def test_branches_and_functions_are_looked_into(tmp_path: Path) -> None:
    assert roundings(saved(net(BRANCH), tmp_path / "b.onnx")) == {"y": HALF}
    assert roundings(saved(onnx.parser.parse_model(FUNCTION), tmp_path / "f.onnx")) == {"y": HALF}


def test_half_precision_between_ends_of_single(tmp_path: Path) -> None:
    """Weights of 16 bits that are widened before they are used are no half precision, and are allowed no more."""
    model = classifier()
    rng = np.random.default_rng(4)
    norm = {"s": rng.uniform(0.5, 2, 6), "b": rng.normal(size=6), "m": rng.normal(size=6), "v": rng.uniform(0.5, 2, 6)}
    model.graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), k) for k, v in norm.items())
    model.graph.node.insert(1, helper.make_node("BatchNormalization", ["z", *norm], ["n"], "norm"))
    model.graph.node[2].input[0] = "n"
    source, path = tmp_path / "model.onnx", tmp_path / "explained.onnx"
    saved(convert_float_to_float16(model, keep_io_types=True), source)
    assert roundings(source) == {"logits": HALF}
    onnxplain.compile_file(source, path, "gradient,lrp-eps")
    explain = Explainer(path, "cpu")
    found = {check.promise: check for check in verify(path, explain, source, [random_batch(explain)])}
    assert float(found["output 'logits' as the model's, to 4e-03"].found) > 1e-5, "or the test would show nothing"
    assert all(check.kept for check in found.values())

    kernel = next(t for t in model.graph.initializer if t.name == "kernel")
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel).astype(np.float16), "narrow"))
    model.graph.node.insert(0, helper.make_node("Cast", ["narrow"], ["kernel"], "widen", to=onnx.TensorProto.FLOAT))
    assert roundings(saved(model, source)) == {"logits": SINGLE}
