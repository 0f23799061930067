"""The whole models at hand for parametrised tests: real trained ones, and public architectures with seeded weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.oracle import Oracle, input_names

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

Array = NDArray[Any]
Floats = NDArray[np.float32]
Images = Callable[[int, int], Floats]

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"

CIFAR_SCALES: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10_resnet2b": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar10_conv": ((0.485, 0.456, 0.406), (0.225, 0.225, 0.225)),
    "cifar10_vit": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}


@dataclass(frozen=True)
class Specimen:
    """A model and pictures for it.

    load: reads or makes the model anew at each call; nothing is kept, because some hold half a gigabyte.
    images: (n, seed) -> n pictures, float32, in the model's own layout and preprocessing.
    trained: whether its predictions mean anything; the light models' weights are random.
    heavy: takes seconds and gigabytes.
    missing: why it cannot be loaded here, or nothing.
    """

    name: str
    load: Callable[[], ModelProto]
    images: Images
    trained: bool
    heavy: bool = False
    missing: str = ""

    def __str__(self) -> str:
        return self.name


def parameters(specimens: Iterable[Specimen]) -> list[ParameterSet]:
    """For pytest.mark.parametrize: named, skipped with the reason where missing, marked slow where heavy."""

    def marks(s: Specimen) -> list[pytest.MarkDecorator]:
        absent = [pytest.mark.skip(reason=s.missing)] if s.missing else []
        return [*absent, pytest.mark.slow] if s.heavy else absent

    return [pytest.param(s, id=s.name, marks=marks(s)) for s in specimens]


# Pictures


def noise(n: int, seed: int, shape: tuple[int, int, int]) -> Floats:
    """Standard normal pictures (N, C, H, W): coarse blobs under grain, because deep nets average grain alone out."""
    rng = np.random.default_rng(seed)
    channels, height, width = shape
    side = -(-max(height, width) // 8)
    blobs = rng.standard_normal((n, channels, 8, 8), np.float32).repeat(side, 2).repeat(side, 3)
    grain = rng.standard_normal((n, *shape), np.float32)
    return np.float32(0.8) * blobs[:, :, :height, :width] + np.float32(0.6) * grain


def pixels(n: int, seed: int, shape: tuple[int, int, int]) -> Floats:
    """Noise as pixel values strictly between 0 and 1."""
    return np.asarray(1 / (1 + np.exp(-noise(n, seed, shape))), np.float32)


def chosen(n: int, seed: int, images: Array) -> Array:
    order = np.random.default_rng(seed).permutation(len(images))
    return images[np.resize(order, n)]


@cache
def stored(name: str, key: str) -> Array:
    with np.load(SHARED / "models" / name) as archive:
        return np.asarray(archive[key])


def cifar10(mean: tuple[float, ...], deviation: tuple[float, ...], n: int, seed: int) -> Floats:
    images = chosen(n, seed, stored("cifar10_images.npz", "images")) / 255
    return np.asarray((images - np.reshape(mean, (3, 1, 1))) / np.reshape(deviation, (3, 1, 1)), np.float32)


def mnist(n: int, seed: int) -> Floats:
    return chosen(n, seed, stored("mnist_zero_one.npz", "X_test")).reshape(n, 1, 28, 28).astype(np.float32)


def photographs(n: int, seed: int) -> Floats:
    """Square parts of the photographs, pixel / 255, (N, 96, 96, 3)."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    files = sorted((SHARED / "images").glob("*.jpg"))
    parts = []
    for k in range(n):
        with Image.open(files[k % len(files)]) as file:
            picture = file.convert("RGB")
        side = int(min(picture.size) * rng.uniform(0.7, 1))
        left, top = (int(rng.integers(length - side + 1)) for length in picture.size)
        parts.append(np.asarray(picture.resize((96, 96), box=(left, top, left + side, top + side)), np.float32) / 255)
    return np.asarray(np.stack(parts), np.float32)


def own_pictures(file: Path, n: int, seed: int) -> Floats:
    """What the project's own model was trained on, where its generator is at hand; otherwise noise."""
    graph = onnx.load(file).graph
    channels, height, width = (d.dim_value for d in graph.input[0].type.tensor_type.shape.dim[1:])
    shape = (channels, height, width)
    try:
        if shape == (1, 8, 8):
            digits = importlib.import_module("sklearn.datasets").load_digits().images
            return np.asarray(chosen(n, seed, digits)[:, None] / 16, np.float32)
        if shape == (3, 64, 64):
            stamped = range(6) if "hans" in file.stem else ()
            scenes = importlib.import_module("models.scenes").scenes(n, seed, stamped)
            return np.asarray(scenes.images / 255, np.float32)
    except ImportError:
        pass
    return pixels(n, seed, shape)


# The light models of the onnx package: whole architectures whose weights are one constant each


def light_model(file: Path, seed: int = 0) -> ModelProto:
    """The architecture with seeded random weights, stored as weights.

    Convolutions and Gemms: He-normal, which keeps a ReLU network's activations at one scale. Batch normalisation: the
    mean and variance that two pictures of noise really have there, as if trained, so that depth does not blow up
    the scale. As in every file of that age (IR version 3), the weights are listed among the graph's inputs too.
    """
    model = onnx.load(file)
    graph = model.graph
    shapes = {i.name: tuple(i.dims) for i in graph.initializer if i.data_type == TensorProto.FLOAT}
    sizes = {i.name: i for i in graph.initializer}
    fills = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    shapes |= {node.output[0]: tuple(numpy_helper.to_array(sizes[node.input[0]]).tolist()) for node in fills}
    kept = [node for node in graph.node if node.op_type != "ConstantOfShape"]

    rng = np.random.default_rng(seed)
    uses = {name: (node, k) for node in reversed(kept) for k, name in enumerate(node.input)}
    weights = {name: drawn(rng, shape, *role(name, uses)) for name, shape in shapes.items()}
    integers = [i for i in graph.initializer if i.data_type != TensorProto.FLOAT and i.name in uses]
    data = [i for i in graph.input if i.name not in sizes]
    listed = [helper.make_tensor_value_info(i.name, i.data_type, i.dims) for i in integers]
    listed += [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    for field, entries in (("node", kept), ("input", [*data, *listed]), ("initializer", integers)):
        graph.ClearField(field)
        getattr(graph, field).extend(entries)
    graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in weights.items())
    settle_batch_norms(model, noise(2, seed, (3, 224, 224)))
    return model


def role(name: str, uses: Mapping[str, tuple[NodeProto, int]]) -> tuple[NodeProto | None, int]:
    """The node that a weight serves, and as which operand; what only changes its shape is looked through."""
    node, operand = uses.get(name, (None, 0))
    shaper = node is not None and node.op_type in ("Unsqueeze", "Reshape") and operand == 0
    return role(node.output[0], uses) if node and shaper else (node, operand)


def drawn(rng: np.random.Generator, shape: tuple[int, ...], node: NodeProto | None, operand: int) -> Floats:
    kind = node.op_type if node else "unused"
    if node and kind in ("Conv", "Gemm") and operand == 1:
        # Gemm weights are all stored (outputs, inputs) here, some with leading axes of one
        fan_in = shape[-1] if kind == "Gemm" else int(np.prod(shape[1:]))
        return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan_in))
    if kind == "Mul" or (kind == "BatchNormalization" and operand == 1):
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    if kind == "BatchNormalization" and operand == 4:
        return np.ones(shape, np.float32)
    return rng.standard_normal(shape, np.float32) * np.float32(0.1 if node else 0)


def settle_batch_norms(model: ModelProto, pictures: Floats) -> None:
    """Set each batch normalisation's mean and variance to those of what reaches it, first to last."""
    if not any(node.op_type == "BatchNormalization" for node in model.graph.node):
        return
    oracle = Oracle(with_batch(model, len(pictures)), torch.float32)
    (name,) = oracle.inputs
    settled: dict[str, Floats] = {}
    with torch.no_grad():
        values = oracle.start({name: torch.from_numpy(pictures)})
        for k, node in enumerate(oracle.nodes):
            if node.op_type == "BatchNormalization":
                x, (mean, variance) = values[node.input[0]], node.input[3:5]
                values[mean], values[variance] = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0).clamp(min=1e-3)
                settled |= {n: values[n].numpy() for n in (mean, variance)}
            oracle.step(k, values)
    for weight in model.graph.initializer:
        if weight.name in settled:
            weight.CopyFrom(numpy_helper.from_array(settled[weight.name], weight.name))


# The batch


def with_batch(model: ModelProto, batch: int | str) -> ModelProto:
    """The same model for a fixed batch, or for any batch under a name.

    Where the batch is written into a Reshape's target, the target gets a 0 there: "as it was".
    """
    changed = ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    names = set(input_names(model))
    data = [i for i in graph.input if i.name in names]
    old = data[0].type.tensor_type.shape.dim[0].dim_value
    if old:
        free_reshapes(changed, old)
    del graph.value_info[:]
    for value in (*data, *graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        dim.Clear()
        if isinstance(batch, int):
            dim.dim_value = batch
        else:
            dim.dim_param = batch
    return changed


def free_reshapes(model: ModelProto, batch: int) -> None:
    """Rewrite every Reshape that states the batch: a constant target, leading with it as its operand's shape does."""
    graph = model.graph
    constants = {i.name: i for i in graph.initializer}
    constants |= {
        n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant" and len(n.attribute[0].t.dims)
    }
    shapes = known_shapes(model)
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[0] in constants or node.input[1] not in constants:
            continue
        target = numpy_helper.to_array(constants[node.input[1]]).copy()
        if shapes.get(node.input[0], [0])[0] != batch or target[0] != batch:
            continue
        target[0] = 0
        node.input[1] = f"{node.output[0]}_any_batch"
        graph.initializer.append(numpy_helper.from_array(target, node.input[1]))
        if model.ir_version < 4:
            graph.input.append(helper.make_tensor_value_info(node.input[1], TensorProto.INT64, target.shape))


def known_shapes(model: ModelProto) -> dict[str, list[int]]:
    """Shapes by inference, on a copy without the weights' values: they can be half a gigabyte."""
    bare = ModelProto(ir_version=3, opset_import=model.opset_import)
    graph = model.graph
    small = [i for i in graph.initializer if i.data_type == TensorProto.INT64]
    listed = {i.name: i for i in graph.input}
    listed |= {i.name: helper.make_tensor_value_info(i.name, i.data_type, i.dims) for i in graph.initializer}
    bare.graph.CopyFrom(
        helper.make_graph(list(graph.node), "bare", list(listed.values()), list(graph.output), initializer=small)
    )
    inferred = onnx.shape_inference.infer_shapes(bare).graph
    known = [*inferred.input, *inferred.value_info, *inferred.output]
    return {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in known}


# The specimens


def shared_specimens() -> list[Specimen]:
    images: dict[str, tuple[str, Images]] = {
        "mnist_cntk": ("models/mnist_zero_one.npz", mnist),
        "mnist_zero_one": ("models/mnist_zero_one.npz", mnist),
        "vww_96": ("images", photographs),
    }
    images |= {name: ("models/cifar10_images.npz", partial(cifar10, *scale)) for name, scale in CIFAR_SCALES.items()}
    found = []
    for name, (source, pictures) in images.items():
        file = SHARED / "models" / f"{name}.onnx"
        lacking = [p for p in (file, SHARED / source) if not p.exists()]
        missing = f"{lacking[0].name} is not in the folder {SHARED.name} beside the checkout" if lacking else ""
        found.append(Specimen(name, partial(onnx.load, file), pictures, trained=True, missing=missing))
    return found


def light_specimens() -> list[Specimen]:
    heavy = {"light_bvlc_alexnet", "light_vgg19", "light_zfnet512"}  # 240 to 570 MB of weights
    pictures = partial(noise, shape=(3, 224, 224))
    files = sorted(LIGHT.glob("*.onnx"))
    return [Specimen(f.stem, partial(light_model, f), pictures, trained=False, heavy=f.stem in heavy) for f in files]


def own_specimens() -> list[Specimen]:
    files = sorted([*REPOSITORY.glob("models/*.onnx"), *REPOSITORY.glob("models/*/*.onnx")])
    return [Specimen(f.stem, partial(onnx.load, f), partial(own_pictures, f), trained=True) for f in files]


SHARED_SPECIMENS = shared_specimens()
LIGHT_SPECIMENS = light_specimens()
OWN_SPECIMENS = own_specimens()
SPECIMENS = [*SHARED_SPECIMENS, *LIGHT_SPECIMENS, *OWN_SPECIMENS]
