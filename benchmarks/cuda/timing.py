"""How long a graph takes: its inputs and outputs stay on the device, node by node or replayed as a CUDA graph."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxplain.runtime.bound import Bound, node_by_node
from onnxplain.runtime.session import open_session

Array = NDArray[Any]

WARM_UP, REPEATS, SECONDS = 3, 100, 0.4
"""Runs before timing; the most runs timed; the time after which no more are."""

SIDE = {"cuda": 8192, "cpu": 512}
"""Of the matrices whose product gives the device's rate."""


def tf32(precision: str) -> bool:
    """Whether float32 operands may be rounded: in float16 too, where it is about what explains the model."""
    return precision != "float32"


@dataclass(frozen=True)
class Timed:
    """The median run of a session, with a CUDA graph or without, and what it returned."""

    ms: float
    graph: bool
    outputs: dict[str, Array]


def timings(
    model: onnx.ModelProto | Path, provider: str, precision: str,
    cuda: Mapping[str, Any] | None = None, *, graphs: bool = True,
) -> Iterator[Timed]:  # fmt: skip
    """Runs node by node, and then, on a card and unless not wanted, as a CUDA graph."""
    graphs = graphs and provider == "cuda"
    options = {**(cuda or {}), **({"enable_cuda_graph": True} if graphs else {})}
    session = open_session(model, provider, use_tf32=tf32(precision), cuda=options)
    bound = bound_to_numbers(session)
    for graph in (False, True) if graphs else (False,):
        chosen = None if graph else node_by_node()
        ms = median_ms(lambda chosen=chosen: bound.run(chosen))  # type: ignore[misc]
        yield Timed(ms, graph, {output.name: bound.get(output.name) for output in session.get_outputs()})


def bound_to_numbers(session: Any) -> Bound:
    """A session with seeded numbers bound to its inputs; it has run once."""
    return Bound(session, {i.name: numbers(i) for i in session.get_inputs()})


def numbers(port: Any) -> Array:
    """Seeded numbers for an input of a session; those of a larger batch begin with those of a smaller one."""
    dtype = np.float16 if port.type == "tensor(float16)" else np.float32
    drawn: Array = np.random.default_rng(0).standard_normal(port.shape).astype(dtype)
    return drawn


def median_ms(run: Callable[[], None]) -> float:
    """The median of runs, which wait until they are done."""
    for _ in range(WARM_UP):
        run()
    took: list[float] = []
    while len(took) < REPEATS and (len(took) < 3 or sum(took) < SECONDS):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return 1e3 * median(took)


@cache
def rate(precision: str, provider: str) -> float:
    """Operations a second of a large product of matrices, an addition and a multiplication counted as two."""
    side, kind = SIDE[provider], TensorProto.FLOAT16 if precision == "float16" else TensorProto.FLOAT
    a, b, c = (helper.make_tensor_value_info(name, kind, [side, side]) for name in "abc")
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "rate", [a, b], [c])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (timed,) = timings(proto, provider, precision, graphs=False)
    return 2 * side**3 / (timed.ms / 1e3)
