"""Weights for which rounding flips no ReLU and no max-pool on given pictures.

In a deep network with random weights, of millions of ReLUs a handful stands so close to zero that float32 puts them on
the other side, and one flip in a small late layer moves the whole gradient by a hundredth: torch's own float32
gradient of ResNet-50 is that far from its float64 one. To see anything finer, the weights are moved a little, layer by
layer, in float64: every channel's bias to the middle of a gap between the values around zero, and the filters of
channels that tie in a max-pool by a hundredth.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from onnx import ModelProto, NodeProto, numpy_helper
from torch import Tensor
from torch.nn import functional as F

from tests.catalogue import Floats, with_batch
from tests.oracle import Oracle

REACH = 0.02
"""Standard deviations by which a bias may move; more in channels of few values, where gaps are wide."""

TIED = 0.1
"""A channel's closest tie, over the distance that it would have by chance, below which its filter is changed."""


def apart(model: ModelProto, pictures: Floats) -> ModelProto:
    """The model with weights moved so that no ReLU stands near zero, and no pool's window ties, on these pictures."""
    oracle = Oracle(with_batch(model, len(pictures)))
    mover = _Mover(oracle)
    with torch.no_grad():
        values = oracle.start({oracle.inputs[0]: torch.from_numpy(pictures)})
        for k in range(len(oracle.nodes)):
            mover.step(k, values)
    result = ModelProto()
    result.CopyFrom(model)
    for weight in result.graph.initializer:
        if weight.name in mover.moved:
            weight.CopyFrom(numpy_helper.from_array(values[weight.name].numpy().astype(np.float32), weight.name))
    return result


class _Mover:
    def __init__(self, oracle: Oracle) -> None:
        self.oracle, self.nodes = oracle, oracle.nodes
        self.makers = {name: k for k, node in enumerate(self.nodes) for name in node.output}
        self.uses = Counter(name for node in self.nodes for name in node.input)
        self.rectified = {node.input[0] for node in self.nodes if node.op_type == "Relu"}
        self.moved: set[str] = set()
        self.rng = torch.Generator().manual_seed(0)

    def step(self, k: int, values: dict[str, Tensor], attempts: int = 12) -> None:
        """Run node k, moving the weights behind it where they need it."""
        node = self.nodes[k]
        if node.op_type == "MaxPool" and attempts:
            tied = ties(node, values[node.input[0]])
            if tied:
                first = min(self._change_filter(node.input[0], c, values) for c in tied)
                for again in range(first, k):
                    self.step(again, values, attempts=0)
                self.step(k, values, attempts - 1)
                return
        self.oracle.step(k, values)
        bias = self._bias(node.output[0]) if node.output[0] in self.rectified else None
        if bias is not None:
            z, old = values[node.output[0]], values[bias]
            new = (old.flatten() - nearest_gaps(z)).float().double().reshape(old.shape)
            values[node.output[0]] = z + (new - old).reshape(-1, *[1] * (z.dim() - 2))
            values[bias] = new
            self.moved.add(bias)

    def _bias(self, tensor: str) -> str | None:
        """The stored vector that is added, channel by channel, to what becomes the tensor and nothing else."""
        node = self._maker(tensor)
        if node is None:
            return None
        if node.op_type in ("Conv", "Gemm", "BatchNormalization"):
            return node.input[2] if len(node.input) > 2 and self.uses[node.input[2]] == 1 else None
        if node.op_type not in ("Add", "Sum"):
            return None
        found = [self._stored(name) or (self._bias(name) if self.uses[name] == 1 else None) for name in node.input]
        return next((name for name in found if name), None)

    def _change_filter(self, tensor: str, channel: int, values: dict[str, Tensor]) -> int:
        """Change the filter that makes one channel of a tensor. Returns: the convolution's place in the order."""
        node = self._maker(tensor)
        assert node is not None, tensor
        if node.op_type == "Conv":
            weight = values[node.input[1]]
            noise = torch.randn(weight[channel].shape, generator=self.rng, dtype=weight.dtype)
            weight[channel] = (weight[channel] * (1 + 0.01 * noise)).float().double()
            self.moved.add(node.input[1])
            return self.makers[tensor]
        if node.op_type == "Concat":
            for name in node.input:
                if channel < values[name].shape[1]:
                    return self._change_filter(name, channel, values)
                channel -= values[name].shape[1]
        signal = next(name for name in node.input if self._stored(name) is None)
        return self._change_filter(signal, channel, values)

    def _maker(self, tensor: str) -> NodeProto | None:
        return self.nodes[self.makers[tensor]] if tensor in self.makers else None

    def _stored(self, name: str) -> str | None:
        """The name of a stored tensor, or of the one that an Unsqueeze shapes."""
        node = self._maker(name)
        name = node.input[0] if node is not None and node.op_type == "Unsqueeze" else name
        return name if name in self.oracle.weights else None


def nearest_gaps(z: Tensor) -> Tensor:
    """For each channel of (N, C, ...), the middle of the widest gap between values near zero."""
    rows = z.transpose(0, 1).flatten(1).sort(1).values
    middles, widths = (rows[:, 1:] + rows[:, :-1]) / 2, rows.diff(dim=1)
    near = middles.abs() <= REACH * max(1, 1000 / rows.shape[1]) * rows.std(1, keepdim=True)
    widest = torch.where(near, widths, -1).argmax(1, keepdim=True)
    found = middles.gather(1, widest)[:, 0]
    return torch.where(near.any(1), found, 0)


def ties(node: NodeProto, x: Tensor) -> list[int]:
    """Channels in which a window's largest value is closer to the next than they should be by chance.

    Equal values are not meant: they stay equal in any precision, and the first wins.
    """
    attributes = {a.name: list(a.ints) for a in node.attribute}
    kernel, strides = attributes["kernel_shape"], attributes.get("strides", [1, 1])
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    padded = F.pad(x, (left, right + strides[1] - 1, top, bottom + strides[0] - 1), value=-torch.inf)
    n, c = x.shape[:2]
    windows = F.unfold(padded.reshape(n * c, 1, *padded.shape[2:]), kernel, stride=strides)
    best = windows.amax(1, keepdim=True)
    gap = (best[:, 0] - torch.where(windows < best, windows, -torch.inf).amax(1)).reshape(n, c, -1)
    scale = x.transpose(0, 1).flatten(1).std(1)
    return torch.nonzero(gap.amin((0, 2)) < TIED * scale / (n * gap.shape[2])).flatten().tolist()
