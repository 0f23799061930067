from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

import onnxplain
from onnxplain import Explainer
from onnxplain.runtime.verify import Check, random_batch, verify
from tests.runtime.tiny import SHARED, classifier, saved, text


def checks(
    folder: Path, method: str = "gradient", tamper: Callable[[ModelProto], None] | None = None, **options: object
):
    source = saved(classifier(), folder / "model.onnx")
    compiled = onnxplain.compile_model(source, method, **options)
    if tamper is not None:
        tamper(compiled)
    path = saved(compiled, folder / "explained.onnx")
    explain = Explainer(path, "cpu")
    return list(verify(path, explain, source, [random_batch(explain)]))


def broken(found: list[Check]) -> list[str]:
    return [check.promise for check in found if not check.kept]


def through(output: str, op: str, *constants: float) -> Callable[[ModelProto], None]:
    """Put an operator with constants in front of an output."""

    def tamper(model: ModelProto) -> None:
        (node,) = (n for n in model.graph.node if output in n.output)
        node.output[:] = ["untouched" if name == output else name for name in node.output]
        names = [f"constant_{i}" for i in range(len(constants))]
        model.graph.initializer.extend(
            numpy_helper.from_array(np.float32(value), name) for name, value in zip(names, constants, strict=True)
        )
        model.graph.node.append(helper.make_node(op, ["untouched", *names], [output]))

    return tamper


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("gradient", {}),
        ("gradient", {"target": "input"}),
        ("gradient", {"target": 2}),
        ("gradient-x-input,grad-cam", {"target": "topk:3"}),
        ("guided-backprop,fem", {"target": "input"}),
        ("integrated-gradients", {"steps": 8}),
        ("integrated-gradients", {"steps": 4, "baseline": "input", "target": "input"}),
        ("smoothgrad", {"samples": 3, "noise": "input"}),
    ],
)
def test_what_the_compiler_makes_keeps_its_promises(tmp_path: Path, method: str, options: dict[str, object]) -> None:
    found = checks(tmp_path, method, **options)
    assert broken(found) == []
    assert len(found) >= 8


@pytest.mark.parametrize("batch", ["N", "2"])
@pytest.mark.parametrize("samples", [1, 2])
def test_models_whose_inputs_bear_our_names_and_whose_outputs_lack_the_batch(
    tmp_path: Path, batch: str, samples: int
) -> None:
    graph = f"""g (float[{batch},3] x, float[3] target, float[3] baseline) => (float[{batch},3] y, float mean) {{
        s = Mul(x, target)
        y = Add(s, baseline)
        mean = ReduceMean<keepdims = 0>(baseline)
    }}"""
    source = saved(text(graph), tmp_path / "model.onnx")
    settings = {"input": "x", "output": "y", "target": "input", "baseline": "input", "steps": 2}
    onnxplain.compile_file(source, tmp_path / "explained.onnx", "integrated-gradients,gradient", **settings)
    explain = Explainer(tmp_path / "explained.onnx", "cpu")
    found = list(verify(tmp_path / "explained.onnx", explain, source, [random_batch(explain)[:samples]]))
    assert broken(found) == []
    assert "a class out of range is answered by NaN" in [check.promise for check in found]


def other_weights(model: ModelProto) -> None:
    (offset,) = (t for t in model.graph.initializer if t.name == "offset")
    offset.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(offset) * np.float32(1.01), "offset"))


LOGITS = "output 'logits' as the model's, to 1e-05"
SLOPE = "gradient is the score's slope, within 20% (median over random directions)"
FINITE = "attribution finite, of the input's shape or a layer's"
HEATMAP = "heatmap within [0, 1], of the input's size"


@pytest.mark.parametrize(
    ("tamper", "promises"),
    [
        (other_weights, [LOGITS]),
        (through("attribution", "Mul", 1.5), [SLOPE]),
        (through("attribution", "Relu"), [SLOPE]),
        (through("attribution", "Div", 0.0), [FINITE, SLOPE]),
        (through("heatmap", "Mul", 1.1), [HEATMAP]),
        (through("heatmap", "Neg"), [HEATMAP]),
    ],
)
def test_a_broken_promise_is_found(tmp_path: Path, tamper: Callable[[ModelProto], None], promises: list[str]) -> None:
    assert broken(checks(tmp_path, tamper=tamper)) == promises


def test_another_source_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "explained.onnx"
    onnxplain.compile_file(classifier(), path, "gradient")
    explain = Explainer(path, "cpu")
    other = saved(classifier(classes=5), tmp_path / "other.onnx")
    found = list(verify(path, explain, other, [random_batch(explain)]))
    assert "compiled from other.onnx" in broken(found)
    assert LOGITS in broken(found)


def test_a_graph_that_answers_classes_out_of_range_is_noticed(tmp_path: Path) -> None:
    def unpoisoned(model: ModelProto) -> None:
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.dtype.kind == "f" and np.isnan(array).any():
                tensor.CopyFrom(numpy_helper.from_array(np.nan_to_num(array), tensor.name))

    found = checks(tmp_path, tamper=unpoisoned, target="input")
    assert broken(found) == ["a class out of range is answered by NaN"]


@pytest.mark.parametrize(
    ("shape", "stages"),
    [
        ("N,8,3,9", "planes = Transpose<perm=[0,2,1,3]>(x)"),
        ("N,8,9", "planes = Unsqueeze(x, one)"),
        ("N,8,9,7", "u = Unsqueeze(x, one) flat = Reshape(u, wide) planes = Relu(flat)"),
    ],
)
def test_inputs_with_their_channels_in_between_or_without_any(tmp_path: Path, shape: str, stages: str) -> None:
    channels = 3 if "Transpose" in stages else 1
    kernel = ",".join("123"[:channels])
    model = text(f"""g (float[{shape}] x) => (float[N,1] y)
        <float[1,{channels},1,1] w = {{{kernel}}}, int64[1] one = {{1}}, int64[4] wide = {{0,1,8,63}}>
        {{ {stages} c = Conv(planes, w) p = GlobalMaxPool(c) y = Flatten(p) }}""")
    source, path = saved(model, tmp_path / "model.onnx"), tmp_path / "explained.onnx"
    onnxplain.compile_file(source, path, "gradient", target=0)
    explain = Explainer(path, "cpu")
    assert explain.layout.channel == (2 if channels == 3 else None)
    assert broken(list(verify(path, explain, source, [random_batch(explain)]))) == []


@pytest.mark.parametrize("name", ["vww_96", "cifar10_vit", "mnist_cntk"])
def test_real_models(tmp_path: Path, name: str) -> None:
    source = SHARED / "models" / f"{name}.onnx"
    if not source.exists():
        pytest.skip("the real models are not beside the checkout, in shared/models")
    path = tmp_path / "explained.onnx"
    onnxplain.compile_file(source, path, "gradient", target="input")
    explain = Explainer(path, "cpu")
    assert broken(list(verify(path, explain, source, [random_batch(explain)]))) == []
    assert onnx.load(path).ir_version == 10


def test_attributions_are_those_of_the_reference(tmp_path: Path) -> None:
    """On a card: here a second session stands for it, of a graph that is right, then of one that is not."""
    source, method = saved(classifier(), tmp_path / "model.onnx"), "gradient,lrp-eps"
    right = onnxplain.compile_model(source, method, target="input")
    wrong = onnxplain.compile_model(source, method, target="input")
    through("attribution_lrp-eps", "Mul", 1.01)(wrong)
    paths = [saved(graph, tmp_path / f"{i}.onnx") for i, graph in enumerate((right, wrong))]
    same, other = (Explainer(path, "cpu") for path in paths)
    batch = [random_batch(same)]
    promise = "attribution_{} as on cpu, to 1e-03 or 5 times what the input's last bits move it"
    kept = {check.promise: check for check in verify(paths[0], same, source, batch, same)}
    assert [kept[promise.format(name)].found for name in ("gradient", "lrp-eps")] == ["0.0e+00"] * 2
    apart = [check for check in verify(paths[1], other, source, batch, same) if not check.kept]
    assert [check.promise for check in apart] == [promise.format("lrp-eps")]
    assert apart[0].found.startswith("1.0e-02; they move it by ")


def test_pixels_without_last_bits_cannot_excuse_a_difference(tmp_path: Path) -> None:
    model = text("""g (uint8[N,3,4,4] x) => (float[N,3] y) <float[3,3] w = {1,2,3,4,-5,6,7,8,9}> {
        f = Cast<to = 1>(x) p = GlobalAveragePool(f) r = Flatten(p) y = MatMul(r, w) }""")
    source = saved(model, tmp_path / "model.onnx")
    wrong = onnxplain.compile_model(source, "grad-cam", layer="f")
    right = Explainer(onnxplain.compile_model(source, "grad-cam", layer="f"), "cpu")
    through("attribution", "Mul", 1.01)(wrong)
    path = saved(wrong, tmp_path / "explained.onnx")
    found = list(verify(path, Explainer(path, "cpu"), source, [random_batch(right)], right))
    assert [check.found for check in found if not check.kept] == ["1.0e-02; uint8 has none"]


SEQUENCES = """g (float[N,4] x) => (float[N,4] y, seq(float[N,4]) both, int64 length) {
    r = Relu(x) y = Softmax(r) z = Mul(r, two) both = SequenceConstruct(y, z) length = SequenceLength(both) }"""


def test_outputs_that_are_sequences(tmp_path: Path) -> None:
    model = text(SEQUENCES)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2), "two"))
    source, path = saved(model, tmp_path / "model.onnx"), tmp_path / "explained.onnx"
    compiled = onnxplain.compile_model(source, "gradient", output="y")
    for factor, wrong in ((2.0, []), (2.1, ["output 'both' as the model's, to 1e-05"])):
        (two,) = (t for t in compiled.graph.initializer if t.name == "two")
        two.CopyFrom(numpy_helper.from_array(np.float32(factor), "two"))
        explain = Explainer(saved(compiled, path), "cpu")
        assert broken(list(verify(path, explain, source, [random_batch(explain)]))) == wrong
    (node,) = (n for n in compiled.graph.node if n.op_type == "SequenceConstruct")
    node.input.append(node.input[0])
    explain = Explainer(saved(compiled, path), "cpu")
    found = list(verify(path, explain, source, [random_batch(explain)]))
    assert [c.found for c in found if not c.kept] == ["a sequence of another length", "different"]


def test_maps_by_class(tmp_path: Path) -> None:
    """As converters of scikit-learn's classifiers write them."""
    model = text("g (float[N,3] x) => (float[N,3] y) { y = Softmax(x) }")
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    names = ["cat", "dog", "owl"]
    node = helper.make_node("ZipMap", ["y"], ["named"], "zip", domain="ai.onnx.ml", classlabels_strings=names)
    model.graph.node.append(node)
    output = model.graph.output.add(name="named")
    output.type.sequence_type.elem_type.map_type.key_type = onnx.TensorProto.STRING
    output.type.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    source, path = saved(model, tmp_path / "model.onnx"), tmp_path / "explained.onnx"
    compiled = onnxplain.compile_model(source, "gradient", output="y")
    for labels, wrong in ((names, []), (["cat", "owl", "dog"], ["output 'named' as the model's, to 1e-05"])):
        (zipped,) = (n for n in compiled.graph.node if n.op_type == "ZipMap")
        zipped.CopyFrom(node)
        zipped.attribute[0].strings[:] = [label.encode() for label in labels]
        explain = Explainer(saved(compiled, path), "cpu")
        assert broken(list(verify(path, explain, source, [random_batch(explain)]))) == wrong


def test_an_input_in_bfloat16(tmp_path: Path) -> None:
    model = text("g (bfloat16[N,3] x) => (float[N,3] y) { r = Cast<to = 1>(x) y = Mul(r, r) }")
    source, path = saved(model, tmp_path / "model.onnx"), tmp_path / "explained.onnx"
    onnxplain.compile_file(source, path, "gradient")
    explain = Explainer(path, "cpu")
    batch = random_batch(explain)
    assert np.abs(batch.astype(np.float32)).min() > 0
    assert broken(list(verify(path, explain, source, [batch], explain))) == []
