"""What compiling costs: memory below one and a half times the model, and time linear in nodes."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

import onnxplain

COMPILE = """
import sys, time
import onnxplain, onnxplain.compiler

def peak():  # of this program alone: getrusage counts the one that started it
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith("VmHWM:"))

before, began = peak(), time.perf_counter()
files = onnxplain.compile_file(sys.argv[1], sys.argv[2], sys.argv[3], runtime=sys.argv[4])
print(time.perf_counter() - began, before, peak(), sum(file.stat().st_size for file in files))
"""


def transformer(path: Path, layers: int, width: int, tokens: int = 16) -> int:
    """A vision transformer's blocks on tokens, weights random, written as a file. Returns: its size."""
    rng = np.random.default_rng(0)
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []

    def add(op: str, inputs: list[str], **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [f"t{len(nodes)}"], f"{op}_{len(nodes)}", **attributes))
        return str(nodes[-1].output[0])

    def store(*shape: int) -> str:
        values = rng.standard_normal(shape, np.float32) * np.float32(0.5 / shape[0] ** 0.5)
        weights.append(onnx.numpy_helper.from_array(values, f"w{len(weights)}"))
        return str(weights[-1].name)

    def linear(x: str, size: int, out: int) -> str:
        return add("Add", [add("MatMul", [x, store(size, out)]), store(out)])

    x, scale = "x", store(1)
    for _ in range(layers):
        h = add("LayerNormalization", [x, store(width), store(width)])
        q, k, v = (linear(h, width, width) for _ in range(3))
        scores = add("Mul", [add("MatMul", [q, add("Transpose", [k], perm=[0, 2, 1])]), scale])
        attended = add("MatMul", [add("Softmax", [scores], axis=-1), v])
        x = add("Add", [x, linear(attended, width, width)])
        h = add("LayerNormalization", [x, store(width), store(width)])
        x = add("Add", [x, linear(add("Gelu", [linear(h, width, 4 * width)]), 4 * width, width)])
    pooled = add("ReduceMean", [x, "axes"], keepdims=0)
    logits = linear(pooled, width, 10)
    weights.append(helper.make_tensor("axes", TensorProto.INT64, [1], [1]))
    graph = helper.make_graph(
        nodes, "vit",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", tokens, width])],
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, ["N", 10])], weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path.stat().st_size


@dataclass(frozen=True)
class Cost:
    """Seconds; bytes of memory on top of the program's own; bytes of the file."""

    seconds: float
    memory: int
    written: int


def cost(model: Path, method: str, runtime: str = "portable") -> Cost:
    """What compiling takes, in a process of its own. Skips where the largest size of a process cannot be read."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the largest size of a process is read from /proc")
    command = [sys.executable, "-c", COMPILE, str(model), str(model.with_suffix(".explained.onnx")), method, runtime]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, before, peak, written = done.stdout.split()
    return Cost(float(seconds), (int(peak) - int(before)) * 1024, int(written))


@pytest.mark.parametrize("method", ["gradient", "lrp-epsilon-plus"])
def test_weights_are_not_held_in_memory(tmp_path: Path, method: str) -> None:
    size = transformer(tmp_path / "model.onnx", 4, 768)
    assert size > 100e6
    assert 0 < cost(tmp_path / "model.onnx", method).memory < 0.5 * size


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradient", "lrp-epsilon-plus"])
def test_a_model_of_the_size_of_vit_l(tmp_path: Path, method: str) -> None:
    size = transformer(tmp_path / "model.onnx", 24, 1024)
    assert size > 1.2e9
    found = cost(tmp_path / "model.onnx", method)
    print(f"{size / 1e9:.2f} GB: {found.seconds:.1f} s, {found.memory / size:.2f} times the model in memory")
    assert 0 < found.memory < 1.5 * size
    assert found.seconds < 10


def chain(length: int) -> ModelProto:
    """Sums and ReLUs, one behind the other."""
    nodes, x = [], "x"
    for i in range(length // 2):
        nodes.append(helper.make_node("Add", [x, "b"], [f"a{i}"], f"add{i}"))
        nodes.append(helper.make_node("Relu", [f"a{i}"], [f"r{i}"], f"relu{i}"))
        x = f"r{i}"
    nodes.append(helper.make_node("MatMul", [x, "w"], ["y"], "scores"))
    weights = [
        helper.make_tensor("b", TensorProto.FLOAT, [8], [0.1] * 8),
        helper.make_tensor("w", TensorProto.FLOAT, [8, 4], np.linspace(-1, 1, 32).tolist()),
    ]
    graph = helper.make_graph(
        nodes, "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def busy(length: int, method: str, runtime: str = "portable", **settings: Any) -> float:
    """Seconds of the processor, which other programs on the machine do not take.

    Python's garbage collector rests: its pauses grow with all that the test run holds, not with this chain.
    """
    model = chain(length)
    gc.collect()
    gc.disable()
    try:
        began = time.process_time()
        onnxplain.compile_model(model, method, runtime=runtime, **settings)
        return time.process_time() - began
    finally:
        gc.enable()


def calls(length: int, method: str) -> int:
    """Calls and returns of functions while a chain is compiled: the same at each run, whatever the machine does."""
    model, events = chain(length), itertools.count()
    sys.setprofile(lambda *_: next(events))
    try:
        onnxplain.compile_model(model, method)
    finally:
        sys.setprofile(None)
    return next(events)


def growth(few: int, method: str, runtime: str = "portable", runs: int = 3, **settings: Any) -> float:
    """How many times as long ten times the nodes take, measured side by side; the least disturbed of those runs."""
    busy(100, method, runtime, **settings)
    sides = ([busy(n, method, runtime, **settings) for n in (10 * few, few)] for _ in range(runs))
    return min(many / one for many, one in sides)


def test_calls_are_linear_in_nodes() -> None:
    calls(100, "gradient")
    assert calls(2000, "gradient") <= 10 * calls(200, "gradient")


def test_time_is_linear_in_nodes() -> None:
    """Anything quadratic would take a hundred times as long for ten times the nodes."""
    assert growth(500, "gradient") <= 15


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradient", "lrp-eps", "deeplift-rescale", "integrated-gradients"])
def test_time_is_linear_up_to_ten_thousand_nodes(method: str) -> None:
    assert growth(1000, method) <= 15
