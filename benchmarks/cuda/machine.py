"""The machine that is measured: its card, its versions, and whether it has a card at all."""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import onnx

import onnxplain
from onnxplain.runtime.session import open_session, runtime

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results"


def file_stem(facts: Mapping[str, str]) -> str:
    """The card's name as results are filed under it."""
    return "".join(c if c.isalnum() else "-" for c in facts["card"]).strip("-")


def machine() -> dict[str, str]:
    """The card and the versions."""
    card, driver = "unknown card", ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout
        card, _, driver = (part.strip() for part in said.splitlines()[0].partition(","))
    return {
        "card": card,
        "driver": driver,
        "ONNX Runtime": runtime().__version__,
        "onnx": onnx.__version__,
        "Python": platform.python_version(),
        "onnxplain": onnxplain.__version__,
    }


def why_no_cuda() -> str:
    """Why there is no CUDA on this machine, or nothing."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    again = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "probe", [value], [again])
    probe = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    try:
        open_session(probe, "cuda")
    except onnxplain.ProviderUnavailable as error:
        return str(error)
    return ""


def matching(name: str, patterns: str) -> bool:
    """Whether a name is one of those asked for."""
    return any(fnmatchcase(name, pattern) for pattern in patterns.split(","))
