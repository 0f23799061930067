"""Batch norm folded into the layer with weights before or behind it, found by data flow."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.errors import UsageError
from onnxplain.ir.model import Model
from onnxplain.ir.weights import Array
from onnxplain.passes.base import Pass, Refusal, Report

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SCALINGS = ("BatchNormalization", "Mul", "Div", "Add", "Sub")


@dataclass(frozen=True)
class ChannelAffine:
    """y = scale x + shift, one number of each for every channel (or one for all)."""

    scale: Array
    shift: Array


@dataclass(frozen=True)
class FoldBatchNorm(Pass[Model]):
    """A layer and the batch norm at its side become one layer.

    apart:  names of nodes and tensors, and patterns, that are asked for: what they hold must still be there.
    needed: a method that must have all folded.

    Behind a layer:     w' = w k,  b' = (b - mean) k + beta,  k = gamma / sqrt(variance + epsilon).
    In front of one:    w' = w k along the input channels,  b' = b + w (beta - mean k).
    What can be folded backward is, before anything is folded forward.
    Multiplications and additions of one constant for each channel are folded alike. In front of a convolution whose
    padding would see the shift, the shift becomes a constant map that is added behind, exact at the border.
    """

    apart: frozenset[str] = frozenset()
    needed: str = ""

    def run(self, model: Model) -> Report:
        changed, alone = 0, []
        for node in list(model.graph.nodes):
            affine = channel_affine(model, node)
            if affine is None:
                continue
            declined = self._asked_for(node) or _fold_backward(model, node, affine)
            if declined is None:
                changed += 1
            elif node.op == "BatchNormalization":
                alone.append((node, declined))
        # Only then: what a norm leaves behind its layer would come between that layer and the next norm; and what
        # scales a norm that stands alone has joined it.
        refusals = []
        for node, behind in alone:
            affine = channel_affine(model, node)
            assert affine is not None, "a norm that was merged with is one"
            ahead = self._asked_for(node) or _fold_forward(model, node, affine)
            if ahead is None:
                changed += 1
            else:
                refusals.append(Refusal(node.name, f"{behind}; {ahead}"))
        model.graph.nodes[:] = [node for node in model.graph.nodes if node.outputs]
        return Report(changed, tuple(refusals))

    def _asked_for(self, node: gs.Node) -> str | None:
        """Why a node stays as it is: it, or what it scales, is one of those that are asked for."""
        makers = [maker for t in node.inputs for maker in t.inputs]
        names = {each.name for each in (node, *makers, *node.outputs, *(t for m in makers for t in m.outputs))}
        found = sorted(name for name in names if any(fnmatchcase(name, pattern) for pattern in self.apart))
        if found and self.needed:
            raise UsageError(
                f"layer {found[0]!r} has a scale at its side that {self.needed} folds into it, and then is no layer by "
                "itself.\n  Compile the two methods one by one."
            )
        return f"{found[0]!r} is asked for" if found else None


def channel_affine(model: Model, node: gs.Node) -> ChannelAffine | None:
    """The node as a scale and a shift for each channel (axis 1 of its operand), None if it is no such thing."""
    if node.op not in _SCALINGS or node.domain:
        return None
    if node.op == "BatchNormalization":
        if node.attrs.get("training_mode", 0) or not all(isinstance(t, gs.Constant) for t in node.inputs[1:5]):
            return None
        gamma, beta, mean, variance = (model.weights.array(t).astype(np.float64) for t in node.inputs[1:5])
        k = gamma / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
        return ChannelAffine(k, beta - mean * k)
    constants = [i for i, t in enumerate(node.inputs) if isinstance(t, gs.Constant)]
    if len(constants) != 1 or (node.op in ("Div", "Sub") and constants != [1]):
        return None
    other = node.inputs[1 - constants[0]]
    vector = _per_channel(model.weights.array(node.inputs[constants[0]]), other.shape)
    if vector is None:
        return None
    one, zero = np.ones_like(vector), np.zeros_like(vector)
    return {
        "Mul": lambda: ChannelAffine(vector, zero),
        "Div": lambda: ChannelAffine(1 / vector, zero),
        "Add": lambda: ChannelAffine(one, vector),
        "Sub": lambda: ChannelAffine(one, -vector),
    }[node.op]()


def _per_channel(values: Array, shape: list[int | str | None] | None) -> Array | None:
    """A constant operand as a vector over axis 1 of the other operand, None if it varies along another axis."""
    if shape is None or not isinstance(shape[1] if len(shape) > 1 else None, int) or values.ndim > len(shape):
        return None
    if not np.issubdtype(values.dtype, np.floating):
        return None
    sizes = [1] * (len(shape) - values.ndim) + list(values.shape)
    if any(size != 1 for axis, size in enumerate(sizes) if axis != 1) or sizes[1] not in (1, shape[1]):
        return None
    return np.broadcast_to(values.astype(np.float64).reshape(-1), (int(shape[1] or 0),)).copy()


def _fold_backward(model: Model, node: gs.Node, affine: ChannelAffine) -> str | None:
    """Into the layer whose output the node scales. Returns: why not, or None when it is done."""
    signal = next(t for t in node.inputs if not isinstance(t, gs.Constant))
    layer = signal.inputs[0] if signal.inputs else None
    if layer is None or layer.op not in (*_LAYERS, "BatchNormalization") or not _has_weights(layer):
        return "no layer with constant weights in front of it"
    if len(signal.outputs) > 1 or any(t.name == signal.name for t in model.graph.outputs):
        return f"the output of {layer.name!r} is read elsewhere too"
    if layer.op == "BatchNormalization":
        return _merge(model, node, layer, affine)
    w = model.weights.array(layer.inputs[1])
    axis = _output_axis(layer, w.ndim)
    if axis is None or (layer.op == "MatMul" and (w.ndim != 2 or len(signal.shape or ()) != 2)):
        return f"{layer.op} {layer.name!r} has no output channels on axis 1"
    channels = _channels(layer, w)
    scale, shift = (np.broadcast_to(v, (channels,)) for v in (affine.scale, affine.shift))
    b = _bias(model, layer, channels)
    if b is None:
        return f"the bias of {layer.name!r} is no vector over its channels"
    _set_weights(model, layer, _scaled_outputs(layer, w, axis, scale), b * scale + shift, w.dtype)
    _bypass(node, layer)
    return None


def _merge(model: Model, node: gs.Node, norm: gs.Node, affine: ChannelAffine) -> str | None:
    """A scaling behind a batch norm that stands alone joins it, so that one rule sees both."""
    for index, role, shift in ((1, "scale", 0.0), (2, "shift", affine.shift)):
        before = model.weights.array(norm.inputs[index])
        merged = (before * affine.scale + shift).astype(before.dtype)
        norm.inputs[index] = gs.Constant(model.fresh(f"{node.outputs[0].name}/merged {role}"), merged)
    _bypass(node, norm)
    return None


def _fold_forward(model: Model, node: gs.Node, affine: ChannelAffine) -> str | None:
    """Into the layer that reads the batch norm's output. Returns: why not, or None when it is done."""
    output = node.outputs[0]
    layer = output.outputs[0] if len(output.outputs) == 1 else None
    if layer is None or layer.op not in _LAYERS or not _has_weights(layer) or layer.inputs[0] is not output:
        return "no layer with constant weights alone behind it"
    if any(t.name == output.name for t in model.graph.outputs):
        return "its output is one of the model's"
    if not any(each is layer for each in model.graph.nodes):
        return f"the {layer.op} that reads it is in a branch"
    w, shift = model.weights.array(layer.inputs[1]), affine.shift
    if layer.attrs.get("transA", 0) or (layer.op == "MatMul" and (w.ndim != 2 or len(output.shape or ()) != 2)):
        return f"{layer.op} {layer.name!r} has no input channels on axis 1"
    # Zeros around the picture, or between its elements, see no shift: what becomes of it differs from place to place.
    uneven = np.any(shift) and (
        layer.op == "ConvTranspose" or (layer.op == "Conv" and any(layer.attrs.get("pads", [])))
    )
    spatial = [d for d in list(node.inputs[0].shape or ())[2:] if isinstance(d, int)]
    if layer.attrs.get("auto_pad", "NOTSET") != "NOTSET" or (uneven and len(spatial) < w.ndim - 2):
        return f"the padding of {layer.name!r} depends on sizes known only at run time"
    b = _bias(model, layer, _channels(layer, w))
    if b is None:
        return f"the bias of {layer.name!r} is no vector over its channels"
    if uneven:
        _add_shift_map(model, layer, shift, spatial)
        shift = np.zeros_like(shift)
    if np.any(shift):
        others = tuple(a for a in range(w.ndim) if a != _output_axis(layer, w.ndim))
        b = b + _of_inputs(layer, w, shift).sum(axis=others) * layer.attrs.get("alpha", 1.0)
    _set_weights(model, layer, _of_inputs(layer, w, affine.scale), b, w.dtype)
    layer.inputs[0] = node.inputs[0]
    node.outputs.clear()
    node.inputs.clear()
    return None


def _of_inputs(layer: gs.Node, w: Array, v: Array) -> Array:
    """The weights, each times the number of its input channel."""
    if layer.op == "Conv":
        outputs, inputs = w.shape[:2]
        v = v.reshape(-1, 1, inputs).repeat(outputs * inputs // len(v), axis=1).reshape(outputs, inputs)
    elif not layer.attrs.get("transB", 0):  # the first axis is the input's
        v = v[:, None]
    return w * v[(..., *([None] * (w.ndim - 2)))]


def _add_shift_map(model: Model, layer: gs.Node, shift: Array, spatial: list[int]) -> None:
    """Behind the convolution, add what it makes of the constant shift with zeros around it."""
    dtype = layer.inputs[0].dtype
    image = np.broadcast_to(shift.reshape(1, -1, *([1] * len(spatial))), (1, len(shift), *spatial)).astype(dtype)
    output = layer.outputs[0]
    name = model.fresh(f"{layer.name}/shift")
    moved = gs.Variable(model.fresh(f"{layer.name}/without shift"), output.dtype, output.shape)
    seen = gs.Variable(name, output.dtype, [1, *list(output.shape)[1:]])
    constant = gs.Constant(model.fresh(f"{layer.name}/shift image"), image)
    attrs = dict(layer.attrs)
    layer.outputs[0] = moved
    behind = model.place_of(layer) + 1
    model.graph.nodes[behind:behind] = [
        gs.Node(layer.op, name, attrs, [constant, layer.inputs[1]], [seen]),
        gs.Node("Add", model.fresh(f"{layer.name}/add shift"), {}, [moved, seen], [output]),
    ]


def _has_weights(layer: gs.Node) -> bool:
    return all(isinstance(t, gs.Constant) or t.is_empty() for t in layer.inputs[1:])


def _output_axis(layer: gs.Node, rank: int) -> int | None:
    """The axis of w along which output channels lie (within a group, for ConvTranspose)."""
    if layer.op == "Gemm":
        return 0 if layer.attrs.get("transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}.get(layer.op)


def _channels(layer: gs.Node, w: Array) -> int:
    """How many output channels a layer has."""
    per_group = int(w.shape[_output_axis(layer, w.ndim) or 0])
    return per_group * int(layer.attrs.get("group", 1)) if layer.op == "ConvTranspose" else per_group


def _scaled_outputs(layer: gs.Node, w: Array, axis: int, scale: Array) -> Array:
    if layer.op == "ConvTranspose":
        group = int(layer.attrs.get("group", 1))
        rows = scale.reshape(group, 1, -1).repeat(w.shape[0] // group, axis=1).reshape(w.shape[0], -1)
        factor = rows.reshape(*rows.shape, *([1] * (w.ndim - 2)))
    else:
        factor = scale.reshape([-1 if a == axis else 1 for a in range(w.ndim)])
    scaled: Array = w * factor.astype(w.dtype)
    return scaled


def _bias(model: Model, layer: gs.Node, channels: int) -> Array | None:
    """One number for each output channel; None where it is a Gemm's and differs from row to row."""
    if len(layer.inputs) < 3 or layer.inputs[2].is_empty():
        return np.zeros(channels)
    b = model.weights.array(layer.inputs[2]).astype(np.float64) * layer.attrs.get("beta", 1.0)
    along = b.size == 1 or (b.size == channels and b.shape[-1] == channels)
    return np.broadcast_to(b.reshape(-1), (channels,)).copy() if along else None


def _set_weights(model: Model, layer: gs.Node, w: Array, b: Array, dtype: np.dtype[np.generic]) -> None:
    layer.inputs[1] = gs.Constant(model.fresh(f"{layer.outputs[0].name}/folded weight"), w.astype(dtype))
    bias = gs.Constant(model.fresh(f"{layer.outputs[0].name}/folded bias"), b.astype(dtype))
    if layer.op == "MatMul":
        layer.op = "Gemm"
    if layer.op == "Gemm":
        layer.attrs.pop("beta", None)
    if len(layer.inputs) > 2:
        layer.inputs[2] = bias
    else:
        layer.inputs.append(bias)


def _bypass(node: gs.Node, layer: gs.Node) -> None:
    """Let the layer make what the node made."""
    output = node.outputs[0]
    node.outputs.clear()
    node.inputs.clear()
    layer.outputs[0] = output
