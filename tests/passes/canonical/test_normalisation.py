"""Batch norm folded into layers: the outputs stay, the nodes go, and where it cannot be done it says why."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from onnxplain.ir.load import load
from onnxplain.ir.model import Model
from onnxplain.ir.save import to_proto
from onnxplain.passes.canonical import canonicalise
from onnxplain.passes.canonical.normalisation import FoldBatchNorm
from tests.catalogue import LIGHT, light_model, noise
from tests.running import run

Floats = NDArray[np.float32]


def drawn(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def norm(channels: int, name: str) -> dict[str, Floats]:
    """The four vectors of a batch norm, none of them trivial."""
    s, b, m, v = (drawn(channels, seed=seed) for seed in (1, 2, 3, 4))
    return {f"{name}s": s, f"{name}b": b, f"{name}m": m, f"{name}v": v**2 + np.float32(0.3)}


def model(body: str, x: list[int | str], weights: dict[str, Floats], outputs: str = "y") -> onnx.ModelProto:
    """Nodes from x to the outputs, with weights as initialisers."""
    listed = ", ".join(f"float[] {name}" for name in outputs.split())
    shape = ", ".join(str(n) for n in x)
    text = f'<ir_version: 10, opset_import: ["": 20]> net (float[{shape}] x) => ({listed}) {{ {body} }}'
    proto = parser.parse_model(text)
    for output in proto.graph.output:
        output.CopyFrom(onnx.ValueInfoProto(name=output.name))
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in weights.items())
    return proto


def folded(proto: onnx.ModelProto) -> tuple[Model, dict[str, str]]:
    """The canonical graph with batch norms folded, and where that was declined, with the reason."""
    subject, _ = canonicalise(load(proto))
    report = FoldBatchNorm().run(subject)
    return subject, {refusal.where: refusal.why for refusal in report.refusals}


def operators(subject: Model) -> list[str]:
    return [node.op for node in subject.graph.nodes]


def same_outputs(proto: onnx.ModelProto, subject: Model, x: Floats) -> None:
    before, after = run(proto, x), run(to_proto(subject), x)
    assert before.keys() == after.keys()
    for name, y in before.items():
        assert np.abs(after[name] - y).max() <= 1e-5 * np.abs(y).max(), name


BN = "BatchNormalization"
CONV2 = {"w": drawn(6, 4, 3, 3, seed=5), "c": drawn(6, seed=6)}
GROUPED = {"w": drawn(6, 2, 3, 3, seed=5), "c": drawn(6, seed=6)}
UP = {"w": drawn(4, 3, 3, 3, seed=5), "c": drawn(6, seed=6)}

BEHIND = {
    "Conv": (f"a = Conv(x, w, c) y = {BN}(a, ns, nb, nm, nv)", [2, 4, 6, 6], CONV2, 6),
    "Conv without bias": (f"a = Conv(x, w) y = {BN}(a, ns, nb, nm, nv)", [2, 4, 6, 6], CONV2, 6),
    "Conv in groups": (f"a = Conv<group = 2>(x, w, c) y = {BN}(a, ns, nb, nm, nv)", [2, 4, 6, 6], GROUPED, 6),
    "Conv over one axis": (
        f"a = Conv(x, w) y = {BN}<epsilon = 0.1>(a, ns, nb, nm, nv)", [2, 4, 9], {"w": drawn(6, 4, 3)}, 6),
    "ConvTranspose in groups": (
        f"a = ConvTranspose<group = 2, strides = [2, 2]>(x, w, c) y = {BN}(a, ns, nb, nm, nv)", [2, 4, 3, 3], UP, 6),
    "Gemm": (f"a = Gemm<alpha = 0.5, beta = 2.0>(x, w, c) y = {BN}(a, ns, nb, nm, nv)", [2, 5],
             {"w": drawn(5, 6), "c": drawn(6)}, 6),
    "Gemm, turned": (f"a = Gemm<transB = 1>(x, w, c) y = {BN}(a, ns, nb, nm, nv)", [2, 5],
                     {"w": drawn(6, 5), "c": drawn(6)}, 6),
    "MatMul": (f"a = MatMul(x, w) y = {BN}(a, ns, nb, nm, nv)", [2, 5], {"w": drawn(5, 6)}, 6),
}  # fmt: skip

IN_FRONT = {
    "Conv": (f"a = {BN}(x, ns, nb, nm, nv) y = Conv(a, w, c)", [2, 4, 6, 6], CONV2),
    "Conv, padded": (f"a = {BN}(x, ns, nb, nm, nv) y = Conv<pads = [1, 2, 0, 1]>(a, w, c)", [2, 4, 6, 6], CONV2),
    "Conv in groups, padded, strided": (
        f"a = {BN}(x, ns, nb, nm, nv) y = Conv<group = 2, pads = [1, 1, 1, 1], strides = [2, 2]>(a, w)",
        ["N", 4, 6, 6], GROUPED),
    "depthwise": (f"a = {BN}(x, ns, nb, nm, nv) y = Conv<group = 4>(a, w)", [2, 4, 6, 6], {"w": drawn(4, 1, 3, 3)}),
    "ConvTranspose in groups": (
        f"a = {BN}(x, ns, nb, nm, nv) y = ConvTranspose<group = 2, strides = [2, 2]>(a, w, c)", [2, 4, 3, 3], UP),
    "Gemm": (f"a = {BN}(x, ns, nb, nm, nv) y = Gemm<alpha = 0.5>(a, w, c)", [2, 4],
             {"w": drawn(4, 6), "c": drawn(6)}),
    "Gemm, turned": (f"a = {BN}(x, ns, nb, nm, nv) y = Gemm<transB = 1>(a, w)", [2, 4], {"w": drawn(6, 4)}),
    "MatMul": (f"a = {BN}(x, ns, nb, nm, nv) y = MatMul(a, w)", [2, 4], {"w": drawn(4, 6)}),
}  # fmt: skip


@pytest.mark.parametrize(("body", "x", "weights", "channels"), BEHIND.values(), ids=BEHIND)
def test_behind_a_layer(body: str, x: list[int], weights: dict[str, Floats], channels: int) -> None:
    proto = model(body, x, weights | norm(channels, "n"))
    subject, refusals = folded(proto)
    assert not refusals
    assert len(operators(subject)) == 1
    same_outputs(proto, subject, drawn(*x, seed=9))


@pytest.mark.parametrize(("body", "x", "weights"), IN_FRONT.values(), ids=IN_FRONT)
def test_in_front_of_a_layer(body: str, x: list[int | str], weights: dict[str, Floats]) -> None:
    """Where zeros of the padding saw no shift, what the layer makes of the shift is added behind, place by place."""
    proto = model(body, x, weights | norm(4, "n"))
    subject, refusals = folded(proto)
    assert not refusals
    assert BN not in operators(subject)
    uneven = "pads" in body or "Transpose" in body
    assert len(operators(subject)) == (3 if uneven else 1)
    same_outputs(proto, subject, drawn(*[2 if n == "N" else int(n) for n in x], seed=9))


BY_ROW = {
    "a scale behind": "a = Gemm(x, w, c) y = Mul(a, k)",
    "a batch norm behind": f"a = Gemm(x, w, c) y = {BN}(a, ns, nb, nm, nv)",
    "a batch norm in front": f"a = {BN}(x, ns, nb, nm, nv) y = Gemm(a, w, c)",
}


@pytest.mark.parametrize("body", BY_ROW.values(), ids=BY_ROW)
@pytest.mark.parametrize("shape", [(3, 1), (1, 3), (1, 1), (1,), (3,), ()], ids=str)
def test_a_bias_that_differs_from_row_to_row_is_none_of_channels(body: str, shape: tuple[int, ...]) -> None:
    """Three rows and three channels: only the place of the axis tells (3, 1) and (1, 3) apart."""
    weights = {"w": drawn(3, 3), "k": drawn(3), "c": drawn(*shape, seed=6)} | norm(3, "n")
    proto = model(body, [3, 3], weights)
    subject, refusals = folded(proto)
    assert len(operators(subject)) == (2 if shape == (3, 1) else 1)
    if shape == (3, 1) and BN in body:
        assert any("is no vector over its channels" in why for why in refusals.values())
    same_outputs(proto, subject, drawn(3, 3, seed=9))


def test_a_shift_of_zero_needs_no_map() -> None:
    weights = CONV2 | norm(4, "n")
    weights["nb"], weights["nm"] = np.zeros_like(weights["nb"]), np.zeros_like(weights["nm"])
    proto = model(f"a = {BN}(x, ns, nb, nm, nv) y = Conv<pads = [1, 1, 1, 1]>(a, w, c)", [2, 4, 6, 6], weights)
    subject, _ = folded(proto)
    assert operators(subject) == ["Conv"]
    same_outputs(proto, subject, drawn(2, 4, 6, 6, seed=9))


@pytest.mark.parametrize("chain", [
    "b = Mul(a, k) y = Add(b, s)",
    "b = Add(s, a) y = Mul(k, b)",
    "b = Sub(a, s) y = Div(b, k)",
    f"b = {BN}(a, ns, nb, nm, nv) d = Mul(b, k) y = Add(d, s)",
    f"b = Mul(a, k) d = {BN}(b, ns, nb, nm, nv) y = Mul(d, half)",
], ids=["Mul, Add", "Add, Mul", "Sub, Div", "norm, Mul, Add", "Mul, norm, one number"])  # fmt: skip
def test_chains_of_scales_and_shifts_fold_too(chain: str) -> None:
    more = {"k": drawn(1, 6, 1, 1), "s": drawn(6, 1, 1), "half": np.float32(0.5)}
    proto = model(f"a = Conv(x, w, c) {chain}", [2, 4, 6, 6], CONV2 | norm(6, "n") | more)
    subject, _ = folded(proto)
    assert operators(subject) == ["Conv"]
    same_outputs(proto, subject, drawn(2, 4, 6, 6, seed=9))


def test_a_scale_behind_a_norm_that_stands_alone_joins_it() -> None:
    """As in Caffe's models: a norm without scale, then Mul and Add."""
    body = f"p = Relu(x) a = {BN}(p, ns, nb, nm, nv) b = Mul(a, k) d = Add(b, s) y = Relu(d)"
    more = {"k": drawn(1, 4, 1, 1), "s": drawn(4, 1, 1)}
    proto = model(body, [2, 4, 6, 6], norm(4, "n") | more)
    subject, _ = folded(proto)
    assert operators(subject) == ["Relu", BN, "Relu"]
    same_outputs(proto, subject, drawn(2, 4, 6, 6, seed=9))


def test_on_both_sides_of_a_padded_layer() -> None:
    """The one behind is folded before the one in front leaves its map there."""
    body = f"a = {BN}(x, ms, mb, mm, mv) p = Conv<pads = [1, 1, 1, 1]>(a, w, c) q = {BN}(p, ns, nb, nm, nv) y = Relu(q)"
    proto = model(body, [2, 4, 6, 6], CONV2 | norm(4, "m") | norm(6, "n"))
    subject, refusals = folded(proto)
    assert not refusals
    assert sorted(operators(subject)) == ["Add", "Conv", "Conv", "Relu"]
    same_outputs(proto, subject, drawn(2, 4, 6, 6, seed=9))


def test_a_scale_between_a_norm_and_the_layer_behind_it() -> None:
    body = f"p = Relu(x) a = {BN}(p, ns, nb, nm, nv) b = Mul(a, k) d = Add(b, s) y = Conv(d, w, c)"
    proto = model(body, [2, 4, 6, 6], CONV2 | norm(4, "n") | {"k": drawn(1, 4, 1, 1), "s": drawn(4, 1, 1)})
    subject, refusals = folded(proto)
    assert not refusals
    assert operators(subject) == ["Relu", "Conv"]
    same_outputs(proto, subject, drawn(2, 4, 6, 6, seed=9))


@pytest.mark.parametrize(("constant", "why"), [
    (drawn(1, 1, 6, 6), "varies over space"),
    (drawn(6, 4, 4), "is one for each element"),
    (drawn(3, 1, 1, 1), "makes a batch of three"),
])  # fmt: skip
def test_what_is_no_scale_of_channels_stays(constant: Floats, why: str) -> None:
    shape = [1, 4, 6, 6] if constant.ndim == 4 and constant.shape[0] == 3 else [2, 4, 6, 6]
    weights = CONV2 | {"k": constant if constant.shape[-1] != 6 else drawn(1, 1, 4, 4)}
    proto = model("a = Conv(x, w, c) y = Mul(a, k)", shape, weights)
    subject, _ = folded(proto)
    assert operators(subject) == ["Conv", "Mul"], why
    same_outputs(proto, subject, drawn(*shape, seed=9))


def test_one_channel_stretched_to_several_is_no_scale() -> None:
    proto = model("a = Conv(x, w) y = Mul(a, k)", [2, 4, 6, 6], {"w": drawn(1, 4, 3, 3), "k": drawn(3, 1, 1)})
    subject, _ = folded(proto)
    assert operators(subject) == ["Conv", "Mul"]
    same_outputs(proto, subject, drawn(2, 4, 6, 6, seed=9))


NONE_IN_FRONT = "no layer with constant weights in front of it"
NONE_BEHIND = "no layer with constant weights alone behind it"
DECLINED = {
    "read elsewhere": (
        f"a = Conv(x, w, c) b = {BN}(a, ns, nb, nm, nv) y = Add(a, b)", "y", 6,
        f"the output of 'layer' is read elsewhere too; {NONE_BEHIND}"),
    "an output of the model": (
        f"a = Conv(x, w, c) y = {BN}(a, ns, nb, nm, nv)", "a y", 6,
        f"the output of 'layer' is read elsewhere too; {NONE_BEHIND}"),
    "nothing beside it": (
        f"a = Relu(x) y = {BN}(a, ns, nb, nm, nv)", "y", 4, f"{NONE_IN_FRONT}; {NONE_BEHIND}"),
    "its own output is the model's": (
        f"b = {BN}(x, ns, nb, nm, nv) y = Conv(b, w, c)", "b y", 4,
        f"{NONE_IN_FRONT}; its output is one of the model's"),
    "two layers behind": (
        f"b = {BN}(x, ns, nb, nm, nv) d = Conv(b, w, c) e = Conv(b, w, c) y = Add(d, e)", "y", 4,
        f"{NONE_IN_FRONT}; {NONE_BEHIND}"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "outputs", "channels", "why"), DECLINED.values(), ids=DECLINED)
def test_declined_with_a_reason(body: str, outputs: str, channels: int, why: str) -> None:
    proto = model(body, [2, 4, 6, 6], CONV2 | norm(channels, "n"), outputs)
    for node in proto.graph.node:
        node.name = {BN: "norm", "a": "layer"}.get(BN if node.op_type == BN else node.output[0], "")
    subject, refusals = folded(proto)
    assert refusals == {"norm": why}
    assert BN in operators(subject)
    same_outputs(proto, subject, drawn(2, 4, 6, 6, seed=9))


def test_padding_of_unknown_sizes_is_declined() -> None:
    body = f"a = {BN}(x, ns, nb, nm, nv) y = Conv<pads = [1, 1, 1, 1]>(a, w, c)"
    proto = model(body, [2, 4, "H", "W"], CONV2 | norm(4, "n"))
    subject, refusals = folded(proto)
    assert [why.split("; the padding of ")[0] for why in refusals.values()] == [NONE_IN_FRONT]
    assert operators(subject) == [BN, "Conv"]


def test_a_norm_in_training_mode_stays() -> None:
    body = f"a = Conv(x, w, c) y, p, q = {BN}<training_mode = 1>(a, ns, nb, nm, nv)"
    subject, _ = folded(model(body, [2, 4, 6, 6], CONV2 | norm(6, "n")))
    assert operators(subject) == ["Conv", BN]


def test_along_another_axis_nothing_is_folded() -> None:
    """The norm of a sequence (N, T, C) goes by position, and the layer in front of it by channel."""
    proto = model(f"a = MatMul(x, w) y = {BN}(a, ns, nb, nm, nv)", [2, 6, 5], {"w": drawn(5, 6)} | norm(6, "n"))
    subject, refusals = folded(proto)
    assert [why.split(" '")[0] for why in refusals.values()] == ["MatMul"]
    assert operators(subject) == ["MatMul", BN]
    same_outputs(proto, subject, drawn(2, 6, 5, seed=9))


def test_densenet() -> None:
    """BN, Mul and Add before ReLU and Conv: folded where a Conv is in front, merged where a Concat or pool is."""
    proto = light_model(LIGHT / "light_densenet121.onnx")
    before = [node.op_type for node in proto.graph.node]
    subject, refusals = folded(proto)
    after = operators(subject)
    assert (before.count(BN), before.count("Mul"), before.count("Add")) == (121, 121, 121)
    assert (after.count(BN), after.count("Mul"), after.count("Add")) == (62, 0, 0)
    assert len(refusals) == 62
    same_outputs(proto, subject, noise(1, 0, (3, 224, 224)))


def test_a_layer_within_a_branch_keeps_its_norm_outside() -> None:
    branches = """then_branch = t () => (float[N,6,6,6] p) { p = Conv<pads = [1, 1, 1, 1]>(a, w, c) },
        else_branch = e () => (float[N,6,6,6] q) { q = Identity(z) }"""
    body = (
        f"a = {BN}(x, ns, nb, nm, nv) z = Concat<axis = 1>(x, half) m = ReduceSum<keepdims = 0>(x) k = Greater(m, m0)"
    )
    weights = CONV2 | norm(4, "n") | {"half": np.zeros((2, 2, 6, 6), np.float32), "m0": np.float32(0)}
    proto = model(f"{body} y = If(k) <{branches}>", [2, 4, 6, 6], weights)
    subject, refusals = folded(proto)
    (why,) = refusals.values()
    assert why == "no layer with constant weights in front of it; the Conv that reads it is in a branch"
    for sign in (1, -1):
        same_outputs(proto, subject, sign * np.abs(drawn(2, 4, 6, 6, seed=9)))
