"""What a graph promises that was compiled for a runtime, checked without that runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import onnx

from onnxplain.errors import UsageError, nearest
from onnxplain.placement.kernels import ONNXRUNTIME
from onnxplain.placement.lint import place
from onnxplain.placement.portable import foreign
from onnxplain.runtime.verify import Check

SHOWN = 5
"""Nodes that are named; of more it is said how many there are."""

CONTROL = frozenset({"Loop", "If", "Scan"})


def check_for(runtime: str, model: onnx.ModelProto) -> list[Check]:
    """The promises of `--for runtime` that can be told from the graph alone; none for "cpu".

    Raises: UsageError for a runtime that there is not.
    """
    if runtime not in _CHECKS:
        raise UsageError(f"there is no runtime {runtime!r}. {nearest(runtime, _CHECKS, kind='runtimes')}")
    return list(_CHECKS[runtime](model))


def _on_cuda(model: onnx.ModelProto) -> Iterator[Check]:
    found = place(model)
    elsewhere = [str(each) for each in found.fallbacks]
    yield Check(
        f"every node but arithmetic with shapes has a CUDA kernel in ONNX Runtime {ONNXRUNTIME}",
        _named(elsewhere) or f"{found.nodes} nodes, {len(found.shapes)} for shapes",
        not elsewhere,
    )
    yield Check("nothing is copied between the card and the CPU", _named(found.copies) or "no copies", not found.copies)
    control = [node.name for node in model.graph.node if node.op_type in CONTROL]
    yield Check("no control flow, which CUDA graphs refuse", _named(control) or "none", not control)


def _portable(model: onnx.ModelProto) -> Iterator[Check]:
    found = foreign(model)
    yield Check("only operators that every runtime has are added", _named(found) or "none other", not found)


def _nothing(model: onnx.ModelProto) -> Iterable[Check]:
    return ()


_CHECKS: Mapping[str, Callable[[onnx.ModelProto], Iterable[Check]]] = {
    "cuda": _on_cuda,
    "cpu": _nothing,
    "portable": _portable,
}


def _named(found: Sequence[str]) -> str:
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more
