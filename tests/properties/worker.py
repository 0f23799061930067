"""Compiles broken models, one for each line of standard input, and says what came of it on standard output.

A process of its own, so that a crash or a hang of what reads the file is seen and does not take the tests with it.
"""

from __future__ import annotations

import json
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxplain.compiler import compile_model
from onnxplain.errors import OnnxplainError
from tests.running import session

MEMORY = 6 << 30


def outcome(path: Path, forbidden: list[str]) -> str:
    """What the compiler makes of a file: "refused: ...", "compiled", or what is wrong."""
    forbidden.clear()
    try:
        compiled = compile_model(path)
    except OnnxplainError as refusal:
        text = str(refusal)
        if forbidden:
            return f"WRONG: it read {forbidden}"
        if not text.strip() or "Traceback" in text or len(text.splitlines()) > 12:
            return f"WRONG: an unclear message: {text!r}"
        return "refused: " + type(refusal).__name__
    except BaseException:
        return "WRONG: " + traceback.format_exc()
    return f"WRONG: it read {forbidden}" if forbidden else judged(path, compiled)


def judged(path: Path, compiled: onnx.ModelProto) -> str:
    """Whether a compiled model gives what the original gives, where that runs at all."""
    try:
        original = session(path)
        feeds = {i.name: _numbers(i) for i in original.get_inputs()}
        wanted = original.run(None, feeds)
    except Exception:
        return "compiled what does not run"
    declared = [o.shape for o in original.get_outputs()]
    if any(_contradicts(sizes, np.shape(given)) for sizes, given in zip(declared, wanted, strict=True)):
        return "compiled what declares wrong sizes"
    try:
        found = session(compiled).run([o.name for o in original.get_outputs()], feeds)
    except Exception as error:
        return f"WRONG: the original runs, the compiled graph does not: {error}"
    for a, b in zip(found, wanted, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if a.shape != b.shape or not np.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True):
            return "WRONG: an output of the original changed"
    return "compiled"


def _contradicts(declared: list[Any], shape: tuple[int, ...]) -> bool:
    """Whether a file's own declaration of an output is false, which ONNX Runtime only warns of."""
    if len(declared) != len(shape):
        return True
    return any(isinstance(want, int) and want != have for want, have in zip(declared, shape, strict=True))


def _numbers(given: Any) -> np.ndarray[Any, Any]:
    kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(bool)": bool}
    shape = [d if isinstance(d, int) else 2 for d in given.shape]
    return np.random.default_rng(0).standard_normal(shape).astype(kinds[given.type])


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    outside, opened = sys.argv[1], []  # type: tuple[str, list[str]]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            name = str(Path(arguments[0] if isinstance(arguments[0], str) else arguments[0].decode()).resolve())
            if name.startswith(outside):
                opened.append(name)

    sys.addaudithook(watch)
    for line in sys.stdin:
        print(json.dumps(outcome(Path(line.strip()), opened)), flush=True)


if __name__ == "__main__":
    main()
