"""The oracle on whole models, its gradients, and the batches that the catalogue makes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import parser

from tests.catalogue import SHARED_SPECIMENS, SPECIMENS, Specimen, parameters, with_batch
from tests.oracle import Oracle, UnknownOperator, deconv_relu, gradient, guided_relu, input_names, logits_name

Array = NDArray[Any]


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of every weight that is listed as an input
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def by_onnxruntime(model: onnx.ModelProto, x: Array) -> list[Array]:
    results: list[Array] = session(model).run(None, {input_names(model)[0]: x})
    return results


def assert_near(found: Array, expected: Array, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def net(text: str, opset: int = 17) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {text}')


@pytest.fixture(autouse=True)
def _let_go_of_weights() -> Iterator[None]:
    yield
    gc.collect()


@pytest.mark.parametrize("specimen", parameters(SPECIMENS))
def test_oracle_and_with_batch_agree_with_onnxruntime(specimen: Specimen) -> None:
    """The original, sample by sample, is what any batch and the oracle must give."""
    model, x = specimen.load(), specimen.images(3, 7)
    name, alone = input_names(model)[0], session(with_batch(model, 1))
    expected = [np.concatenate(rows) for rows in zip(*(alone.run(None, {name: row[None]}) for row in x), strict=True)]
    del alone
    batched = with_batch(model, "N")
    assert {v.type.tensor_type.shape.dim[0].dim_param for v in batched.graph.output} == {"N"}
    together = session(batched)
    for n in (1, 3):
        for found, wanted in zip(together.run(None, {name: x[:n]}), expected, strict=True):
            assert_near(found, wanted[:n], 1e-5)
    del together
    for chosen, n in ((model, 1), (batched, 3)):
        with torch.no_grad():
            results = Oracle(chosen, torch.float32).run({name: torch.from_numpy(x[:n])})
        for rows, wanted in zip(results.values(), expected, strict=True):
            assert_near(rows.numpy(), wanted[:n], 1e-4)


@pytest.mark.parametrize("specimen", parameters(s for s in SPECIMENS if s.trained or s.name == "light_shufflenet"))
def test_with_batch_of_three(specimen: Specimen) -> None:
    model, x = specimen.load(), specimen.images(3, 8)
    fixed = with_batch(model, 3)
    assert {v.type.tensor_type.shape.dim[0].dim_value for v in fixed.graph.output} == {3}
    (expected, *_), (found, *_) = by_onnxruntime(with_batch(model, "N"), x), by_onnxruntime(fixed, x)
    assert_near(found, expected, 1e-5)


def test_with_batch_leaves_the_original_alone() -> None:
    model = net("g (float[1,6] x) => (float[1,6] y) <int64[2] s = {1, 6}> { y = Reshape(x, s) }")
    before = model.SerializeToString()
    changed = with_batch(model, 3)
    assert model.SerializeToString() == before
    assert [d.dim_value for d in changed.graph.input[0].type.tensor_type.shape.dim] == [3, 6]
    onnx.checker.check_model(changed, full_check=True)


@pytest.mark.parametrize("specimen", parameters(s for s in SPECIMENS if not s.heavy))
def test_specimens_are_well_scaled(specimen: Specimen) -> None:
    """Scores differ between classes and samples, and no picture's gradient vanishes or explodes."""
    model, x = with_batch(specimen.load(), 2), specimen.images(2, 9)
    assert x.dtype == np.float32
    name, score = input_names(model)[0], logits_name(model)
    with torch.no_grad():
        scores = Oracle(model, torch.float32).run({name: torch.from_numpy(x)}, outputs=[score])[score].flatten(1)
    assert scores.std(1).min() > 0.1
    assert (scores[0] - scores[1]).abs().max() > 1e-2
    g = gradient(model, x, scores.argmax(1), dtype=torch.float32).flatten(1)
    change = (g.abs() * float(x.std())).pow(2).sum(1).sqrt() / scores.std(1)
    assert change.min() > 1e-3
    assert change.max() < 1e3


def test_images_are_reproducible() -> None:
    for specimen in SPECIMENS:
        if not specimen.missing:
            np.testing.assert_array_equal(specimen.images(2, 3), specimen.images(2, 3))
            assert not np.array_equal(specimen.images(2, 3), specimen.images(2, 4))


def test_light_models_are_reproducible() -> None:
    specimen = next(s for s in SPECIMENS if s.name == "light_squeezenet")
    assert specimen.load().SerializeToString() == specimen.load().SerializeToString()


@pytest.mark.parametrize("specimen", parameters(SHARED_SPECIMENS))
def test_gradient_is_the_slope_along_a_line(specimen: Specimen) -> None:
    model, x = with_batch(specimen.load(), 2), torch.from_numpy(specimen.images(2, 5)).double()
    # an even background ties whole max-pool windows, where there is no one slope: the grain breaks the ties
    x += 0.01 * x.std() * torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    name, score = input_names(model)[0], logits_name(model)
    oracle = Oracle(model)
    classes = oracle.run({name: x}, outputs=[score])[score].flatten(1).argmax(1)
    g = gradient(model, x, classes)
    # along the gradient the slope is largest, so that rounding matters least; the step is short of any kink
    step = 1e-6 * g / g.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.dim() - 1))
    up, down = (oracle.run({name: x + sign * step}, outputs=[score])[score].flatten(1) for sign in (1, -1))
    change = (up - down).gather(1, classes[:, None])[:, 0] / 2
    torch.testing.assert_close(change, (g * step).flatten(1).sum(1), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("tail", "before"),
    [
        ("y = Softmax(s)", "s"),
        ("y = LogSoftmax(s)", "s"),
        ("y = Sigmoid(s)", "s"),
        ("t = Softmax(s) u = Flatten(t) y = Identity(u)", "s"),
        ("t = Flatten(s) y = Softmax(t)", "t"),
        ("t = Softmax(s) y = Cast<to = 1>(t)", "s"),
        ("y = Flatten(s)", "y"),
        ("y = Neg(s)", "y"),
        ("t = Softmax(s) y = Neg(t)", "y"),
    ],
)
def test_logits_name(tail: str, before: str) -> None:
    assert logits_name(net(f"g (float[2,3] x) => (float[2,3] y) {{ s = Relu(x) {tail} }}")) == before


RELU = "g (float[1,4] x) => (float[1,1] y) <float[4,1] w = {1, -2, 3, -4}> { h = Relu(x) y = MatMul(h, w) }"


@pytest.mark.parametrize(
    ("relu", "expected"),
    [(None, [1.0, -2, 0, 0]), (guided_relu, [1.0, 0, 0, 0]), (deconv_relu, [1.0, 0, 3, 0])],
)
def test_relu_backward_can_be_changed(relu: Any, expected: list[float]) -> None:
    x = torch.tensor([[2.0, 1, -1, 0]])
    assert gradient(net(RELU), x, [0], relu=relu).tolist() == [expected]
    assert Oracle(net(RELU)).run({"x": x}, relu=relu)["y"].item() == 0


def test_pinned_values_are_used_forward_and_passed_through_backward() -> None:
    model, x = net(RELU), torch.tensor([[2.0, 1, -1, 1e-9]])
    observed = torch.tensor([[2.5, 0, 1e-30, 1]])
    assert Oracle(model).run({"x": x}, pinned={"h": observed})["y"].item() == 2.5 + 3e-30 - 4
    # the second ReLU is closed by what was observed, and the third opened, however small the value
    assert gradient(model, x, [0], pinned={"h": observed}).tolist() == [[1.0, 0, 3, -4]]
    assert gradient(model, x, [0], pinned={"h": observed}, relu=guided_relu).tolist() == [[1.0, 0, 3, 0]]
    assert gradient(net(RELU.replace("Relu", "Exp")), x, [0], pinned={"x": observed})[0, 1].item() == -2
    assert gradient(net(RELU.replace("Relu", "Exp")), x, [0], pinned={"h": observed})[0, 2].item() == pytest.approx(
        3 * np.exp(-1)
    )


def test_pinning_to_float32_activations_barely_moves_the_gradient() -> None:
    """What onnxruntime computes in float32, put in place of float64: the gradient moves by rounding, not by masks."""
    specimen = next(s for s in SHARED_SPECIMENS if s.name == "cifar10_conv")
    if specimen.missing:
        pytest.skip(specimen.missing)
    model, x = specimen.load(), specimen.images(1, 2)
    shown = with_batch(model, 1)
    names = [name for node in model.graph.node for name in node.output if name != model.graph.output[0].name]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    values = [torch.from_numpy(v) for v in by_onnxruntime(shown, x)]
    pinned = dict(zip([o.name for o in shown.graph.output], values, strict=True))
    torch.testing.assert_close(gradient(model, x, [3], pinned=pinned), gradient(model, x, [3]), rtol=1e-4, atol=1e-6)


def test_gradient_of_a_tied_max_pool_goes_to_the_first() -> None:
    model = net("g (float[1,1,2,2] x) => (float[1,1,1,1] y) { y = MaxPool<kernel_shape = [2, 2]>(x) }")
    every = net("g (float[1,1,2,2] x) => (float[1,1,1,1] y) { y = GlobalMaxPool(x) }")
    x = torch.tensor([[[[1.0, 2], [2, 2]]]])
    assert gradient(model, x, [0]).flatten().tolist() == [0, 1, 0, 0]
    assert gradient(every, x, [0]).flatten().tolist() == [0, 1, 0, 0]


def test_any_tensor_can_be_asked_for_and_only_its_ancestors_run() -> None:
    model = net("g (float[2] x) => (float[2] y) { h = Relu(x) z = NoSuchOp(h) y = Neg(z) }")
    oracle, x = Oracle(model), {"x": torch.tensor([-1.0, 2])}
    assert oracle.run(x, outputs=["h"])["h"].tolist() == [0, 2]
    with pytest.raises(UnknownOperator, match="NoSuchOp") as caught:
        oracle.run(x)
    assert "at node 'z'" in caught.value.__notes__[0]
    for wrong in ({"outputs": ["nothing"]}, {"pinned": {"nothing": torch.zeros(2)}}):
        with pytest.raises(KeyError, match="nothing"):
            oracle.run(x, **wrong)
    with pytest.raises(KeyError, match="'x'"):
        oracle.run({})


def test_floats_take_the_oracles_type_and_integers_keep_theirs() -> None:
    model = net("g (float[2] x, int64[2] i) => (float[2] y, int64[2] j) { y = Cast<to = 10>(x) j = Add(i, i) }")
    found = Oracle(model).run({"x": torch.tensor([0.1, 1]), "i": torch.tensor([1, 2])})
    assert (found["y"].dtype, found["j"].dtype) == (torch.float64, torch.int64)


def test_local_functions_are_inlined() -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[2] x) => (float[2] y) { y = own.Twice(x) }
        <domain: "own", opset_import: ["": 17]> Twice (a) => (b) { b = Add(a, a) }
    """)
    assert Oracle(model).run({"x": torch.tensor([1.0, 2])})["y"].tolist() == [2, 4]
