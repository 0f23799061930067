"""Whatever a model calls its own tensors and nodes, it is explained alike: no pass makes a name that is there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxplain.compiler import compile_model
from onnxplain.ir.emitter import PREFIX
from onnxplain.ir.load import load
from onnxplain.ir.names import names_in, node_names, tensor_names
from onnxplain.passes.base import run_passes
from onnxplain.passes.canonical import canonicalise
from onnxplain.passes.canonical.dense import SplitGemm
from onnxplain.passes.canonical.normalisation import FoldBatchNorm
from onnxplain.passes.canonical.turned import AffineBeforeTranspose
from tests.running import Array, Results, run

METHODS = "gradient,lrp-eps,deeplift-rescale"
OWN, SEEN, NODE = "own", "seen", "looks"
"""A weight, a tensor and a node that nothing is done to: the ones that get another name."""


def some(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def whole(*values: int) -> Array:
    return np.array(values, np.int64)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """Operands and results are separated by spaces, `_` is one that is left out; the node is called `the <op>`."""
    operands = ["" if name == "_" else name for name in inputs.split()]
    return helper.make_node(op, operands, outputs.split(), f"the {op}", **attributes)


@dataclass(frozen=True)
class Net:
    """Nodes from x (2, *sizes) to m, which holds `classes` numbers of each sample. dynamic: the batch has a name."""

    sizes: tuple[int, ...]
    classes: int
    nodes: list[onnx.NodeProto]
    weights: dict[str, Array] = field(default_factory=dict)
    opset: int = 20
    dynamic: bool = False

    def model(self, **names: str) -> onnx.ModelProto:
        """With a node `seen = flat * own` behind, some of whose names are others."""
        own, seen, looks = (names.get(key, key) for key in (OWN, SEEN, NODE))
        nodes = [
            *self.nodes,
            helper.make_node("Flatten", ["m"], ["flat"], "flattens"),
            helper.make_node("Mul", ["flat", own], [seen], looks),
            helper.make_node("Add", ["flat", seen], ["scores"], "ends"),
        ]
        batch = "N" if self.dynamic else 2
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("x", 1, [batch, *self.sizes])],
            [helper.make_tensor_value_info("scores", 1, [batch, self.classes])],
            [numpy_helper.from_array(a, n) for n, a in {**self.weights, own: some(self.classes, seed=9)}.items()],
        )
        return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", self.opset)])


NORM = {"s": some(3), "b": some(3, seed=1), "mean": some(3, seed=2), "v": some(3, seed=3) ** 2 + np.float32(0.5)}
CONV = {"w": some(3, 3, 2, 2)}
QUANTISED = {
    "xs": np.float32(0.03), "xz": np.uint8(128), "ws": np.float32(0.01), "wz": np.int8(0), "ys": np.float32(0.1),
    "yz": np.uint8(120), "w": np.random.default_rng(1).integers(-99, 99, (4, 4)).astype(np.int8),
}  # fmt: skip


def branch(op: str) -> onnx.GraphProto:
    value = helper.make_tensor_value_info("taken", 1, None)
    return helper.make_graph([helper.make_node(op, ["x"], ["taken"], "inner")], op, [], [value])


def recurrent(op: str, gates: int, **more: Any) -> Net:
    nodes = [
        node("Transpose", "x", "xt", perm=[1, 0, 2]),
        node(op, "xt W R", "every last", hidden_size=2, **more),
        node("Squeeze", "last first", "m"),
    ]
    weights = {"first": whole(0), "W": some(1, gates * 2, 4), "R": some(1, gates * 2, 2)}
    return Net((2, 4), 2, nodes, weights)


NETS = {
    "a batch norm behind": Net(
        (3, 4, 4), 27,
        [node("Conv", "x w", "a"), node("BatchNormalization", "a s b mean v", "n"), node("Relu", "n", "m")],
        CONV | NORM),
    "a batch norm in front": Net(
        (3, 4, 4), 48,
        [node("BatchNormalization", "x s b mean v", "n"), node("Conv", "n w", "a", pads=[1, 1, 0, 0]),
         node("Relu", "a", "m")],
        CONV | NORM),
    "a batch norm alone": Net(
        (3, 4), 12,
        [node("BatchNormalization", "x s b mean v", "n"), node("Mul", "n k", "p"), node("Tanh", "p", "m")],
        NORM | {"k": some(3, 1, seed=4)}),
    "a product and a shortcut": Net(
        (4,), 4, [node("Gemm", "x w x", "a", beta=2.0), node("Relu", "a", "m")], {"w": some(4, 4)}),
    "a bias behind a turn": Net(
        (3, 4, 4), 27,
        [node("Conv", "x w", "a"), node("Transpose", "a", "t", perm=[0, 2, 3, 1]), node("Add", "t k", "m")],
        CONV | {"k": some(3)}),
    "pads on some axes": Net((4,), 7, [node("Pad", "x p _ axes", "m")], {"p": whole(1, 2), "axes": whole(-1)}),
    "a window too far": Net(
        (1, 8, 7), 15,
        [node("AveragePool", "x", "m", kernel_shape=[1, 4], strides=[3, 2], pads=[0, 2, 0, 2], ceil_mode=1,
              count_include_pad=1)],
        opset=22),
    "a computed size": Net(
        (2, 3), 6,
        [node("Shape", "x", "shape", start=0, end=1), node("Concat", "shape six", "to", axis=0),
         node("Reshape", "x to", "m")],
        {"six": whole(6)}, dynamic=True),
    "a batch in a size": Net((2, 3), 6, [node("Reshape", "x to", "m")], {"to": whole(2, 6)}),
    "RNN": recurrent("RNN", 1),
    "GRU": recurrent("GRU", 3),
    "LSTM": recurrent("LSTM", 4),
    "a grid": Net(
        (1, 2, 3), 12, [node("Squeeze", "x one", "theta"), node("AffineGrid", "theta sizes", "m")],
        {"one": whole(1), "sizes": whole(2, 1, 2, 3)}),
    "integers": Net(
        (4,), 4,
        [node("QuantizeLinear", "x xs xz", "q"), node("QLinearMatMul", "q xs xz w ws wz ys yz", "y"),
         node("Identity", "y", "z"), node("DequantizeLinear", "z ys yz", "m")],
        QUANTISED),
    "a product of integers": Net(
        (4,), 4,
        [node("QuantizeLinear", "x xs xz", "q"), node("MatMulInteger", "q w xz wz", "i"), node("Cast", "i", "m", to=1)],
        QUANTISED),
    "a branch": Net(
        (4,), 4, [node("If", "yes", "m", then_branch=branch("Tanh"), else_branch=branch("Relu"))],
        {"yes": np.array(True)}),
    "bounds": Net((4,), 4, [node("Clip", "x", "m", min=-0.5, max=0.5)], opset=10),
}  # fmt: skip


def made(net: Net) -> list[str]:
    """What passes call what they add: of names that differ in a number alone, one."""
    subject, _ = canonicalise(load(net.model()))
    run_passes(subject, [AffineBeforeTranspose(), FoldBatchNorm(), SplitGemm()])
    compiled = names_in(compile_model(net.model(), METHODS, target=1).graph)
    names = (tensor_names(subject.graph) | node_names(subject.graph) | compiled) - names_in(net.model().graph)
    # Under PREFIX most are the emitter's, whose names of the model's own nodes would fill the rest of the day.
    kept = [n for n in names if "/" in n and (not n.startswith(f"{PREFIX}/") or n.endswith(("/stored", "/constant")))]
    return sorted({re.sub(r"\d+", "#", n): n for n in sorted(kept)}.values())


def results(model: onnx.ModelProto, x: Array) -> Results:
    return run(compile_model(model, METHODS, target=1), x)


@pytest.mark.parametrize("name", NETS)
def test_a_model_may_use_any_name_that_passes_make(name: str) -> None:
    net = NETS[name]
    x = some(2, *net.sizes, seed=7)
    wanted, original = results(net.model(), x), run(net.model(), x)
    np.testing.assert_allclose(wanted["scores"], original["scores"], rtol=1e-4, atol=1e-5)
    names = made(net)
    assert names, "a pass adds something here"
    for i in range(len(names)):
        # Each name is borne by each of the three once.
        other = {old: names[(i + k) % len(names)] for k, old in enumerate((OWN, SEEN, NODE)[: len(names)])}
        found = results(net.model(**other), x)
        assert found.keys() == wanted.keys()
        for role, value in wanted.items():
            np.testing.assert_allclose(found[role], value, rtol=1e-5, atol=1e-6, err_msg=f"{other}: {role}")
