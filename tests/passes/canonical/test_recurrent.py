"""LSTM, GRU and RNN, unrolled: their outputs kept, their gradients those of torch, what cannot be unrolled refused."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stdout
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from onnxplain.compiler import compile_model
from onnxplain.errors import OnnxplainError, UnsupportedOp
from tests.passes.canonical.plain_recurrent import GATES, recurrent
from tests.passes.graphs import canonical, operators
from tests.running import Array, assert_near, assert_outputs_kept, explained, run

STEPS, INPUTS, SIZE, CLASSES = 4, 3, 5, 3


class Network(nn.Module):
    """A recurrent layer or two, and a dense one on what they say of the whole sequence."""

    def __init__(self, kind: str, *, both_ways: bool, layers: int = 1) -> None:
        super().__init__()
        self.layers = getattr(nn, kind)(INPUTS, SIZE, layers, bidirectional=both_ways, batch_first=True)
        self.head = nn.Linear(SIZE * (1 + both_ways), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        rows, _ = self.layers(x)
        y: Tensor = self.head(rows.mean(1))
        return y


@cache
def network(kind: str, both_ways: bool, layers: int = 1) -> Network:
    torch.manual_seed(1)
    return Network(kind, both_ways=both_ways, layers=layers).eval()


def exported(net: nn.Module, exporter: str, free: bool) -> onnx.ModelProto:
    for each in ("torch.onnx", "onnxscript"):
        logging.getLogger(each).setLevel(logging.ERROR)
    x, file = torch.zeros(2, STEPS, INPUTS), io.BytesIO()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            shapes = ({0: torch.export.Dim("N", min=1, max=64)},) if free else None
            program = torch.onnx.export(
                net, (x,), dynamo=True, input_names=["x"], output_names=["y"], dynamic_shapes=shapes, verbose=False
            )
            assert program is not None
            model: onnx.ModelProto = program.model_proto
            return model
        axes = {"x": {0: "N"}, "y": {0: "N"}} if free else None
        torch.onnx.export(net, (x,), file, dynamo=False, input_names=["x"], output_names=["y"], dynamic_axes=axes)
    return onnx.load_model_from_string(file.getvalue())


def sequences(count: int = 2) -> Array:
    return np.random.default_rng(0).standard_normal((count, STEPS, INPUTS)).astype(np.float32)


def derivative(scores: Tensor, x: Tensor, classes: Array) -> Array:
    picked = scores.gather(1, torch.from_numpy(np.asarray(classes))[:, None]).sum()
    return np.asarray(torch.autograd.grad(picked, x)[0])


@pytest.mark.parametrize("free", [False, True], ids=["fixed", "free"])
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize(("kind", "both_ways", "layers"), [
    ("LSTM", False, 1), ("LSTM", True, 2), ("GRU", False, 1), ("GRU", True, 2), ("RNN", True, 1),
])  # fmt: skip
def test_what_torch_exports_differentiates_like_torch(
    kind: str, both_ways: bool, layers: int, exporter: str, free: bool
) -> None:
    net = network(kind, both_ways, layers)
    model, data = exported(net, exporter, free), sequences(3 if free else 2)
    found = explained(model, data)
    assert_outputs_kept(found, run(model, data), 1e-6)
    x = torch.from_numpy(data).double().requires_grad_()
    expected = derivative(net.double()(x), x, found["explained_class"])
    net.float()
    assert_near(found["attribution"], expected, 1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_weights_that_an_exporter_cuts_to_pieces_and_that_are_too_large_to_fold_are_read(kind: str) -> None:
    torch.manual_seed(2)
    net = nn.Sequential()
    wide = Network(kind, both_ways=False)
    wide.layers = getattr(nn, kind)(INPUTS, 192, batch_first=True)
    wide.head = nn.Linear(192, CLASSES)
    net.append(wide.eval())
    model, data = exported(net, "dynamo", True), sequences()
    found = explained(model, data)
    assert_outputs_kept(found, run(model, data), 1e-6)
    x = torch.from_numpy(data).double().requires_grad_()
    assert_near(found["attribution"], derivative(net.double()(x), x, found["explained_class"]), 1e-5)


# Every attribute, against the definition


def node_model(op: str, given: dict[str, Array], steps: int | str = STEPS, **attributes: Any) -> onnx.ModelProto:
    """The node, its outputs flattened and side by side; `c`, `h`, `P` and the like where they are given."""
    first = bool(attributes.get("layout", 0))
    order = ["W", "R", "B", "lengths", "h", *(["c", "P"] if op == "LSTM" else [])]
    names = ["x", *(name if name in given else "" for name in order)]
    while not names[-1]:
        names.pop()
    outputs = ["all", "end", *(["cell"] if op == "LSTM" else [])]
    nodes = [helper.make_node(op, names, outputs, "layer", hidden_size=SIZE, **attributes)]
    # The batch comes first in what is explained, whatever the layer's layout.
    ranks = {"all": 4, "end": 3, "cell": 3}
    for name in outputs:
        axis = 0 if first else ranks[name] - 2
        perm = [axis, *(a for a in range(ranks[name]) if a != axis)]
        nodes.append(helper.make_node("Transpose", [name], [f"{name}_t"], f"{name}_t", perm=perm))
        nodes.append(helper.make_node("Flatten", [f"{name}_t"], [f"{name}_f"], f"{name}_f"))
    nodes.append(helper.make_node("Concat", [f"{name}_f" for name in outputs], ["y"], "join", axis=1))
    sizes: list[int | str] = ["N", steps, INPUTS] if first else [steps, "N", INPUTS]
    inside = [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)]
    if not first:
        nodes.insert(0, helper.make_node("Transpose", ["given"], ["x"], "time first", perm=[1, 0, 2]))
        inside = [helper.make_tensor_value_info("given", TensorProto.FLOAT, ["N", steps, INPUTS])]
    stored = [numpy_helper.from_array(a, name) for name, a in given.items()]
    graph = helper.make_graph(nodes, "g", inside, [onnx.ValueInfoProto(name="y")], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def weights(op: str, ways: int, *others: str) -> dict[str, Array]:
    rng, rows = np.random.default_rng(3), GATES[op] * SIZE
    sizes = {"W": (ways, rows, INPUTS), "R": (ways, rows, SIZE), "B": (ways, 2 * rows), "P": (ways, 3 * SIZE)}
    return {name: (rng.standard_normal(sizes[name]) * 0.6).astype(np.float32) for name in ("W", "R", *others)}


def states(names: str, ways: int, batch: int, *, batch_first: bool) -> dict[str, Array]:
    shape = (batch, ways, SIZE) if batch_first else (ways, batch, SIZE)
    rng = np.random.default_rng(4)
    return {name: rng.standard_normal(shape).astype(np.float32) for name in names}


FORMS: list[tuple[str, tuple[str, ...], str, dict[str, Any]]] = [
    ("LSTM", (), "", {}),
    ("LSTM", ("B",), "", {"direction": "reverse"}),
    ("LSTM", ("B", "P"), "hc", {"direction": "bidirectional"}),
    ("LSTM", ("B", "P"), "", {}),
    ("LSTM", ("B",), "c", {"clip": 0.7}),
    ("LSTM", ("B",), "hc", {"input_forget": 1}),
    ("LSTM", ("B",), "hc", {"layout": 1, "direction": "bidirectional"}),
    ("LSTM", ("B",), "h", {"activations": ["HardSigmoid", "Softsign", "Relu"]}),
    ("GRU", (), "", {}),
    ("GRU", ("B",), "h", {"direction": "bidirectional"}),
    ("GRU", ("B",), "", {"linear_before_reset": 1}),
    ("GRU", ("B",), "h", {"linear_before_reset": 1, "direction": "reverse"}),
    ("GRU", ("B",), "h", {"layout": 1, "linear_before_reset": 1}),
    ("GRU", ("B",), "h", {"clip": 0.5, "activations": ["hardsigmoid", "tanh"]}),
    ("RNN", ("B",), "h", {"direction": "bidirectional", "activations": ["Relu", "Tanh"]}),
    ("RNN", (), "", {"layout": 1, "activations": ["Softplus"]}),
]
BY_ONNX_RUNTIME = [form for form in FORMS if not form[3].get("layout")]
"""Layout 1 has no kernel there."""


def form_of(form: tuple[str, tuple[str, ...], str, dict[str, Any]]) -> tuple[str, dict[str, Array], dict[str, Any]]:
    op, others, first, attributes = form
    ways = 2 if attributes.get("direction") == "bidirectional" else 1
    return op, weights(op, ways, *others) | states(first, ways, 2, batch_first="layout" in attributes), attributes


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_attribute_differentiates_by_the_definition(form: Any) -> None:
    op, given, attributes = form_of(form)
    found = explained(node_model(op, given, **attributes), sequences(), target=STEPS * SIZE - 1)
    x = torch.from_numpy(sequences()).double().requires_grad_()
    inner = x if attributes.get("layout") else x.transpose(0, 1)
    spelled = {"hardsigmoid": "HardSigmoid", "tanh": "Tanh"}
    named = {**attributes, **(
        {"activations": [spelled.get(a, a) for a in attributes["activations"]]} if "activations" in attributes else {}
    )}  # fmt: skip
    results = recurrent(op, inner, {k: torch.from_numpy(v).double() for k, v in given.items()}, named)
    if not attributes.get("layout"):
        results = [r.movedim(-2, 0) for r in results]
    scores = torch.cat([r.flatten(1) for r in results], 1)
    assert_near(found["y"], scores.detach().numpy(), 1e-6)
    want = derivative(scores, x, np.full(2, STEPS * SIZE - 1))
    assert np.any(want)
    assert_near(found["attribution"], want, 1e-5)


@pytest.mark.parametrize("form", BY_ONNX_RUNTIME, ids=str)
def test_the_outputs_stay_those_of_the_runtime_s_own_kernel(form: Any) -> None:
    op, given, attributes = form_of(form)
    model = node_model(op, given, **attributes)
    assert_outputs_kept(explained(model, sequences()), run(model, sequences()), 1e-6)


def test_nodes_are_named_by_layer_direction_and_step_and_none_is_left() -> None:
    model, _ = canonical(node_model("LSTM", weights("LSTM", 2), direction="bidirectional"))
    assert "LSTM" not in operators(model)
    names = {n.name for n in model.graph.nodes}
    assert {"layer/forward/0/Gemm", "layer/reverse/3/Sigmoid"} <= names
    compiled = compile_model(node_model("LSTM", weights("LSTM", 2), direction="bidirectional"))
    assert any(n.name.startswith("onnxplain/layer/forward/0/Gemm/") for n in compiled.graph.node)


def test_lengths_that_are_all_of_the_sequence_change_nothing() -> None:
    given = weights("GRU", 1)
    plain = explained(node_model("GRU", given), sequences())
    told = explained(node_model("GRU", {**given, "lengths": np.full(2, STEPS, np.int32)}), sequences())
    np.testing.assert_array_equal(plain["attribution"], told["attribution"])


@pytest.mark.parametrize(("given", "how", "reason"), [
    ({}, {"steps": "S"}, "how long its sequences are is known only at run time.*\n  Export the model with a sequence"),
    ({"lengths": np.asarray([4, 2], np.int32)}, {}, "its sequences may differ in length.*\n  Export the model for"),
    ({}, {"activations": ["Elu", "Tanh", "Tanh"]}, "its activations are not among Sigmoid, Tanh"),
    ({}, {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [0.3]},
     "its activations are not among .*, or have parameters"),
])  # fmt: skip
def test_what_cannot_be_unrolled_is_refused_with_its_reason(
    given: dict[str, Array], how: dict[str, Any], reason: str
) -> None:
    model = node_model("LSTM", weights("LSTM", 1) | given, **how)
    with pytest.raises(UnsupportedOp, match=rf"gradient has no rule for 'LSTM' \(node 'layer'\): {reason}"):
        compile_model(model)


W = weights("LSTM", 1, "B", "P")
BROKEN: list[tuple[dict[str, Array], dict[str, Any], str]] = [
    (W, {"direction": "sideways"}, "it lacks a direction"),
    (W, {"direction": "bidirectional"}, r"'W' has the sizes \[1, 20, 3\] and not \[2, 20, 3\]"),
    (W | {"W": W["W"][:, :, :2]}, {}, r"'W' has the sizes \[1, 20, 2\] and not \[1, 20, 3\]"),
    (W | {"R": W["R"][:, :19]}, {}, r"'R' has the sizes \[1, 19, 5\] and not \[1, 20, 5\]"),
    (W | {"B": W["B"][:, :1]}, {}, r"'B' has the sizes \[1, 1\] and not \[1, 40\]"),
    (W | {"P": W["P"][0]}, {}, r"'P' has the sizes \[15\] and not \[1, 15\]"),
    (W, {"activations": ["Tanh"]}, "it names 1 activations and not 3"),
    (W | {"h": np.ones(5, np.float32)}, {}, "its first state has not three axes"),
]


@pytest.mark.parametrize(("given", "how", "reason"), BROKEN, ids=[reason for _, _, reason in BROKEN])
def test_what_onnx_s_checker_overlooks_is_no_traceback(given: dict[str, Array], how: Any, reason: str) -> None:
    model = node_model("LSTM", given, **how)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    with pytest.raises(OnnxplainError, match=rf"{reason}.*\n  The model is broken: export it again"):
        compile_model(model)


def test_weights_that_are_computed_at_run_time_are_refused() -> None:
    model = node_model("RNN", weights("RNN", 1))
    model.graph.input.append(helper.make_tensor_value_info("shift", TensorProto.FLOAT, [1]))
    model.graph.node.insert(0, helper.make_node("Add", ["W", "shift"], ["W+"]))
    layer = next(n for n in model.graph.node if n.op_type == "RNN")
    layer.input[1] = "W+"
    with pytest.raises(UnsupportedOp, match=r"its weights are computed at run time.\n  Export the model with weights"):
        compile_model(model, input="given")


# What methods of relevance make of it


def test_relevance_goes_to_the_signals_of_an_lstm_and_to_no_gate() -> None:
    """Arras et al. 2017: the gates take nothing; sums and layers share by contribution."""
    given = weights("LSTM", 1, "B")
    found = explained(node_model("LSTM", given), sequences(), "lrp-eps", target=STEPS * SIZE - 1, epsilon=1e-9)
    for sample, have in zip(sequences(), found["attribution"], strict=True):
        np.testing.assert_allclose(have, plain_relevance(sample.astype(np.float64), given), rtol=2e-3, atol=1e-6)


def plain_relevance(x: Array, given: dict[str, Array]) -> Array:
    """Relevance of the last element of the last step's output, one number at a time."""
    w, r, b = (given[key][0].astype(np.float64) for key in "WRB")
    h, c = [np.zeros(SIZE)], [np.zeros(SIZE)]
    kept = []
    for row in x:
        pre = w @ row + r @ h[-1] + b[: len(w)] + b[len(w) :]
        i, o, f = 1 / (1 + np.exp(-pre[: 3 * SIZE].reshape(3, SIZE)))
        z = pre[3 * SIZE :]
        kept.append((i, f, z))
        c.append(f * c[-1] + i * np.tanh(z))
        h.append(o * np.tanh(c[-1]))
    of_h, of_c, found = np.zeros(SIZE), np.zeros(SIZE), np.zeros_like(x)
    of_h[-1] = h[-1][-1]
    for t in reversed(range(len(x))):
        i, f, z = kept[t]
        of_c = of_c + of_h
        of_z = of_c * i * np.tanh(z) / c[t + 1]
        of_c = of_c * f * c[t] / c[t + 1]
        found[t] = x[t] * (w[3 * SIZE :].T @ (of_z / z))
        of_h = h[t] * (r[3 * SIZE :].T @ (of_z / z))
    return found


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("method", ["deeplift-rescale", "integrated-gradients"])
def test_methods_that_promise_a_sum_keep_it(op: str, method: str) -> None:
    found = explained(node_model(op, weights(op, 1, "B")), sequences(), method)
    assert np.abs(found["residual"]).max() <= 1e-5 * max(1, np.abs(found["explained_score"]).max())


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("method", ["lrp-epsilon-plus", "lrp-gamma", "guided-backprop", "smoothgrad", "deeplift"])
def test_every_other_method_runs(op: str, method: str) -> None:
    found = explained(node_model(op, weights(op, 1, "B")), sequences(), method)
    assert np.isfinite(found["attribution"]).all()
    assert np.any(found["attribution"])


@pytest.mark.parametrize(("outputs", "read"), [(["", "end"], "end"), (["", "", "cell"], "cell")])
def test_outputs_may_be_left_out(outputs: list[str], read: str) -> None:
    given = weights("LSTM", 1)
    model = node_model("LSTM", given)
    graph = model.graph
    layer = next(n for n in graph.node if n.op_type == "LSTM")
    del layer.output[:]
    layer.output.extend(outputs)
    kept = [n for n in graph.node if n is layer or n.name == "time first"]
    nodes = [*kept, helper.make_node("Squeeze", [read, "first"], ["y"], "squeeze")]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.append(numpy_helper.from_array(np.asarray([0]), "first"))
    found = explained(model, sequences(), target=1)
    x = torch.from_numpy(sequences()).double().requires_grad_()
    tensors = {k: torch.from_numpy(v).double() for k, v in given.items()}
    scores = recurrent("LSTM", x.transpose(0, 1), tensors, {})[len(outputs) - 1][0]
    assert_near(found["y"], scores.detach().numpy(), 1e-6)
    assert_near(found["attribution"], derivative(scores, x, np.ones(2, np.int64)), 1e-5)
