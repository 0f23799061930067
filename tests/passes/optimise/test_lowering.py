"""Lowering for a runtime changes what a graph costs and never what it returns."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxplain.compiler import compile_model
from onnxplain.runtime.measure import count, nodes_of
from tests.catalogue import SPECIMENS, Specimen, parameters
from tests.running import Array, net, run

QUICK = [s for s in SPECIMENS if not s.heavy and s.name.startswith(("cifar10", "mnist", "vww", "shapes", "digits"))]
METHODS = ("gradient", "guided-backprop", "lrp-eps", "lrp-epsilon-plus", "deeplift-rescale", "integrated-gradients")


def conv(attributes: str, x: str, w: str) -> onnx.ModelProto:
    """Convolution, ReLU, mean, scores."""
    settings = f"<{attributes}>" if attributes else ""
    return net(f"""
        g (float[N,{x}] x) => (float[N,classes] y)
        <float[{w}] w = {{{numbers(w)}}}>
        {{ c = Conv{settings}(x, w)  r = Relu(c)  m = GlobalAveragePool(r)  y = Flatten(m) }}
    """)


def numbers(shape: str) -> str:
    sizes = [int(d) for d in shape.split(",")]
    return ",".join(f"{v:.4f}" for v in np.random.default_rng(0).standard_normal(int(np.prod(sizes))))


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(count(model.graph))


def as_written(model: onnx.ModelProto, images: Array) -> Array:
    """The attribution, the runtime's own rewriting off: it rounds differently for each form, which may flip a ReLU."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: Array = session.run(["attribution"], {session.get_inputs()[0].name: images})[0]
    return found


def close(a: Array, b: Array, tolerance: float = 1e-5) -> bool:
    return bool(np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b))


@pytest.mark.parametrize(
    ("attributes", "x", "w"),
    [
        ("pads=[1,1,1,1]", "3,9,8", "4,3,3,3"),
        ("pads=[0,2,1,0]", "3,9,8", "4,3,3,3"),
        ("", "3,7,7", "4,3,1,1"),
        ("group=4, pads=[1,1,1,1]", "4,6,6", "4,1,3,3"),
        ("group=2, pads=[1,1,1,1]", "4,6,6", "6,2,3,3"),
        ("group=2", "4,6,6", "2,2,2,3"),
        ("dilations=[2,1], pads=[2,0,2,0]", "2,9,9", "3,2,3,2"),
        ("pads=[2,2]", "2,11", "3,2,5"),
        ("pads=[1,0,1,1,0,1]", "2,5,4,6", "3,2,3,1,3"),
    ],
)
def test_a_transposed_convolution_of_stride_one_becomes_a_convolution(attributes: str, x: str, w: str) -> None:
    model = conv(attributes, x, w)
    plain, lowered = (compile_model(model, "gradient", runtime=r) for r in ("portable", "cpu"))
    assert operators(plain)["ConvTranspose"] == 1
    assert operators(lowered)["ConvTranspose"] == 0
    images = np.random.default_rng(1).standard_normal([2, *map(int, x.split(","))]).astype(np.float32)
    assert close(run(lowered, images)["attribution"], run(plain, images)["attribution"])


@pytest.mark.parametrize(
    ("attributes", "why"),
    [("strides=[2,2], pads=[1,1,1,1]", "its stride"), ("pads=[4,4,4,4]", "more padding than its filters reach")],
)
def test_a_transposed_convolution_stays_where_the_proof_does_not_hold(attributes: str, why: str) -> None:
    lowered = compile_model(conv(attributes, "3,9,8", "4,3,3,3"), "gradient", runtime="cpu")
    assert operators(lowered)["ConvTranspose"] == 1, why


@pytest.mark.parametrize(
    ("attributes", "x", "w", "left"),
    [
        ("group=4, pads=[1,1,1,1]", "4,6,6", "4,1,3,3", 0),
        ("group=4, pads=[1,1,1,1], strides=[2,2]", "4,6,6", "4,1,3,3", 0),
        ("group=4, pads=[1,1]", "4,9", "4,1,3", 0),
        ("group=4, pads=[1,1,1,1]", "4,6,6", "8,1,3,3", 1),
        ("group=2, pads=[1,1,1,1]", "4,6,6", "6,2,3,3", 1),
        ("pads=[1,1,1,1]", "3,9,8", "4,3,3,3", 1),
        ("pads=[1,1,1,1], strides=[2,2]", "3,9,8", "4,3,3,3", 1),
    ],
)
def test_for_cuda_only_a_convolution_of_each_channel_by_itself_is_flipped(
    attributes: str, x: str, w: str, left: int
) -> None:
    model = conv(attributes, x, w)
    plain, lowered = (compile_model(model, "gradient", runtime=r) for r in ("portable", "cuda"))
    assert operators(plain)["ConvTranspose"] == 1
    assert operators(lowered)["ConvTranspose"] == left
    images = np.random.default_rng(1).standard_normal([2, *map(int, x.split(","))]).astype(np.float32)
    assert close(run(lowered, images)["attribution"], run(plain, images)["attribution"])


def test_a_mask_is_a_step_behind_any_operator() -> None:
    relu = compile_model(conv("", "3,7,7", "4,3,1,1"), "gradient", runtime="cpu")
    assert operators(relu)["HardSigmoid"] == 1
    jump = net("""
        g (float[N,4] x) => (float[N,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}>
        { t = ThresholdedRelu<alpha=0.5>(x)  y = MatMul(t, w) }
    """)
    lowered = compile_model(jump, "gradient", runtime="cpu", target=0)
    assert operators(lowered)["HardSigmoid"] == 1
    x = np.array([[0.5, np.nextafter(np.float32(0.5), np.float32(1)), -7, 1e30]], np.float32)
    np.testing.assert_array_equal(run(lowered, x)["attribution"], [[0, 3, 0, 7]])


def test_a_mask_of_what_is_compared_with_a_tiny_number_stays() -> None:
    """A difference to it may be less than the smallest normal number."""
    model = net("""
        g (float[N,4] x) => (float[N,2] y) <float[4,2] w = {1,2,3,4,5,6,7,8}>
        { t = ThresholdedRelu<alpha=1e-30>(x)  y = MatMul(t, w) }
    """)
    assert operators(compile_model(model, "gradient", runtime="cpu"))["HardSigmoid"] == 0


def test_a_steep_step_is_exact_at_zero_and_at_the_smallest_normal_number() -> None:
    model = net("""
        g (float[N,4] x) => (float[N,4] y) <float[4,4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}>
        { r = Relu(x)  y = MatMul(r, w) }
    """)
    tiny = np.finfo(np.float32).tiny
    x = np.array([[0.0, -0.0, tiny, -tiny]], np.float32)
    for index, slope in enumerate((0.0, 0.0, 1.0, 0.0)):
        lowered = compile_model(model, "gradient", runtime="cpu", target=index)
        assert run(lowered, x)["attribution"][0, index] == slope


def clipped(channels: int, top: float) -> onnx.ModelProto:
    """A Clip from zero; the scores are the channels' sums."""
    return net(
        f"""
        g (float[N,{channels},2,8] x) => (float[N,{channels}] y) <float low = {{0}}, float high = {{{top}}}>
        {{ r = Clip(x, low, high)  s = ReduceSum<keepdims=1, noop_with_empty_axes=0>(r, a)  y = Flatten(s) }}
    """.replace("float low", "int64[2] a = {2,3}, float low")
    )


@pytest.mark.parametrize("top", [6.0, 1.0, 3.0, 20.0, 7.6])
def test_a_mask_between_two_bounds_is_exact_at_both(top: float) -> None:
    """For a top at which HardSwish ends however it is rounded, and for one at which it may not."""
    model = clipped(16, top)
    lowered = compile_model(model, "gradient", runtime="cpu", target=3)
    assert operators(lowered)["HardSwish"] == (top != 7.6)
    end = np.float32(top)
    row = np.array(
        [0, -1, 2**-121, end, np.nextafter(end, np.float32(0)), np.nextafter(end, np.float32(99)), top / 2, 99]
    )
    x = np.zeros((1, 16, 2, 8), np.float32)
    x[0, 3, 1] = row
    np.testing.assert_array_equal(run(lowered, x)["attribution"][0, 3, 1], [0, 0, 1, 0, 1, 0, 1, 0])


def test_the_file_holds_the_weights_once_whatever_the_runtime() -> None:
    model = conv("pads=[1,1,1,1]", "64,9,8", "64,64,3,3")
    sizes = [compile_model(model, "gradient", runtime=r).ByteSize() for r in ("portable", "cpu", "cuda")]
    assert max(sizes) < 1.1 * model.ByteSize() + 20_000


def test_a_loop_s_body_is_lowered_too() -> None:
    lowered = compile_model(conv("pads=[1,1,1,1]", "3,9,8", "4,3,3,3"), "integrated-gradients", runtime="cpu", steps=4)
    assert operators(lowered)["Loop"] == 1
    assert operators(lowered)["ConvTranspose"] == 0


def test_a_loop_s_body_has_its_weights_for_itself_and_the_file_has_them_once() -> None:
    """ONNX Runtime blocks the layout of convolutions whose weights are constants of the same graph."""
    model = conv("pads=[1,1,1,1]", "64,9,8", "64,64,3,3")
    lowered = compile_model(model, "integrated-gradients", runtime="cpu", steps=4)
    (loop,) = (node for node in lowered.graph.node if node.op_type == "Loop")
    body = next(a.g for a in loop.attribute if a.name == "body")
    made = {name for node in body.node for name in node.output}
    convolutions = [node for node in body.node if node.op_type == "Conv"]
    assert len(convolutions) >= 2
    assert all(set(node.input[1:]) <= made for node in convolutions)
    assert not body.initializer
    assert lowered.ByteSize() < 1.1 * model.ByteSize() + 20_000
    elsewhere = compile_model(model, "integrated-gradients", runtime="portable", steps=4)
    assert operators(elsewhere)["Sum"] == 0
    images = np.random.default_rng(1).standard_normal((2, 64, 9, 8)).astype(np.float32)
    assert close(run(lowered, images)["attribution"], run(elsewhere, images)["attribution"])


def test_a_loop_s_body_stays_in_the_blocked_layout_whatever_the_batch_is_called(tmp_path: Path) -> None:
    """The runtime joins two blocked tensors only where it knows that their batches are one."""
    layers = " ".join(
        f"c{i} = Conv<pads=[1,1,1,1]>({'x' if not i else f'r{i - 1}'}, w) r{i} = Relu(c{i})" for i in range(4)
    )
    found = []
    for batch in ("N", "2"):
        model = net(f"""
            g (float[{batch},16,8,8] x) => (float[{batch},16] y) <float[16,16,3,3] w = {{{numbers("16,16,3,3")}}}>
            {{ {layers} m = GlobalAveragePool(r3) y = Flatten(m) }}
        """)
        path = tmp_path / f"{batch}.onnx"
        onnx.save(compile_model(model, "integrated-gradients", runtime="cpu", steps=4), path)
        nodes = nodes_of(str(path), "cpu")[1]
        found.append(nodes.get("nchwc.ReorderInput", 0) + nodes.get("nchwc.ReorderOutput", 0))
    assert 0 < found[0] <= found[1] + 1  # one for the Shape that says how large the batch is


def test_a_loop_that_the_model_brings_keeps_its_weights_where_they_are() -> None:
    model = net("""
        g (float[1,2,4,4] x) => (float[1,2] y, float[1,2,4,4] z)
        <int64 n = {2}, bool go = {1}, float[2,2,1,1] w = {1,2,3,4}> {
            z = Loop(n, go, x) <body = inside (int64 i, bool c, float[1,2,4,4] s) => (bool d, float[1,2,4,4] t) {
                d = Identity(c)  t = Conv(s, w) }>
            m = GlobalAveragePool(x)  y = Flatten(m) }
    """)
    lowered = compile_model(model, "gradient", runtime="cpu", output="y")
    assert operators(lowered)["Conv"] == 1
    assert operators(lowered)["Sum"] == 0


def test_for_cuda_a_path_has_no_loop() -> None:
    model = conv("pads=[1,1,1,1]", "3,9,8", "4,3,3,3")
    assert operators(compile_model(model, "integrated-gradients", runtime="cuda", steps=4))["Loop"] == 0


@pytest.mark.parametrize("specimen", parameters(QUICK))
@pytest.mark.parametrize("method", METHODS)
def test_real_models_return_the_same_for_every_runtime(specimen: Specimen, method: str) -> None:
    model, images = specimen.load(), specimen.images(1, 0)
    fewer = {"steps": 3} if method == "integrated-gradients" else {}
    plain, cpu, cuda = (
        as_written(compile_model(model, method, runtime=r, **fewer), images) for r in ("portable", "cpu", "cuda")
    )
    assert close(cpu, plain, 1e-4)
    assert close(cuda, plain, 1e-4)


def test_a_clip_whose_convolution_others_read_gets_one_of_its_own() -> None:
    """LRP's epsilon rule reads what stands before a ReLU6; within a convolution the runtime keeps it in its layout."""
    model = net(f"""
        g (float[N,16,8,8] x) => (float[N,16] y)
        <float[16,16,3,3] w = {{{numbers("16,16,3,3")}}}, float low = {{0}}, float high = {{6}}> {{
            a = Conv<pads=[1,1,1,1]>(x, w) b = Clip(a, low, high) c = Conv<pads=[1,1,1,1]>(b, w)
            m = GlobalAveragePool(c) y = Flatten(m) }}
    """)
    lowered, plain = (compile_model(model, "lrp-eps", runtime=r) for r in ("cpu", "portable"))
    made = {output: node for node in lowered.graph.node for output in node.output}
    own = made[made["b"].input[0]]
    assert (made["b"].op_type, own.op_type, own.input[0]) == ("Clip", "Conv", "a")
    assert [node.output[0] for node in lowered.graph.node if own.output[0] in node.input] == ["b"]
    images = np.random.default_rng(1).standard_normal((2, 16, 8, 8)).astype(np.float32)
    found, expected = run(lowered, images), run(plain, images)
    np.testing.assert_array_equal(found["y"], expected["y"])
    assert close(found["attribution"], expected["attribution"])


def test_what_is_computed_within_a_convolution_gets_one_for_each_of_its_kind(tmp_path: Path) -> None:
    """Gamma reads LeakyRelu(y) for its denominator and the negative part of y for the layer behind, both in blocks."""
    model = net(f"""
        g (float[N,16,8,8] x) => (float[N,16] y) <float[16,16,3,3] w = {{{numbers("16,16,3,3")}}}> {{
            z = Conv<pads=[1,1,1,1]>(x, w)  a = Relu(z)
            b = Conv<pads=[1,1,1,1]>(a, w)  c = Conv<pads=[1,1,1,1]>(b, w)  s = Add(c, b)
            m = GlobalAveragePool(s)  y = Flatten(m) }}
    """)
    lowered, plain = (compile_model(model, "lrp-gamma", runtime=r) for r in ("cpu", "portable"))
    made = {output: node for node in lowered.graph.node for output in node.output}
    bent = [node for node in lowered.graph.node if node.op_type in ("LeakyRelu", "Clip")]
    own = [made[node.input[0]] for node in bent if made.get(node.input[0], node).input[0] == "b"]
    assert [node.op_type for node in own] == ["Conv", "Conv"]
    assert own[0].output != own[1].output
    images = np.random.default_rng(1).standard_normal((2, 16, 8, 8)).astype(np.float32)
    assert close(run(lowered, images)["attribution"], run(plain, images)["attribution"])
    fused = within_convolutions(lowered, tmp_path / "optimised.onnx")
    assert fused["LeakyRelu"] == 2
    assert fused["Clip"] >= 1


def within_convolutions(model: onnx.ModelProto, path: Path) -> Counter[str]:
    """What ONNX Runtime computes within convolutions, from its own graph, which it writes to a file."""
    options = ort.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 4, str(path)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    attributes = [a for node in onnx.load(path).graph.node for a in node.attribute]
    return Counter(a.s.decode() for a in attributes if a.name == "activation")
