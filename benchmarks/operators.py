"""What single operators cost on ONNX Runtime's CPU kernels: what the lowering for CPU chooses by.

    python benchmarks/operators.py [--runs 30]

Each operator alone, on one activation of 256 x 56 x 56 seeded normal numbers; the kernel's own time, mean of the
runs, from the runtime's profiler. Writes docs/performance.md between its markers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.page import put  # noqa: E402
from onnxplain.runtime.profile import profile  # noqa: E402

SHAPE, HALVED = "1,256,56,56", "1,256,28,28"
REPEAT = 'coordinate_transformation_mode="asymmetric", mode="nearest", nearest_mode="floor"'

CASES: dict[str, str] = {
    "Relu": "y = Relu(a)",
    "HardSigmoid": "y = HardSigmoid(a)",
    "Clip": "y = Clip(a, zero, one)",
    "Add of a number": "y = Add(a, one)",
    "Add": "y = Add(a, b)",
    "Sum of three": "y = Sum(a, b, b)",
    "Mul": "y = Mul(a, b)",
    "Div": "y = Div(a, b)",
    "Max with a number": "y = Max(a, one)",
    "Min with a number": "y = Min(a, one)",
    "Abs": "y = Abs(a)",
    "Sign": "y = Sign(a)",
    "Greater and Cast": "c = Greater(a, zero) y = Cast<to=1>(c)",
    "Where between two numbers": "c = Less(a, zero) y = Where(c, zero, one)",
    "Where between a tensor and a number": "c = Less(a, zero) y = Where(c, a, one)",
    "Where between two tensors": "c = Less(a, zero) y = Where(c, a, b)",
    "convolution, depthwise 1x1, in blocks": "y = Conv<group=256>(a, ones)",
    "convolution, depthwise 3x3, in blocks": "y = Conv<group=256, pads=[1,1,1,1]>(a, nine)",
    "transposed convolution, depthwise 3x3, stride 2": "y = ConvTranspose<group=256, strides=[2,2], pads=[1,1,1,1], "
    "output_padding=[1,1]>(h, nine)",
    "Resize, each element twice along both axes": f"y = Resize<{REPEAT}>(h, , twice)",
    "DepthToSpace": "y = DepthToSpace<blocksize=2>(d)",
    "MaxPool 2x2, with indices": "p, y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)",
    "MaxPool 2x2": "y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)",
}


def model(body: str) -> onnx.ModelProto:
    """The operators of `body` on the tensors that they name."""
    kind = "int64" if body.startswith("p, y") else "float"
    graph = onnx.parser.parse_graph(f"""
        g (float[{SHAPE}] a, float[{SHAPE}] b, float[{HALVED}] h, float[1,1024,28,28] d) => ({kind}[] y)
        <float zero = {{0}}, float one = {{1}}, float[4] twice = {{1,1,2,2}}> {{ {body} }}
    """)
    for name, size in (("ones", 1), ("nine", 3)):
        weights = np.ones((256, 1, size, size), np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    del graph.output[0].type.tensor_type.shape.dim[:]
    graph.output[0].type.tensor_type.ClearField("shape")
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def microseconds(body: str, runs: int) -> tuple[float, float]:
    """Of the operators alone, and of the reorderings around them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "operators.onnx"
        onnx.save(model(body), path)
        nodes = profile(path, "cpu", batch=1, runs=runs, threads=2).nodes
    around = sum(node.milliseconds for node in nodes if node.operator.startswith("Reorder"))
    return 1e3 * (sum(node.milliseconds for node in nodes) - around), 1e3 * around


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    args = parser.parse_args()
    lines = ["| operator | microseconds | reorderings around it |", "|---|---|---|"]
    for name, body in CASES.items():
        own, around = microseconds(body, args.runs)
        lines.append(f"| {name} | {own:.0f} | {around:.0f} |" if around else f"| {name} | {own:.0f} | |")
        print(lines[-1], flush=True)
    put(ROOT / "docs/performance.md", "kernels", "\n".join(lines))


if __name__ == "__main__":
    main()
