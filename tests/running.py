"""Compile a model and run what comes out, as the tests of whole graphs need it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto, ValueInfoProto, parser

from onnxplain.compiler import compile_model

Array = NDArray[Any]
Results = dict[str, Array]

KINKS = frozenset({"Relu", "LeakyRelu", "Clip", "Abs", "MaxPool"})


def net(text: str, opset: int = 20, ir_version: int = 10) -> ModelProto:
    """A model in ONNX's own textual form, its header left out."""
    return parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["": {opset}]> {text}')


def session(model: ModelProto | str | Path) -> ort.InferenceSession:
    """On the CPU, with one thread, since cores are shared."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    given = model.SerializeToString() if isinstance(model, ModelProto) else str(model)
    return ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def run(model: ModelProto | str | Path | ort.InferenceSession, feeds: Mapping[str, ArrayLike] | Array) -> Results:
    """Every output by name; a lone array goes to the first input."""
    opened = model if isinstance(model, ort.InferenceSession) else session(model)
    given = feeds if isinstance(feeds, Mapping) else {opened.get_inputs()[0].name: feeds}
    names = [o.name for o in opened.get_outputs()]
    results = opened.run(names, {name: np.asarray(value) for name, value in given.items()})
    return dict(zip(names, results, strict=True))


def explained(
    model: ModelProto, feeds: Mapping[str, ArrayLike] | Array, method: str = "gradient", **how: Any
) -> Results:
    """Compile and run."""
    return run(compile_model(model, method, **how), feeds)


def exposing(model: ModelProto, names: Iterable[str]) -> ModelProto:
    """The model with further tensors as outputs, taken from the same run."""
    shown = ModelProto()
    shown.CopyFrom(model)
    have = {o.name for o in model.graph.output}
    shown.graph.output.extend(ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in have)
    return shown


def kinks(model: ModelProto) -> list[str]:
    """Tensors whose values decide the derivative at a kink: the outputs of ReLUs, what goes into the other ones."""
    nodes = [n for n in model.graph.node if n.op_type in KINKS]
    return list(dict.fromkeys(n.output[0] if n.op_type == "Relu" else n.input[0] for n in nodes))


def relative_error(found: ArrayLike, expected: ArrayLike) -> float:
    """||found - expected|| / ||expected||, in float64, of the worst sample: the first axis is the batch."""
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if a.shape != b.shape:
        raise AssertionError(f"shape {a.shape}, and {b.shape} is expected")
    rows = [(x.ravel(), y.ravel()) for x, y in zip(np.atleast_1d(a), np.atleast_1d(b), strict=True)]
    return max(float(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1e-300)) for x, y in rows)


def assert_near(found: ArrayLike, expected: ArrayLike, tolerance: float, what: str = "") -> None:
    """A relative error within the tolerance, for every sample."""
    error = relative_error(found, expected)
    assert error <= tolerance, f"{what}: relative error {error:.2e}, allowed {tolerance:.0e}"


def assert_outputs_kept(returned: Mapping[str, Array], original: Mapping[str, Array], tolerance: float = 1e-5) -> None:
    """The model's own outputs as they were: to that much, or for outputs above one to that share of the largest."""
    for name, want in original.items():
        assert returned[name].shape == want.shape
        assert np.abs(returned[name] - want).max() <= tolerance * max(1, np.abs(want).max()), name


def operators(graph: onnx.GraphProto) -> set[tuple[str, str]]:
    """(domain, operator) of every node, those of bodies included."""
    found = set()
    for node in graph.node:
        found.add((node.domain, node.op_type))
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                found |= operators(attribute.g)
    return found


def shape_of(value: ValueInfoProto) -> list[int | str]:
    """Sizes as declared: numbers and names."""
    return [d.dim_value if d.HasField("dim_value") else d.dim_param for d in value.type.tensor_type.shape.dim]


def names_of(values: Sequence[ValueInfoProto]) -> list[str]:
    return [v.name for v in values]
