"""Where ONNX Runtime's own partitioner puts the nodes of a graph, asked of the CUDA provider under stubs.

    pip install --no-deps --target /tmp/ortgpu onnxruntime-gpu==1.31.1
    python -m benchmarks.cuda.partitioner /tmp/ortgpu explained.onnx ...

Tells for each graph what is on the CPU and what is copied, and whether onnxplain.placement tells the same.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from benchmarks.cuda import stubs
from onnxplain.placement.lint import Placement, place

ASKING = """
import json, os, sys, tempfile
import onnxruntime
for line in sys.stdin:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = os.path.join(folder, "placed.onnx")
        session = onnxruntime.InferenceSession(
            line.strip(), options, providers=["CUDAExecutionProvider", "CPUExecutionProvider"]
        )
        import onnx
        graph = onnx.load(options.optimized_model_filepath, load_external_data=False).graph
    on_cpu = {
        node.name: node.op_type
        for part in session.get_provider_graph_assignment_info() if part.ep_name.startswith("CPU")
        for node in part.get_nodes()
    }
    copies = [(n.op_type, n.input[0]) for n in graph.node if n.op_type.startswith("Memcpy")]
    print(json.dumps({"on_cpu": on_cpu, "copies": copies}))
"""


@dataclass(frozen=True)
class Answer:
    """What the partitioner said: nodes on the CPU with their operators, and (direction, tensor) of each copy."""

    on_cpu: Mapping[str, str]
    copies: tuple[tuple[str, str], ...]


def ask(files: Iterable[Path], environment: dict[str, str]) -> list[Answer]:
    """The placement of each graph, as it is written: ONNX Runtime's own rewriting is off.

    environment: of `stubs.make`.
    """
    said = stubs.python(ASKING, environment, given="\n".join(str(file) for file in files))
    answers = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [Answer(a["on_cpu"], tuple((op, name) for op, name in a["copies"])) for a in answers]


def agree(answer: Answer, lint: Placement) -> bool:
    """Whether the lint puts the same nodes on the CPU, and copies the same tensors."""
    copied = {name.removesuffix("_CUDAExecutionProvider") for _, name in answer.copies}
    on_cpu = {*lint.shapes, *(fallback.node for fallback in lint.fallbacks)}
    return on_cpu == set(answer.on_cpu) and set(lint.copies) == copied


def main(arguments: Sequence[str]) -> int:
    """Ask. Returns: the exit status, 1 if the lint is wrong about a graph."""
    if len(arguments) < 2:
        print(__doc__)
        return 2
    files = [Path(name).resolve() for name in arguments[1:]]
    with tempfile.TemporaryDirectory() as folder:
        answers = ask(files, stubs.make(Path(arguments[0]).resolve(), Path(folder)))
    wrong = 0
    for file, answer in zip(files, answers, strict=True):
        right = agree(answer, place(onnx.load(file, load_external_data=False)))
        wrong += not right
        said = "" if right else "; THE LINT TELLS OTHERWISE"
        print(f"{file.name}: {len(answer.on_cpu)} nodes on the CPU, {len(answer.copies)} copies{said}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
