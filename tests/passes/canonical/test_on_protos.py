"""Passes on the model as it was read: names, functions, opset, types and shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, parser

from onnxplain.compiler import compile_model
from onnxplain.errors import BadModel, UnsupportedModel
from onnxplain.ir.load import load
from onnxplain.passes.base import run_passes
from onnxplain.passes.canonical.functions import InlineFunctions
from onnxplain.passes.canonical.names import NameNodes
from onnxplain.passes.canonical.opset import HIGH, LOW, NEWEST, ConvertOpset, opset_of
from onnxplain.passes.canonical.shapes import InferShapes
from tests.running import net, run, shape_of


def applied(each: Any, model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    source = load(model)
    log = run_passes(source, [each])
    return source.proto, log.entries[0][1].changed


# Names


def test_nodes_without_names_get_one_and_equal_names_are_told_apart() -> None:
    model = net("g (float[2] x) => (float[2] y) { a = Relu(x) b = Neg(a) c = Abs(b) y = Exp(c) }")
    for node, name in zip(model.graph.node, ("same", "same", "", "same_1"), strict=True):
        node.name = name
    named, changed = applied(NameNodes(), model)
    assert [node.name for node in named.graph.node] == ["same", "same_1", "c", "same_1_1"]
    assert changed == 3
    assert [list(node.output) for node in named.graph.node] == [["a"], ["b"], ["c"], ["y"]]


def test_a_node_is_named_for_the_first_result_that_is_there() -> None:
    model = net("g (float[2] x) => (float[2] y) { a = Relu(x) y = Neg(a) }")
    model.graph.node[1].output[:] = ["", "y"]
    model.graph.node.add(op_type="Print", input=["y"], output=[""])
    assert [node.name for node in applied(NameNodes(), model)[0].graph.node] == ["a", "y", "Print"]


def test_good_names_are_kept() -> None:
    model = net("g (float[2] x) => (float[2] y) { a = Relu(x) y = Neg(a) }")
    for node, name in zip(model.graph.node, ("/layer.0/relu", "out"), strict=True):
        node.name = name
    assert applied(NameNodes(), model)[1] == 0


# Functions

TWICE = """<ir_version: 10, opset_import: ["": 20, "own": 1]>
    g (float[N,3] x) => (float[N,3] y) { a = own.Twice(x) y = own.Twice(a) }
    <domain: "own", opset_import: ["": 20, "own": 1]> Twice (v) => (w) { h = own.Halved(v)
        four = Constant<value = float {4}>() w = Mul(h, four) }
    <domain: "own", opset_import: ["": 20]> Halved (v) => (w) { two = Constant<value = float {2}>() w = Div(v, two) }
"""


def test_local_functions_are_inlined_those_within_functions_too() -> None:
    inlined, count = applied(InlineFunctions(), parser.parse_model(TWICE))
    assert count == 2
    assert not inlined.functions
    assert {node.domain for node in inlined.graph.node} == {""}
    returned = run(compile_model(parser.parse_model(TWICE), target=1), np.array([[1, 2, 3]], np.float32))
    np.testing.assert_array_equal(returned["y"], [[4, 8, 12]])
    np.testing.assert_array_equal(returned["attribution"], [[0, 4, 0]])


def with_functions(body: str, functions: str, opset: int = 20) -> onnx.ModelProto:
    return parser.parse_model(f"""<ir_version: 10, opset_import: ["": {opset}, "own": 1]>
        g (float[N,3] x) => (float[N,3] y) {{ {body} }} {functions}""")


LEAKY = """<domain: "own", opset_import: ["": 20]>
    Leaky <a: float = 0.5>(v) => (w) { w = LeakyRelu<alpha: float = @a>(v) }"""

DEFAULTS = {
    "left out": ("y = own.Leaky(x)", LEAKY, 0.5),
    "given": ("y = own.Leaky<a = 0.25>(x)", LEAKY, 0.25),
    "in a branch": ("""t = Constant<value = bool {1}>() y = If(t) <
        then_branch = then () => (float[N,3] p) { p = own.Leaky(x) },
        else_branch = other () => (float[N,3] q) { q = Relu(x) }>""", LEAKY, 0.5),
    "in a constant": ("y = own.Scaled(x)", """<domain: "own", opset_import: ["": 20]>
        Scaled <a: float = 0.5>(v) => (w) { c = Constant<value_float: float = @a>() l = Mul(v, c) w = Max(l, v) }""",
        0.5),
    "within a function": ("y = own.Outer(x)", LEAKY + """<domain: "own", opset_import: ["": 20, "own": 1]>
        Outer (v) => (w) { w = own.Leaky(v) }""", 0.5),
    "handed on": ("y = own.Outer(x)", LEAKY + """<domain: "own", opset_import: ["": 20, "own": 1]>
        Outer <b: float = 0.125>(v) => (w) { w = own.Leaky<a: float = @b>(v) }""", 0.125),
    "handed on and left out": ("y = own.Outer(x)", LEAKY + """<domain: "own", opset_import: ["": 20, "own": 1]>
        Outer <b>(v) => (w) { w = own.Leaky<a: float = @b>(v) }""", 0.5),
}  # fmt: skip


@pytest.mark.parametrize("case", DEFAULTS)
def test_defaults_of_a_function_hold_where_a_call_leaves_them_out(case: str) -> None:
    """Against the slope itself, and ONNX Runtime's own inlining of the model."""
    body, functions, slope = DEFAULTS[case]
    model = with_functions(body, functions)
    fed = np.array([[-1, 2, -3]], np.float32)
    returned = run(compile_model(model, target=0), fed)
    np.testing.assert_array_equal(returned["y"], [[-slope, 2, -3 * slope]])
    np.testing.assert_array_equal(returned["y"], run(model, fed)["y"])
    np.testing.assert_array_equal(returned["attribution"], [[slope, 0, 0]])


@pytest.mark.parametrize(("opset", "imports"), [(20, '"": 18'), (18, '"": 20'), (20, '"": 20, "own": 7')])
def test_a_function_of_another_opset_is_inlined_where_its_operators_are_the_same(opset: int, imports: str) -> None:
    functions = f"""<domain: "own", opset_import: [{imports}]> Leaky (v) => (w) {{ w = LeakyRelu<alpha = 0.5>(v) }}"""
    model = with_functions("y = own.Leaky(x)", functions, opset)
    fed = np.array([[-1, 2, -3]], np.float32)
    returned = run(compile_model(model, target=0), fed)
    np.testing.assert_array_equal(returned["y"], [[-0.5, 2, -1.5]])
    np.testing.assert_array_equal(returned["attribution"], [[0.5, 0, 0]])


def test_a_function_of_another_opset_may_be_called_by_another() -> None:
    functions = """<domain: "own", opset_import: ["": 18]> Leaky (v) => (w) { w = LeakyRelu<alpha = 0.5>(v) }
        <domain: "own", opset_import: ["": 20, "own": 1]> Outer (v) => (w) { w = own.Leaky(v) }"""
    returned = run(compile_model(with_functions("y = own.Outer(x)", functions), target=0), np.float32([[-1, 2, -3]]))
    np.testing.assert_array_equal(returned["y"], [[-0.5, 2, -1.5]])


def test_a_function_that_is_not_called_may_be_of_any_opset() -> None:
    functions = """<domain: "own", opset_import: ["": 12]> Shares (v) => (w) { w = Softmax<axis = 1>(v) }"""
    returned = run(compile_model(with_functions("y = Relu(x)", functions), target=1), np.float32([[-1, 2, -3]]))
    np.testing.assert_array_equal(returned["y"], [[0, 2, 0]])


OVERLOADED = """<domain: "own", overload: "half", opset_import: ["": 20]>
    Leaky <a: float = 0.5>(v) => (w) { w = LeakyRelu<alpha: float = @a>(v) }
    <domain: "own", overload: "quarter", opset_import: ["": 20]>
    Leaky <a: float = 0.25>(v) => (w) { w = LeakyRelu<alpha: float = @a>(v) }"""


def test_a_function_has_the_defaults_of_its_overload() -> None:
    model = with_functions("h = own.Leaky:half(x) y = own.Leaky:quarter(h)", OVERLOADED)
    returned = run(compile_model(model, target=0), np.float32([[-1, 2, -3]]))
    np.testing.assert_array_equal(returned["y"], [[-0.125, 2, -0.375]])


def test_an_opset_that_functions_alone_import_is_the_models() -> None:
    model = with_functions("y = own.Leaky(x)", LEAKY)
    del model.opset_import[0]
    inlined, _ = applied(InlineFunctions(), model)
    assert opset_of(inlined) == 20


def test_a_function_of_another_opset_is_refused_where_an_operator_changed() -> None:
    functions = """<domain: "own", opset_import: ["": 12]> Shares (v) => (w) { w = Softmax<axis = 1>(v) }"""
    model = with_functions("y = own.Shares(x)", functions)
    with pytest.raises(UnsupportedModel) as caught:
        compile_model(model)
    assert str(caught.value) == (
        "the function 'Shares' is written in opset 12 and the model in 20, and its 'Softmax' is not the same in "
        "both.\n  Export the model with one opset for all, or with its functions inlined."
    )


@pytest.mark.parametrize("inner", ["Round", "Other"])
def test_functions_that_call_each_other_in_a_circle_are_blamed_on_the_file(inner: str) -> None:
    functions = f"""<domain: "own", opset_import: ["": 20, "own": 1]> Round (v) => (w) {{ w = own.{inner}(v) }}
        <domain: "own", opset_import: ["": 20, "own": 1]> Other (v) => (w) {{ w = own.Round(v) }}
        <domain: "own", opset_import: ["": 20, "own": 1]> Outer (v) => (w) {{ w = own.Round(v) }}"""
    with pytest.raises(BadModel, match="is broken: Cycle detected in model-local function references"):
        compile_model(with_functions("y = own.Outer(x)", functions))


def test_a_model_without_functions_is_left_alone() -> None:
    assert applied(InlineFunctions(), net("g (float[2] x) => (float[2] y) { y = Relu(x) }"))[1] == 0


# Opset


@pytest.mark.parametrize(("have", "want"), [(9, LOW), (17, LOW), (20, LOW), (21, HIGH), (22, HIGH), (NEWEST, HIGH)])
def test_the_opset_becomes_20_or_21(have: int, want: int) -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { a = Relu(x) y = Softmax(a) }"
    converted, changed = applied(ConvertOpset(), net(text, have, 13 if have > 21 else 8))
    assert opset_of(converted) == want
    assert changed == int(have != want)
    onnx.checker.check_model(converted)


def test_opsets_that_are_too_new_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match=f"uses opset {NEWEST + 1}; up to {NEWEST} can be read"):
        applied(ConvertOpset(), net("g (float[2] x) => (float[2] y) { y = Relu(x) }", NEWEST + 1))


def test_an_operator_that_came_later_is_named() -> None:
    model = net("g (float[2,4] x) => (float[2,4] y) { y = NoSuchOp(x) }", 22)
    with pytest.raises(UnsupportedModel, match="opset 21: node 'y' is 'NoSuchOp', which came later"):
        applied(ConvertOpset(), named(model))


def test_what_cannot_be_converted_says_why() -> None:
    model = net("g (float[2,4] x) => (float[2,4] y) { y = Scan(x) }", 7)
    with pytest.raises(UnsupportedModel, match=r"\(opset 7\) cannot be converted to opset 20: ") as caught:
        applied(ConvertOpset(), named(model))
    assert "Export the model with an opset between 20 and 21." in str(caught.value)


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    for node in model.graph.node:
        node.name = node.output[0]
    return model


# Types and shapes


def test_every_tensor_gets_a_type_and_a_shape_through_computed_ones() -> None:
    text = """g (float[N,3,8,8] x) => (float[N,192] y) <int64[1] zero = {0}, int64[1] rest = {-1}> {
        s = Shape(x) n = Gather(s, zero) t = Concat<axis = 0>(n, rest) y = Reshape(x, t) }"""
    inferred, _ = applied(InferShapes(), net(text))
    assert shape_of(inferred.graph.output[0])[0] == "N"
    known = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    assert known == {"s": 7, "n": 7, "t": 7}


def test_stale_annotations_are_dropped() -> None:
    """An exporter's value_info, and sizes of outputs, that contradict the graph."""
    model = net("g (float[N,3] x) => (float[7,9] y) { a = Relu(x) y = Neg(a) }")
    model.graph.value_info.append(helper.make_tensor_value_info("a", 1, [5, 5]))
    inferred, _ = applied(InferShapes(), model)
    assert shape_of(inferred.graph.output[0]) == ["N", 3]
    assert shape_of(next(v for v in inferred.graph.value_info if v.name == "a")) == ["N", 3]
    declared = compile_model(model).graph.output[0]
    assert shape_of(declared) == [7, 9], "what the model declares is written again as it was"


def test_a_model_that_contradicts_itself_is_refused() -> None:
    numbers = ",".join(map(str, range(20)))
    model = net(f"g (float[2,3] x) => (float[a,b] y) <float[4,5] w = {{{numbers}}}> {{ y = MatMul(x, w) }}")
    with pytest.raises(BadModel, match="contradicts itself"):
        applied(InferShapes(), model)


def test_a_window_that_its_operand_cannot_hold_is_refused() -> None:
    """ONNX's inference and checker take it, and of a size below zero much goes wrong later."""
    model = net(
        "g (float[N,2,6,6] x) => (float[N,2,h,w] y) { [pool] y = MaxPool<kernel_shape=[15,2], strides=[2,2]>(x) }"
    )
    with pytest.raises(BadModel) as caught:
        compile_model(model)
    assert str(caught.value) == (
        "the given ModelProto is broken: node 'pool' (MaxPool) would return a tensor of sizes ['N', 2, -3, 3].\n"
        "  Its operand is smaller than its window: export the model for larger inputs."
    )


ONE_NAME = """g (float[N,3] x) => (float[N,3] y) <bool c = {1}> {
    z = If(c) <then_branch = yes () => (float[N,3] p) { s = Shape(x) p = Reshape(x, s) },
               else_branch = no () => (float[N,3] q) { s = Shape(x) n = Neg(x) q = Reshape(n, s) }>
    y = Mul(z, z) }"""
CONVERTED = """g (float[N,3] x) => (float[N,3] y) <bool c = {1}> {
    z = If(c) <then_branch = yes () => (float[N,3] p) { p = Softmax<axis = 1>(x) },
               else_branch = no () => (float[N,3] q) { q = Softmax<axis = 1>(x) }>
    y = Mul(z, z) }"""


def test_branches_may_use_one_name_for_a_shape() -> None:
    """ONNX's propagation of values takes the second for the first once more."""
    x = np.array([[1, -2, 3]], np.float32)
    returned = run(compile_model(net(ONE_NAME), target=1), x)
    np.testing.assert_array_equal(returned["y"], [[1, 4, 9]])
    np.testing.assert_array_equal(returned["attribution"], [[0, -4, 0]])


def test_branches_that_onnx_converts_alike_are_read() -> None:
    """Its converter writes the same names for the softmax of each."""
    x = np.array([[1, -2, 3]], np.float32)
    returned = run(compile_model(net(CONVERTED, 12, 8), target=1), x)
    shares = np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum()
    np.testing.assert_allclose(returned["y"], shares**2, rtol=1e-5)
    np.testing.assert_allclose(returned["attribution"], 2 * shares[:, 1:2] ** 2 * ([[0, 1, 0]] - shares), rtol=1e-5)
