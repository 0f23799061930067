"""A model over 2 GB, its weights in a data file: compiled without ever being held in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.running import session

WIDTH = 23_500
"""Of a square matrix of float32: 2.2 GB."""

COMPILE = """
import resource, sys
import onnxplain
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
onnxplain.compile_file(sys.argv[1], sys.argv[2], "gradient", target=1)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """scores = relu(x W) V; W is zero but for its first rows, which the file system stores in little space."""
    with (tmp_path / "weights.bin").open("wb") as file:
        rows = np.random.default_rng(0).standard_normal((4, WIDTH)).astype(np.float32)
        file.write(rows.tobytes())
        file.truncate(4 * WIDTH * WIDTH)
    weight = TensorProto(name="W", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="weights.bin")
    head = np.random.default_rng(1).standard_normal((WIDTH, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["h"], "first"), helper.make_node("Relu", ["h"], ["r"], "relu"),
         helper.make_node("MatMul", ["r", "V"], ["scores"], "second")],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
        [weight, onnx.numpy_helper.from_array(head, "V")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (tmp_path / "large.onnx").write_bytes(model.SerializeToString())
    return tmp_path / "large.onnx"


@pytest.mark.slow
def test_a_model_over_two_gigabytes_compiles_in_little_memory_and_runs(large: Path) -> None:
    explained = large.with_name("explained.onnx")
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(large), str(explained)], capture_output=True, text=True, check=True
    )
    before, peak = (int(kilobytes) / 1e3 for kilobytes in done.stdout.split())
    print(f"compiling 2.2 GB took {peak - before:.0f} MB more than importing the package, {peak:.0f} MB in all")
    assert peak - before < 200
    data = explained.with_name("explained.onnx.data")
    assert data.stat().st_size < 1.01 * 4 * WIDTH * WIDTH
    onnx.checker.check_model(str(explained), full_check=True)
    x = np.zeros((1, WIDTH), np.float32)
    x[0, :4] = [1, -2, 3, 0.5]
    attribution = session(explained).run(["attribution"], {"x": x})[0]
    rows = np.fromfile(large.with_name("weights.bin"), np.float32, 4 * WIDTH).reshape(4, WIDTH).astype(np.float64)
    head = np.random.default_rng(1).standard_normal((WIDTH, 3)).astype(np.float32)[:, 1]
    expected = rows @ ((x[0, :4] @ rows > 0) * head)
    assert np.linalg.norm(attribution[0, :4] - expected) <= 1e-5 * np.linalg.norm(expected)
    assert not attribution[0, 4:].any()


@pytest.mark.slow
def test_a_proto_cannot_hold_it_and_says_what_can(large: Path) -> None:
    from onnxplain import OnnxplainError, compile_model

    with pytest.raises(OnnxplainError, match=r"exceeds 2 GB, which a ModelProto cannot hold.\n  Use compile_file"):
        compile_model(large, "gradient")
