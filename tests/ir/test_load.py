"""What is read as it is meant, and what is refused before anything trusts it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxplain.compiler import compile_file, compile_model
from onnxplain.errors import BadModel, UnsupportedModel
from onnxplain.ir.weights import STUB
from onnxplain.runtime.explainer import Explainer
from tests.running import net, run

TEXT = "g (float[N,4] x) => (float[N,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}> { h = Tanh(x) y = MatMul(h, w) }"


def test_a_size_of_minus_one_is_one_chosen_at_run_time() -> None:
    model = net(TEXT)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    compiled = compile_model(model)
    assert not any(d.dim_value < 0 for v in compiled.graph.output for d in v.type.tensor_type.shape.dim)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(compiled, x)["attribution"], run(compile_model(net(TEXT)), x)["attribution"])


def test_a_name_that_is_no_text_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    """The node without a name reads what nothing provides, and what it returns is not UTF-8."""
    model = net(TEXT)
    model.graph.node[0].input[0] = "nothing"
    model.graph.node[0].output[0] = "OUTPUT"
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString().replace(b"OUTPUT", b"\xff\xfe\xfa\xfb\xfc\xfd"))
    with pytest.raises(BadModel, match=re.escape("m.onnx is broken: its field 'output' holds what is no text.")):
        compile_file(path, tmp_path / "c.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("given", ["0", "7", "x", ""])
def test_a_weight_that_names_no_file_but_a_place_of_the_compilers_own_is_refused(tmp_path: Path, given: str) -> None:
    model = net(TEXT)
    weight = model.graph.initializer[0]
    weight.ClearField("float_data")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=STUB + given)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BadModel, match=f"weight 'w' is said to lie in '{STUB}{given}', which is no file name"):
        compile_model(path)
    with pytest.raises(BadModel, match=r"weight 'w' of type 1 and sizes \[4, 2\] does not fit .* \(0 bytes\)"):
        compile_model(model)


def test_a_location_that_is_no_text_is_refused(tmp_path: Path) -> None:
    model = net(TEXT)
    model.graph.initializer[0].external_data.add(key="location", value="LOCATION")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString().replace(b"LOCATION", b"\xff\xfe\xfa\xfb\xfc\xfd\xff\xff"))
    with pytest.raises(BadModel, match="holds what is no text"):
        compile_model(path)


NAMED = """<ir_version: 10, opset_import: ["{domain}": 20, "lab": 1]>
g (float[N,4] x) => (float[N,2] y) <float[4,2] w = {{1,2,3,4,5,6,7,8}}, bool yes = {{1}}>
{{
    h = lab.Twice(x)
    i = If(yes) <then_branch = t () => (float[N,4] a) {{ a = Tanh(h) }},
                 else_branch = f () => (float[N,4] b) {{ b = Abs(h) }}>
    y = MatMul(i, w)
}}
<opset_import: ["{domain}": 20], domain: "lab">
Twice (p) => (q) {{ q = Add(p, p) }}"""


def test_the_standard_domain_has_two_names() -> None:
    """Both in one model too: its nodes may be of the one and its import of the other."""
    short, long = (onnx.parser.parse_model(NAMED.format(domain=domain)) for domain in ("", "ai.onnx"))
    mixed = onnx.parser.parse_model(NAMED.format(domain=""))
    mixed.graph.node[2].domain = "ai.onnx"
    mixed.opset_import.add(domain="ai.onnx", version=20)
    for node in (long.graph.node[1], long.graph.node[1].attribute[0].g.node[0], long.functions[0].node[0]):
        node.domain = "ai.onnx"
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    expected = run(compile_model(short), x)
    for model in (long, mixed):
        compiled = compile_model(model)
        onnx.checker.check_model(compiled, full_check=True)
        assert [entry.domain for entry in compiled.opset_import] == ["", "lab"]
        found = run(compiled, x)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)


def test_an_output_that_nothing_computes_is_named() -> None:
    model = net(TEXT)
    model.graph.output.add(name="lost").type.CopyFrom(model.graph.output[0].type)
    with pytest.raises(BadModel, match=r"no node computes its output 'lost'\.\n  Export it again"):
        compile_model(model)


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """It would be empty when it is read again."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    told = f"{pipe} is a pipe or a device, which can be read once, and a model is read several times.\n"
    for use in (compile_model, Explainer):
        with pytest.raises(BadModel) as caught:
            use(pipe)
        assert str(caught.value) == told + "  Write it to a file and name that."


def test_inputs_and_outputs_are_tensors_or_sequences() -> None:
    tensor = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, ["N", 4])
    for place in ("input", "output"):
        model = net(TEXT)
        model.graph.node.append(onnx.helper.make_node("Optional", ["x"], ["o"] if place == "output" else ["p"]))
        kind = onnx.helper.make_optional_type_proto(tensor)
        getattr(model.graph, place).append(onnx.helper.make_value_info("o", kind))
        with pytest.raises(UnsupportedModel) as caught:
            compile_model(model, input="x", output="y")
        assert str(caught.value) == (
            "the given ModelProto has 'o' among its inputs and outputs, of the kind 'optional': tensors and sequences "
            "can be there.\n  Export the model without it, or with the value that it has."
        )
    model = net(TEXT)
    model.graph.node.append(onnx.helper.make_node("SequenceConstruct", ["y", "y"], ["s"]))
    model.graph.output.append(onnx.helper.make_tensor_sequence_value_info("s", onnx.TensorProto.FLOAT, None))
    compiled = compile_model(model, output="y")
    assert compiled.graph.output[1] == model.graph.output[1]
