from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

import onnxplain
from onnxplain import Explainer, OnnxplainError, UsageError
from onnxplain.errors import UnsupportedModel
from onnxplain.ir.layout import Layout
from onnxplain.runtime.preprocess import Preprocess
from tests.runtime.tiny import classifier, of_bytes, pictures, saved, text


def explainer(model: ModelProto | None = None, method: str = "gradient", **options: object) -> Explainer:
    return Explainer(onnxplain.compile_model(model or classifier(), method, **options), "cpu")


def test_a_call_returns_the_models_outputs_and_the_roles() -> None:
    compiled = onnxplain.compile_model(classifier(), "gradient")
    x = pictures()
    result = Explainer(compiled, "cpu")(x)
    assert list(result) == ["logits", "attribution", "heatmap", "explained_class", "explained_score"]
    session = onnxruntime.InferenceSession(compiled.SerializeToString(), providers=["CPUExecutionProvider"])
    for name, array in zip(result, session.run(list(result), {"pixels": x}), strict=True):
        np.testing.assert_array_equal(result[name], array)


def test_what_the_graph_takes_can_be_asked(tmp_path: Path) -> None:
    path = tmp_path / "explained.onnx"
    onnxplain.compile_file(classifier(last=True), path, "gradient", preprocess="raw")
    explain = Explainer(path, "cpu")
    assert (explain.input.name, explain.input.shape) == ("pixels", ("N", 8, 8, 3))
    assert explain.input.dtype == np.float32
    assert explain.layout == Layout(4, 3)
    assert explain.classes == 4
    assert explain.provider == "cpu"
    assert explain.metadata.method == "gradient"
    assert explain.metadata.preprocess == Preprocess.named("raw").to_dict()


def test_several_methods_are_told_apart() -> None:
    result = explainer(method="gradient,grad-cam")(pictures())
    assert result["attribution_gradient"].shape == (2, 3, 8, 8)
    assert result["heatmap_grad-cam"].shape == (2, 8, 8)


def test_a_name_that_the_model_uses_stays_the_models() -> None:
    explain = explainer(text("g (float[N,3] x) => (float[N,3] heatmap) { heatmap = Relu(x) }"))
    result = explain(np.array([[1, -2, 3]], np.float32))
    np.testing.assert_array_equal(result["heatmap"], [[1, 0, 3]])
    assert explain.key("heatmap") == "onnxplain_heatmap"
    assert explain.key("attribution") == "attribution"
    np.testing.assert_array_equal(result["onnxplain_heatmap"], [[0, 0, 1]])


def test_one_sample_gets_a_batch_axis() -> None:
    explain, x = explainer(), pictures(1)
    one, batch = explain(x[0]), explain(x)
    for name in batch:
        np.testing.assert_array_equal(one[name], batch[name])
    assert one["heatmap"].shape == (1, 8, 8)


def test_types_are_converted_where_nothing_is_lost() -> None:
    explain, x = explainer(), pictures()
    want = explain(x)["attribution"]
    np.testing.assert_array_equal(explain(x.astype(np.float64))["attribution"], want)
    np.testing.assert_array_equal(explain(x.tolist())["attribution"], want)
    whole = np.ones((1, 3, 8, 8), np.int64)
    np.testing.assert_array_equal(explain(whole)["logits"], explain(whole.astype(np.float32))["logits"])


@pytest.mark.parametrize("method", ["grad-cam", "cam", "fem"])
def test_maps_of_a_layer_need_no_real_input(method: str) -> None:
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), np.uint8)
    have, want = explainer(of_bytes(), method)(x), explainer(classifier(), method)(x.astype(np.float32))
    for name in want:
        np.testing.assert_allclose(have[name], want[name], rtol=1e-5, atol=1e-6)
    for other in ("gradient", "guided-grad-cam", f"{method},gradient"):
        with pytest.raises(
            UnsupportedModel, match=r"holds uint8, .*\n.*, or choose a map of a layer, such as grad-cam"
        ):
            explainer(of_bytes(), other)


def test_raw_pixels_are_not_taken_for_preprocessed_ones() -> None:
    with pytest.raises(UsageError) as caught:
        explainer()(np.zeros((1, 3, 8, 8), np.uint8))
    assert str(caught.value) == (
        "the images hold uint8, which are pixels from 0 to 255 as they come from a file, and input 'pixels' takes "
        "float32 (N, 3, 8, 8).\n"
        "  Preprocess them as the model was trained: onnxplain.runtime.preprocess.Preprocess does the usual ones.\n"
        "  If the model takes raw pixels, say so: images.astype('float32')."
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((1, 3, 8, 8), 1e60), "some of its values do not survive the conversion"),
        (np.full((1, 3, 8, 8), 2**24 + 1), "some of its values do not survive the conversion"),
        (np.full((1, 3, 8, 8), "a"), "an array of <U1 cannot be given to 'pixels', which takes float32"),
        (np.zeros((1, 3, 8, 8), complex), "an array of complex128 cannot be given to 'pixels'"),
        (np.zeros((0, 3, 8, 8), np.float32), "there are no samples"),
        (np.zeros((2, 3, 8, 7), np.float32), r"an array of shape \(2, 3, 8, 7\) does not fit: input 'pixels' takes"),
        (np.zeros((8, 8), np.float32), r"float32 \(N, 3, 8, 8\)\.$"),
        (np.zeros((2, 8, 8, 3), np.float32), r"channels last: images.transpose\(0, 3, 1, 2\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        explainer()(array)


def test_half_precision_does_not_overflow_in_silence() -> None:
    half = text("g (float16[N,3] x) => (float16[N,3] y) { y = Relu(x) }")
    assert explainer(half)(np.array([[1.0, 2.0, 3.0]]))["y"].dtype == np.float16
    with pytest.raises(UsageError, match="do not survive the conversion"):
        explainer(half)(np.array([[1.0, 1e5, 3.0]]))


def test_a_model_that_explains_nothing_is_refused(tmp_path: Path) -> None:
    path = saved(classifier(), tmp_path / "plain.onnx")
    with pytest.raises(UsageError) as caught:
        Explainer(path, "cpu")
    assert str(caught.value) == (
        "plain.onnx was not compiled by onnxplain: it returns no explanation.\n"
        "  Compile it first: onnxplain.compile_model(model, 'gradient'), or `onnxplain compile plain.onnx --method "
        "gradient`."
    )


def test_the_class_is_given_for_all_or_for_each() -> None:
    explain, x = explainer(target="input"), pictures(3)
    each = explain(x, target=[0, 3, 1])
    np.testing.assert_array_equal(each["explained_class"], [0, 3, 1])
    for row, index in enumerate((0, 3, 1)):
        alone = explainer(target=index)(x)
        np.testing.assert_allclose(each["attribution"][row], alone["attribution"][row], rtol=1e-6)
    np.testing.assert_array_equal(explain(x, target=2)["explained_class"], [2, 2, 2])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, r"the graph was compiled with target 'input' \(--target input\): pass target= with the images"),
        (4, "class 4 is out of range: the model's classes are 0 to 3"),
        ([0, -1], "class -1 is out of range: the model's classes are 0 to 3"),
        (1.0, "target holds float64; class indices are integers"),
        ([1, 2, 3], r"target has shape \(3,\); one class, or one for each of 2 samples, is needed"),
    ],
)
def test_a_class_that_does_not_exist_is_refused_before_the_run(target: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        explainer(target="input")(pictures(), target=target)


def test_a_class_out_of_range_in_the_bare_graph_is_nan_everywhere() -> None:
    compiled = onnxplain.compile_model(classifier(), "gradient,grad-cam", target="input")
    session = onnxruntime.InferenceSession(compiled.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs() if o.name.startswith(("attribution", "heatmap", "explained_score"))]
    assert len(names) == 5
    for wrong in (4, -1, 2**40):
        results = session.run(names, {"pixels": pictures(), "target": np.array([wrong, 1])})
        for array in results:
            assert np.isnan(array[0]).all()
            assert np.isfinite(array[1]).all()


def test_a_target_is_refused_by_a_graph_without_one() -> None:
    with pytest.raises(UsageError) as caught:
        explainer()(pictures(), target=1)
    assert str(caught.value) == (
        "the graph has no 'target' input, so it cannot take one: it was compiled for target 'top1'.\n"
        "  Compile it with target 'input' (--target input)."
    )


@pytest.mark.parametrize(("batch", "count"), [(1, 3), (2, 3), (2, 4), (2, 1)])
def test_a_fixed_batch_is_run_in_portions(batch: int, count: int) -> None:
    x = pictures(count)
    want = explainer()(x)
    have = explainer(classifier(batch))(x)
    assert list(have) == list(want)
    for name in want:
        np.testing.assert_allclose(have[name], want[name], rtol=1e-5, atol=1e-7)


def test_a_fixed_batch_cuts_the_class_and_the_baseline_too() -> None:
    x, baseline = pictures(3), pictures(3, seed=5)
    settings = {"target": "input", "baseline": "input", "steps": 4}
    want = explainer(method="integrated-gradients", **settings)(x, target=[0, 1, 2], baseline=baseline)
    fixed = explainer(classifier(1), "integrated-gradients", **settings)
    have = fixed(x, target=[0, 1, 2], baseline=baseline)
    np.testing.assert_allclose(have["attribution"], want["attribution"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        fixed(x, target=0, baseline=baseline[:1])["attribution"][2],
        explainer(method="integrated-gradients", **settings)(x[2], target=0, baseline=baseline[0])["attribution"][0],
        rtol=1e-4,
        atol=1e-6,
    )


def test_a_baseline_is_one_or_as_many_as_the_images() -> None:
    explain = explainer(method="integrated-gradients", baseline="input", steps=4)
    x = pictures(3)
    one, same = explain(x, baseline=x[0]), explain(x, baseline=x[[0, 0, 0]])
    np.testing.assert_allclose(one["attribution"], same["attribution"], atol=1e-6)
    with pytest.raises(UsageError, match=r"the baseline has 2 samples; 1, or as many as the images \(3\), are needed"):
        explain(x, baseline=x[:2])
    with pytest.raises(UsageError, match="was compiled with baseline 'input'"):
        explain(x)
    with pytest.raises(UsageError, match="the graph has no 'baseline' input"):
        explainer()(x, baseline=x)


def test_noise_is_cut_along_its_second_axis() -> None:
    x, noise = pictures(2), np.random.default_rng(3).standard_normal((3, 2, 3, 8, 8)).astype(np.float32)
    settings = {"noise": "input", "samples": 3}
    want = explainer(method="smoothgrad", **settings)(x, noise=noise)
    have = explainer(classifier(1), "smoothgrad", **settings)(x, noise=noise)
    np.testing.assert_allclose(have["attribution"], want["attribution"], rtol=1e-4, atol=1e-6)
    with pytest.raises(UsageError, match="does not fit: input 'noise' takes float32"):
        explainer(method="smoothgrad", **settings)(x, noise=noise[:2])


def test_the_models_other_inputs_go_by_name() -> None:
    model = text("g (float[N,3] x, float[3] scale) => (float[N,3] y) { y = Mul(x, scale) }")
    explain = explainer(model, input="x")
    x = np.array([[1, 2, 3]], np.float32)
    np.testing.assert_array_equal(explain(x, scale=[1, 5, 1])["attribution"], [[0, 5, 0]])
    with pytest.raises(UsageError, match="the graph also needs 'scale': pass each by its name"):
        explain(x)
    with pytest.raises(UsageError, match=r"the model has no further input 'scales'\. Did you mean 'scale'\?"):
        explain(x, scale=[1, 5, 1], scales=[1])
    with pytest.raises(UsageError, match=r"does not fit: input 'scale' takes float32 \(3,\)"):
        explain(x, scale=[1, 5])


@pytest.mark.parametrize("batch", ["N", "1"])
@pytest.mark.parametrize("scale", [4, 4.0, np.float32(4), np.array(4, np.float64)])
def test_a_further_input_may_be_a_scalar(scale: object, batch: str) -> None:
    graph = f"g (float[{batch},3] x, float scale) => (float[{batch},3] y, float back)"
    explain = explainer(text(graph + " { y = Mul(x, scale) back = Neg(scale) }"), input="x", output="y")
    result = explain(np.array([[1, 2, 3], [3, 2, 1]], np.float32), scale=scale)
    np.testing.assert_array_equal(result["attribution"], [[0, 0, 4], [4, 0, 0]])
    assert result["back"].shape == ()
    assert result["back"] == -4
    with pytest.raises(UsageError, match=r"an array of shape \(1,\) does not fit: input 'scale' takes float32 \(\)"):
        explain(np.ones((1, 3), np.float32), scale=[4])


SEQUENCE = """g (float[N,3] x, seq(float[N,3]) more) => (float[N,3] y) {
    i = Constant<value = int64 {0}>() first = SequenceAt(more, i) y = Mul(x, first) }"""


def test_an_input_that_arrays_cannot_be_given_to_is_named() -> None:
    with pytest.raises(UnsupportedModel) as caught:
        explainer(text(SEQUENCE), input="x")
    assert str(caught.value) == (
        "input 'more' takes seq(tensor(float)), and only arrays of NumPy's types can be given here.\n"
        "  Run the graph with ONNX Runtime itself: onnxruntime.InferenceSession."
    )


@pytest.mark.parametrize("batch", ["N", "2"])
def test_an_output_may_be_a_sequence(batch: str) -> None:
    graph = f"g (float[{batch},3] x) => (float[{batch},3] y, seq(float[{batch},3]) both)"
    explain = explainer(text(graph + " { y = Relu(x) z = Neg(x) both = SequenceConstruct(y, z) }"), output="y")
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    result = explain(x)
    np.testing.assert_array_equal(result["both"], [np.maximum(x, 0), -x])
    np.testing.assert_array_equal(result["attribution"].any(1), (x > 0).any(1))
    if batch != "N":
        told = (
            "the graph takes 2 samples at a time, and its output 'both' is a sequence, which cannot be put together "
            "for 3.\n  Pass 2 samples at a time."
        )
        with pytest.raises(UsageError) as caught:
            explain(x[[0, 1, 0]])
        assert str(caught.value) == told


NARROW = "g (bfloat16[N,4] x) => (float[N,4] y{more}) {{ r = Cast<to = 1>(x) y = Mul(r, r) {end} }}"


def test_an_input_in_bfloat16() -> None:
    """NumPy has no such type; the gradient of a square is twice the number as it was rounded."""
    explain = explainer(text(NARROW.format(more="", end="")), method="gradient-x-input")
    x = np.array([[1, -2, 3.14159, 0.1]], np.float32)
    narrow = x.astype(ml_dtypes.bfloat16)
    assert explain.input.dtype == ml_dtypes.bfloat16
    for given in (x, narrow):
        result = explain(given)
        square = narrow.astype(np.float64) ** 2
        np.testing.assert_allclose(result["y"], square, rtol=1e-6)
        np.testing.assert_allclose(result["attribution"], 2 * np.where(square == square.max(), square, 0), rtol=1e-6)


def test_an_output_in_bfloat16_cannot_be_returned() -> None:
    explain = explainer(text(NARROW.format(more=", bfloat16[N,4] z", end="z = Identity(x)")), output="y")
    with pytest.raises(UnsupportedModel) as caught:
        explain(np.ones((1, 4), np.float32))
    assert str(caught.value) == (
        "output 'z' is in bfloat16, which ONNX Runtime cannot return to Python as an array.\n"
        "  Export the model with that output in float32."
    )


WHOLE = """g (float[2,3] x) => (float[2,3] y, float temperature, float[3] table, float mean)
<float one = {1.5}, float[3] weights = {1, 2, 3}> {
    y = Relu(x)
    temperature = Identity(one)
    table = Identity(weights)
    mean = ReduceMean<keepdims = 0>(x)
}"""


def test_an_output_without_a_batch_is_returned_once_from_all_portions() -> None:
    explain = explainer(text(WHOLE.replace("ReduceMean<keepdims = 0>(x)", "Neg(one)")), output="y")
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    result = explain(x)
    assert result["y"].shape == result["attribution"].shape == (5, 3)
    np.testing.assert_array_equal(result["temperature"], np.float32(1.5))
    np.testing.assert_array_equal(result["table"], [1, 2, 3])


def test_an_output_of_all_samples_is_not_made_of_portions() -> None:
    explain = explainer(text(WHOLE), output="y")
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    with pytest.raises(UsageError) as caught:
        explain(x)
    assert str(caught.value) == (
        "the graph takes 2 samples at a time, and its output 'mean' () holds one thing for all of them, so that of 5 "
        "samples has no meaning.\n"
        "  Pass at most 2 samples at a time."
    )
    np.testing.assert_allclose(explain(x[:2])["mean"], x[:2].mean(), rtol=1e-5)


@pytest.mark.parametrize("name", ["target", "baseline", "noise", "images", "self"])
def test_the_models_other_inputs_may_have_any_name(name: str) -> None:
    explain = explainer(
        text(f"g (float[N,3] x, float[3] {name}) => (float[N,3] y) {{ y = Mul(x, {name}) }}"), input="x"
    )
    result = explain(np.array([[1, 2, 3]], np.float32), **{name: [1, 5, 1]})
    np.testing.assert_array_equal(result["attribution"], [[0, 5, 0]])


def test_an_input_that_the_model_uses_the_name_of_goes_by_the_graphs_name() -> None:
    model = text("g (float[N,3] x, float[3] target) => (float[N,3] y) { y = Mul(x, target) }")
    explain = explainer(model, input="x", target="input")
    assert explain.argument("target") == "onnxplain_target"
    x, scale = np.array([[1, 2, 3]], np.float32), [1, 5, 1]
    np.testing.assert_array_equal(explain(x, target=scale, onnxplain_target=2)["attribution"], [[0, 0, 1]])
    with pytest.raises(UsageError, match=r"with target 'input' \(.*\): pass onnxplain_target= with the images"):
        explain(x, target=scale)
    assert explainer(target="input").argument("target") == "target"


def test_what_onnx_runtime_refuses_is_said_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    shape = helper.make_tensor("four", TensorProto.INT64, [2], [-1, 4])
    nodes = [helper.make_node("Reshape", ["x", "four"], ["y"], "r")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "length"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", 4])],
        [shape],
    )
    explain = explainer(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]))
    with pytest.raises(OnnxplainError, match="could not run the graph on 1x7 values of 'x': Non-zero status code") as e:
        explain(np.ones((1, 7), np.float32))
    assert "\n" not in str(e.value)
    assert capfd.readouterr() == ("", "")
