"""The compiled graph's interface, on which users' code in other languages depends: names, order, types, shapes,
metadata, node names."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

from onnxplain.compiler import compile_file, compile_model
from onnxplain.version import __version__
from tests.catalogue import SPECIMENS, Specimen, with_batch
from tests.models.nets import EXPORTERS, Plain, ready
from tests.models.samples import specimens
from tests.oracle import input_names
from tests.running import names_of, net, operators, run, shape_of

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
WALKS = ("gradient", "gradient-x-input", "deconvnet", "guided-backprop")
MAPS = ("grad-cam", "fem")
SETTINGS: dict[str, dict[str, Any]] = {"integrated-gradients": {"steps": 2}, "smoothgrad": {"samples": 2}}
PATHS = tuple(SETTINGS)
CONTROL_FLOW = {("", "If"), ("", "Loop"), ("", "Scan")}


def described(values: Any) -> list[tuple[str, int, list[int | str]]]:
    return [(v.name, v.type.tensor_type.elem_type, shape_of(v)) for v in values]


def plain(exporter: str = "torchscript") -> ModelProto:
    return ready(Plain, 3, 16, 16, exporter=exporter)


@pytest.mark.parametrize("method", [*WALKS, "guided-grad-cam", *MAPS, *PATHS])
def test_names_order_types_and_shapes(method: str) -> None:
    compiled = compile_model(plain(), method, **SETTINGS.get(method, {}))
    coarse = method in MAPS
    assert described(compiled.graph.input) == [("x", FLOAT, ["N", 3, 16, 16])]
    assert described(compiled.graph.output) == [
        ("y", FLOAT, ["N", 5]),
        ("attribution", FLOAT, ["N", 4, 4] if coarse else ["N", 3, 16, 16]),
        ("heatmap", FLOAT, ["N", 16, 16]),
        ("explained_class", INT64, ["N"]),
        ("explained_score", FLOAT, ["N"]),
        *([("residual", FLOAT, ["N"])] if method == "integrated-gradients" else []),
    ]
    for n in (1, 3):
        for o, value in zip(
            compiled.graph.output, run(compiled, np.ones((n, 3, 16, 16), np.float32)).values(), strict=True
        ):
            assert list(value.shape) == [n, *shape_of(o)[1:]]


def test_further_inputs_come_after_the_models_own() -> None:
    every = compile_model(plain(), "integrated-gradients,smoothgrad", target="input", baseline="input", noise="input")
    assert described(every.graph.input)[:2] == [("x", FLOAT, ["N", 3, 16, 16]), ("target", INT64, ["N"])]
    rest = {name: (kind, shape) for name, kind, shape in described(every.graph.input)[2:]}
    assert set(rest) == {"baseline", "noise"}
    assert rest["baseline"][0] == rest["noise"][0] == FLOAT
    assert rest["baseline"][1][1:] == [3, 16, 16]
    assert rest["noise"][1] == [50, "N", 3, 16, 16]
    assert names_of(compile_model(with_batch(plain(), 2), "smoothgrad", noise="input", samples=4).graph.input) == [
        "x",
        "noise",
    ]


def test_channels_last_stays_channels_last() -> None:
    specimen = next(s for s in SPECIMENS if s.name == "vww_96")
    if specimen.missing:
        pytest.skip(specimen.missing)
    for method in ("gradient", "deconvnet", "guided-backprop", "guided-grad-cam"):
        compiled = compile_model(specimen.load(), method)
        shapes = {o.name: shape_of(o) for o in compiled.graph.output}
        assert shapes["attribution"] == shape_of(compiled.graph.input[0])
        assert shapes["heatmap"][1:] == [96, 96]
        returned = run(compiled, specimen.images(2, 0))
        assert returned["attribution"].shape == (2, 96, 96, 3)
        expected = np.abs(returned["attribution"]).max(3)
        np.testing.assert_allclose(returned["heatmap"], expected / expected.max((1, 2), keepdims=True), atol=1e-6)
    assert run(compile_model(specimen.load(), "grad-cam"), specimen.images(2, 0))["heatmap"].shape == (2, 96, 96)


CLASHING = """g (float[N,4] x) => (float[N,2] attribution, float[N,4] heatmap)
    <float[4,2] target = {1,2,3,4,5,6,7,8}> {
    explained_class = Relu(x)  residual = Abs(explained_class)  onnxplain_residual = Neg(residual)
    heatmap = Add(residual, onnxplain_residual)  attribution = MatMul(explained_class, target) }"""


def test_a_name_that_the_model_uses_gets_a_prefix() -> None:
    compiled = compile_model(net(CLASHING), "integrated-gradients", output="attribution", target="input", steps=2)
    onnx.checker.check_model(compiled, full_check=True)
    assert names_of(compiled.graph.input) == ["x", "onnxplain_target"]
    assert names_of(compiled.graph.output) == [
        "attribution",
        "heatmap",
        "onnxplain_attribution",
        "onnxplain_heatmap",
        "onnxplain_explained_class",
        "explained_score",
        "onnxplain_onnxplain_residual",
    ]
    notes = {entry.key: entry.value for entry in compiled.metadata_props}
    assert json.loads(notes["onnxplain.outputs"]) == {
        "attribution": "onnxplain_attribution",
        "heatmap": "onnxplain_heatmap",
        "explained_class": "onnxplain_explained_class",
        "explained_score": "explained_score",
        "residual": "onnxplain_onnxplain_residual",
    }
    x = np.array([[1, -2, 3, 4]], np.float32)
    returned = run(compiled, {"x": x, "onnxplain_target": np.array([1])})
    np.testing.assert_allclose(returned["attribution"], np.maximum(x, 0) @ np.arange(1, 9).reshape(4, 2))
    np.testing.assert_allclose(returned["onnxplain_attribution"], x * [[2, 0, 6, 8]])


def test_names_inside_branches_are_taken_too() -> None:
    model = net(
        """g (float[N,4] x, bool c) => (float[N,4] y, float[N,4] z) {
            y = Sigmoid(x)
            z = If(c) <then_branch = t () => (float[N,4] a) { attribution = Exp(x) a = Neg(attribution) },
                       else_branch = f () => (float[N,4] b) { target = Neg(x) b = Neg(target) }>
        }"""
    )
    compiled = compile_model(model, input="x", output="y", target="input")
    onnx.checker.check_model(compiled, full_check=True)
    assert names_of(compiled.graph.input) == ["x", "c", "onnxplain_target"]
    assert names_of(compiled.graph.output)[:4] == ["y", "z", "onnxplain_attribution", "heatmap"]
    feeds = {"x": np.zeros((1, 4), np.float32), "c": np.array(True), "onnxplain_target": np.array([1])}
    np.testing.assert_array_equal(run(compiled, feeds)["onnxplain_attribution"], [[0, 1, 0, 0]])


def test_an_input_may_have_an_outputs_name() -> None:
    model = net("g (float[N,3] attribution) => (float[N,3] noise) { noise = Relu(attribution) }")
    compiled = compile_model(model, "smoothgrad", noise="input", samples=2)
    assert names_of(compiled.graph.input) == ["attribution", "onnxplain_noise"]
    assert names_of(compiled.graph.output)[:2] == ["noise", "onnxplain_attribution"]


def test_what_a_compiled_graph_says_of_itself(tmp_path: Any) -> None:
    source = tmp_path / "model.onnx"
    model = plain()
    model.metadata_props.add(key="owner", value="someone")
    model.doc_string = "a network"
    onnx.save(model, source)
    settings = {"target": 3, "layer": "*features.2*", "k": 2.0, "preprocess": {"mean": [0.5], "std": [0.25]}}
    (written,) = compile_file(source, tmp_path / "out.onnx", "fem,gradient", **settings)
    compiled = onnx.load(written)
    notes = {entry.key: entry.value for entry in compiled.metadata_props}
    assert notes["owner"] == "someone"
    assert (compiled.doc_string, compiled.producer_name) == ("a network", model.producer_name)
    assert notes["onnxplain.version"] == __version__
    assert notes["onnxplain.method"] == "fem,gradient"
    assert notes["onnxplain.source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    parameters = json.loads(notes["onnxplain.parameters"])
    assert parameters["fem"] == {"k": 2.0, "layer": "*features.2*", "variant": "paper"}
    assert (parameters["gradient"], parameters["target"], parameters["classes"]) == ({}, "3", 5)
    assert parameters["layout"] == "channels-first"
    assert json.loads(notes["onnxplain.outputs"])["attribution_fem"] == "attribution_fem"
    assert json.loads(notes["onnxplain.inputs"]) == {"input": "x"}
    assert settings["preprocess"].items() <= json.loads(notes["onnxplain.preprocess"]).items()


def forward_nodes(model: ModelProto) -> dict[str, onnx.NodeProto]:
    """Named nodes that depend on the input, but for shape arithmetic, which is done ahead, and folded batch norms."""
    ahead = {"Shape", "Gather", "Unsqueeze", "Concat", "ConstantOfShape", "Slice", "Cast"}
    scaling = {"BatchNormalization", "Mul", "Add"}
    varying = set(input_names(model))
    found = {}
    for node in model.graph.node:
        if varying.intersection(node.input):
            varying.update(node.output)
            if node.name and node.op_type not in ahead | scaling:
                found[node.name] = node
    return found


@pytest.mark.parametrize("opset", [11, 17, 20, 24])
def test_notes_are_kept_whatever_opset_the_model_has(opset: int) -> None:
    """Both converting and importing a model would lose some of them."""
    model = net("g (float[N,3] x) => (float[N,3] y) { s = Tanh(x) y = Softmax(s) }", opset)
    for each in (*model.graph.node, *model.graph.input, *model.graph.output):
        each.name = each.name or f"node of {each.output[0]}"
        each.doc_string = f"about {each.name}"
        each.metadata_props.add(key="of", value=each.name)
    compiled = compile_model(model, "gradient").graph
    kept = {each.name: each for each in (*compiled.node, *compiled.input, *compiled.output)}
    for each in (*model.graph.node, *model.graph.input, *model.graph.output):
        assert kept[each.name].doc_string == f"about {each.name}"
        assert {e.key: e.value for e in kept[each.name].metadata_props} == {"of": each.name}


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("method", [*WALKS, *MAPS, *PATHS])
def test_nodes_keep_their_names_and_notes_and_new_ones_say_where_they_belong(method: str, exporter: str) -> None:
    model = ModelProto()
    model.CopyFrom(plain(exporter))
    for node in model.graph.node:
        node.doc_string = f"made by {node.op_type}"
        node.metadata_props.add(key="place", value=node.name)
    compiled = compile_model(model, method, **SETTINGS.get(method, {}))
    kept = {node.name: node for node in compiled.graph.node}
    assert len(kept) == len(compiled.graph.node)
    for name, node in forward_nodes(model).items():
        assert kept[name].op_type == node.op_type
        assert kept[name].doc_string == node.doc_string
        assert kept[name].metadata_props == node.metadata_props
        assert list(kept[name].output) == list(node.output)
    own = {node.name for node in model.graph.node}
    for name in set(kept) - own:
        assert name.startswith("onnxplain/")
    if method in WALKS:
        backward = [name.removeprefix("onnxplain/") for name in set(kept) - own]
        places = {name for name in own if any(other.startswith(f"{name}/") for other in backward)}
        assert len(places) >= 10


@pytest.mark.parametrize("method", [*WALKS, *MAPS])
@pytest.mark.parametrize("specimen", specimens(quick=["light_squeezenet"]))
def test_standard_operators_of_opset_20_or_21_without_functions_or_control_flow(
    specimen: Specimen, method: str
) -> None:
    if not specimen.trained and method not in ("gradient", "grad-cam"):
        pytest.skip("two methods are enough for architectures")
    model = specimen.load()
    compiled = compile_model(model, method)
    onnx.checker.check_model(compiled, full_check=True)
    assert {o.version for o in compiled.opset_import if o.domain == ""} <= {20, 21}
    assert compiled.ir_version == 10
    assert not compiled.functions
    used = operators(compiled.graph)
    assert {domain for domain, _ in used} == {""}
    assert not used & CONTROL_FLOW
    names = {node.name for node in compiled.graph.node}
    assert set(forward_nodes(model)) <= names
    assert described(compiled.graph.output)[: len(model.graph.output)] == described(model.graph.output)


def test_sizes_that_are_names_stay_names() -> None:
    text = """g (float[batch,3,height,width] x) => (float[batch,2] y) <float[2,3,1,1] w = {1,2,3,4,5,6}> {
        c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p) }"""
    compiled = compile_model(net(text), "gradient,grad-cam")
    shapes = {o.name: shape_of(o) for o in compiled.graph.output}
    coarse = shapes.pop("attribution_grad-cam")
    assert (coarse[0], len(coarse)) == ("batch", 3)
    assert shapes == {
        "y": ["batch", 2],
        "attribution_gradient": ["batch", 3, "height", "width"],
        "heatmap_gradient": ["batch", "height", "width"],
        "heatmap_grad-cam": ["batch", "height", "width"],
        "explained_class": ["batch"],
        "explained_score": ["batch"],
    }
    for shape in ((1, 3, 5, 7), (2, 3, 8, 4)):
        returned = run(compiled, np.random.default_rng(0).standard_normal(shape).astype(np.float32))
        assert returned["attribution_gradient"].shape == shape
        assert returned["heatmap_grad-cam"].shape == (shape[0], *shape[2:])
