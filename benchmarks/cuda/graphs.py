"""The graphs that are timed, made ahead by several processes, so that while the card is timed nothing else runs.

Each network is exported with a fixed batch, since CUDA graphs need fixed sizes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
from numpy.typing import NDArray

import onnxplain
from benchmarks.cuda.timing import numbers
from onnxplain.interface import ATTRIBUTION, Metadata
from onnxplain.ir.model import Model
from onnxplain.passes.base import Pass
from onnxplain.passes.optimise import LOWERING
from onnxplain.runtime.session import open_session

Array = NDArray[Any]

FORWARD = "forward"
"""In the place of a method: the network alone."""

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "lrp-epsilon-gamma-box": {"low": -3, "high": 3},
    "integrated-gradients": {"steps": 50, "chunk": 50},
}
"""Parameters other than the defaults. Integrated Gradients with 50 steps are a batch of 50 already."""

CHUNK_ON_CPU = 10
"""Steps at a time for the reference, which has less memory."""


@dataclass(frozen=True)
class Wanted:
    """A network or a method on it, for so many pictures; `half` in float16; `lowering` names one of those given."""

    network: str
    what: str
    batch: int
    half: bool = False
    lowering: str = ""

    @property
    def stem(self) -> str:
        """The name of its file."""
        parts = (self.network, self.what, str(self.batch), "half" if self.half else "single", self.lowering)
        return "-".join("".join(c if c.isalnum() else "-" for c in part) for part in parts)


@dataclass(frozen=True)
class Made:
    """A graph in a file, or why there is none.

    output:     the name of its attribution, empty for a forward pass
    arithmetic: additions and multiplications of its convolutions and products; None if a size is unknown
    expected:   (1, C, H, W), the attribution for the first picture in float32 on the CPU; None for a forward pass
    """

    path: Path
    output: str = ""
    arithmetic: float | None = None
    fault: str = ""
    expected: Array | None = None


Lowerings = Mapping[str, tuple[Pass[Model], ...]]


def made(wanted: Iterable[Wanted], folder: Path, lowerings: Lowerings | None = None) -> dict[Wanted, Made]:
    """Every graph, in files in a folder.

    lowerings: what takes the place of `--for cuda` where a lowering is named.
    """
    each = list(dict.fromkeys(wanted))
    networks = list(dict.fromkeys(one.network for one in each))
    references = list(dict.fromkeys((one.network, one.what) for one in each if one.what != FORWARD))
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        list(pool.map(partial(export, folder=folder), networks))
        expected = pool.map(partial(_reference, folder=folder), references)
        graphs = pool.map(partial(_made, folder=folder, lowerings=lowerings or {}), each)
        found = dict(zip(references, expected, strict=True))
        return {
            one: replace(graph, expected=found.get((one.network, one.what)))
            for one, graph in zip(each, graphs, strict=True)
        }


def export(network: str, folder: Path) -> None:
    """Write the network of benchmarks/networks.py for one picture as ONNX."""
    import torch

    from benchmarks.cuda.torch_peers import built

    torch.onnx.export(
        built(network), (torch.randn(1, 3, 224, 224),), folder / f"{network}.onnx", dynamo=False, opset_version=17,
        input_names=["image"], output_names=["logits"],
    )  # fmt: skip


def _made(one: Wanted, folder: Path, lowerings: Lowerings) -> Made:
    path = folder / f"{one.stem}.onnx"
    try:
        model = _for_batch(onnx.load(folder / f"{one.network}.onnx"), one.batch)
        if one.half:
            model = _half(model)
        if one.what != FORWARD:
            chosen = {**LOWERING, "cuda": lowerings.get(one.lowering, LOWERING["cuda"])}
            with patch("onnxplain.compiler.LOWERING", chosen):
                model = onnxplain.compile_model(model, one.what, runtime="cuda", **SETTINGS.get(one.what, {}))
        onnx.save(model, path)
        return Made(path, "" if one.what == FORWARD else _attribution(model), arithmetic(model))
    except Exception as fault:  # one graph that fails must not end the run
        return Made(path, fault=" ".join(str(fault).split()))


def _reference(asked: tuple[str, str], folder: Path) -> Array:
    network, method = asked
    settings = dict(SETTINGS.get(method, {}))
    if "chunk" in settings:
        settings["chunk"] = CHUNK_ON_CPU
    proto = onnxplain.compile_model(onnx.load(folder / f"{network}.onnx"), method, runtime="cpu", **settings)
    session = open_session(proto, "cpu", threads=1)
    (image,) = session.get_inputs()
    (found,) = session.run([_attribution(proto)], {image.name: numbers(image)})
    return np.asarray(found)


def _attribution(proto: onnx.ModelProto) -> str:
    """The name of a compiled graph's attribution."""
    metadata = Metadata.read({entry.key: entry.value for entry in proto.metadata_props})
    assert metadata is not None
    return metadata.outputs[ATTRIBUTION]


def _for_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """None of the networks here has its batch written into a node."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    return model


def _half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in float16, its input and output too."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted: onnx.ModelProto = convert_float_to_float16(model)
    return converted


def arithmetic(proto: onnx.ModelProto) -> float | None:
    """Additions and multiplications of a graph's convolutions and products; None if a size is unknown."""
    shapes = {t.name: list(t.dims) for t in proto.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[value.name] = [d.dim_value for d in value.type.tensor_type.shape.dim]
    total = 0.0
    for node in proto.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        x, w, y = (shapes.get(name, [0]) for name in (node.input[0], node.input[1], node.output[0]))
        if 0 in (*x, *w, *y):
            return None
        if node.op_type == "MatMul":
            each = math.prod(y) * x[-1]
        elif node.op_type == "Gemm":
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            each = math.prod(y) * x[0 if transposed else 1]
        else:
            # A convolution goes through all of w but its first axis for each element of its output; a transposed one
            # for each element of its input.
            each = math.prod(y if node.op_type == "Conv" else x) * math.prod(w[1:])
        total += 2.0 * each
    return total
