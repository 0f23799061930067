"""Broken model files: small valid ones with bytes flipped or cut off, or with fields of the protobuf changed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import TensorProto, numpy_helper, parser

OUTSIDE = ("../outside/secret.bin", "../../outside/secret.bin", "{outside}/secret.bin", "link.bin", "..", "/", "")
"""Where external data must not be read from; `link.bin` is a link that leads there."""

NUMBERS = (0, 1, -1, 2, 3, 7, 16, 255, 1 << 20, 1 << 31, (1 << 63) - 1, -(1 << 63))
WORDS = (
    "",
    "x",
    "y",
    "t",
    "Relu",
    "Conv",
    "Loop",
    "NoSuchOp",
    "Identity",
    "ai.onnx.ml",
    "com.microsoft",
    "N",
    "\x00",
    "é",
)

CONVOLUTIONAL = """g (float[N,2,6,6] x) => (float[N,3] y) <float[3,2,3,3] w, float[3,3] v> {
    c = Conv<pads = [1,1,1,1]>(x, w) r = Relu(c) p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(r)
    a = GlobalAveragePool(p) f = Flatten(a) h = Gemm(f, v) y = Softmax(h) }"""
TOKENS = """g (float[2,3,4] x) => (float[2,4] y) <float[4,4] v> {
    q = MatMul(x, v) axes = Constant<value_ints = [1]>() s = Softmax(q) m = Mul(s, x)
    sh = Shape(m) r = Reshape(m, sh) t = Tanh(r) y = ReduceMean<keepdims = 0>(t, axes) }"""
BRANCHING = """g (float[N,4] x) => (float[N,4] y) <bool flag = {1}> {
    z = If(flag) <then_branch = a () => (float[N,4] p) { p = Exp(x) },
                  else_branch = b () => (float[N,4] q) { q = Neg(x) }>
    y = Add(z, x) }"""
FUNCTIONS = """<ir_version: 8, opset_import: ["": 17, "own": 1]>
    g (float[N,4] x) => (float[N,4] y) { h = own.Twice(x) y = Clip(h) }
    <domain: "own", opset_import: ["": 17]> Twice (a) => (b) { b = Add(a, a) }"""


def _net(text: str, opset: int) -> onnx.ModelProto:
    model = parser.parse_model(text if "ir_version" in text else f'<ir_version: 8, opset_import: ["": {opset}]> {text}')
    rng = np.random.default_rng(0)
    for weight in list(model.graph.value_info):
        shape = [d.dim_value for d in weight.type.tensor_type.shape.dim]
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, weight.name))
    return model


def _external(model: onnx.ModelProto) -> onnx.ModelProto:
    """The first weight lies in the file `weights.bin`."""
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    weight.external_data.add(key="offset", value="0")
    weight.external_data.add(key="length", value="216")
    return model


BASES: tuple[Callable[[], onnx.ModelProto], ...] = (
    lambda: _net(CONVOLUTIONAL, 17),
    lambda: _net(CONVOLUTIONAL, 11),
    lambda: _net(TOKENS, 20),
    lambda: _net(BRANCHING, 21),
    lambda: _net(FUNCTIONS, 17),
    lambda: _external(_net(CONVOLUTIONAL, 18)),
)


def furnish(folder: Path) -> Path:
    """A folder for models with the data file that some need, and beside it one with what none may read.

    Returns: the folder for models.
    """
    models, outside = folder / "models", folder / "outside"
    for each in (models, outside):
        each.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(1).standard_normal(54).astype(np.float32)
    (models / "weights.bin").write_bytes(data.tobytes())
    (outside / "secret.bin").write_bytes(bytes(4096))
    if not (models / "link.bin").exists():
        (models / "link.bin").symlink_to(outside / "secret.bin")
    return models


def mutant(seed: int, outside: Path) -> bytes:
    """A broken file, the same for the same seed."""
    rng = random.Random(seed)
    model = BASES[seed % len(BASES)]()
    kind = rng.choice(("bytes", "bytes", "cut", "fields", "fields", "fields", "locations"))
    if kind == "locations" and model.graph.initializer:
        relocate(rng, model, outside)
    elif kind in ("fields", "locations"):
        for _ in range(rng.randint(1, 4)):
            change(rng, rng.choice(list(messages(model))))
    raw = bytearray(model.SerializeToString())
    if kind == "bytes":
        for _ in range(rng.choice((1, 1, 2, 8, 40))):
            at = rng.randrange(len(raw))
            raw[at] = rng.choice((raw[at] ^ (1 << rng.randrange(8)), rng.randrange(256), 0, 255))
    elif kind == "cut":
        first = rng.randrange(len(raw))
        del raw[first : rng.choice((len(raw), first + rng.randint(1, 20)))]
    return bytes(raw)


def relocate(rng: random.Random, model: onnx.ModelProto, outside: Path) -> None:
    """Let a weight be read from somewhere else, or from beyond the end of its file."""
    weight = rng.choice(list(model.graph.initializer))
    weight.ClearField("raw_data")
    weight.ClearField("external_data")
    weight.data_location = TensorProto.EXTERNAL
    location = rng.choice((*OUTSIDE, "weights.bin", "nothing.bin", "./weights.bin", "a/../weights.bin"))
    weight.external_data.add(key="location", value=location.format(outside=outside))
    for key in ("offset", "length"):
        if rng.random() < 0.6:
            value = rng.choice(("0", "4", "-4", "216", "99999999999", "1e3", "", "٣"))
            weight.external_data.add(key=key, value=value)


def messages(message: Message) -> Iterator[Message]:
    """The message and all within it."""
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in value if isinstance(value, (list, tuple)) or hasattr(value, "add") else (value,):
                yield from messages(part)


def change(rng: random.Random, message: Message) -> None:
    """Clear a field, repeat or shuffle its parts, or put something else into it."""
    fields = [field for field, _ in message.ListFields()]
    if not fields:
        return
    field = rng.choice(fields)
    value: Any = getattr(message, field.name)
    if rng.random() < 0.15:
        message.ClearField(field.name)
    elif not hasattr(value, "extend") or isinstance(value, (str, bytes)):
        if field.type != field.TYPE_MESSAGE:
            with suppress(ValueError):  # no such number of that enumeration, or too large a one
                setattr(message, field.name, another(rng, value))
    elif field.type == field.TYPE_MESSAGE:
        _rearrange(rng, value)
    else:
        kept = list(value)
        if rng.random() < 0.5 and kept:
            kept[rng.randrange(len(kept))] = another(rng, kept[0])
        elif rng.random() < 0.5:
            kept += [another(rng, kept[0])] if kept else []
        else:
            kept = kept[: rng.randrange(len(kept) + 1)]
        before = list(value)
        message.ClearField(field.name)
        try:
            value.extend(kept)
        except ValueError:
            value.extend(before)


def _rearrange(rng: random.Random, parts: Any) -> None:
    at = rng.randrange(len(parts))
    how = rng.choice(("drop", "repeat", "swap"))
    if how == "drop":
        del parts[at]
    elif how == "repeat":
        parts.add().CopyFrom(parts[at])
    else:
        other = rng.randrange(len(parts))
        first, second = type(parts[at])(), type(parts[at])()
        first.CopyFrom(parts[at])
        second.CopyFrom(parts[other])
        parts[at].CopyFrom(second)
        parts[other].CopyFrom(first)


def another(rng: random.Random, value: Any) -> Any:
    """A value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        chosen = rng.choice((*NUMBERS, value + 1, value - 1, rng.randrange(30)))
        return chosen if abs(chosen) < 1 << 31 or abs(value) > 1 << 31 else rng.randrange(30)
    if isinstance(value, float):
        return rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    if isinstance(value, bytes):
        return value[: rng.randrange(len(value) + 1)]
    return rng.choice((*WORDS, value + "_"))
