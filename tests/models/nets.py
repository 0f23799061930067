"""Small torch networks of the forms that attribution libraries stumble on, and their export by both exporters."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from functools import cache

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn import functional as F

EXPORTERS = ("torchscript", "dynamo")


def exported(module: nn.Module, x: Tensor, exporter: str = "dynamo", *, dynamic: bool = True) -> ModelProto:
    """The module as ONNX; `dynamic` leaves the batch open."""
    file = io.BytesIO()
    kinds: dict[str, object] = {"input_names": ["x"], "output_names": ["y"]}
    if exporter == "dynamo":
        if dynamic:
            kinds |= {"dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},)}
            x = torch.cat([x, x]) if len(x) == 1 else x
    else:
        kinds |= {"dynamic_axes": {"x": {0: "N"}, "y": {0: "N"}} if dynamic else None}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (x,), file, dynamo=exporter == "dynamo", **kinds)  # type: ignore[arg-type]
    return onnx.load_from_string(file.getvalue())


@cache
def ready(kind: Callable[[], nn.Module], *shape: int, exporter: str = "dynamo", dynamic: bool = True) -> ModelProto:
    """A seeded network of a kind, exported for inputs (N, *shape); once, since exporting takes seconds."""
    return exported(seeded(kind()), torch.zeros(2, *shape), exporter, dynamic=dynamic)


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with the same random weights on every run, batch norms with a history."""
    rng = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for statistic, low, high in ((layer.running_mean, -0.5, 0.5), (layer.running_var, 0.5, 2)):
                assert statistic is not None
                statistic.copy_(torch.rand(statistic.shape, generator=rng) * (high - low) + low)
    with torch.no_grad():
        for weight in module.parameters():
            fan_in = weight[0].numel() if weight.dim() > 1 else 16
            weight.copy_(torch.randn(weight.shape, generator=rng) * (2 / fan_in) ** 0.5)
    return module.eval()


class Plain(nn.Module):
    """Every activation a module of its own, as hooks need it; a pool without overlap."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Conv2d(12, 12, 3, padding=1, groups=4),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(12 * 16, 16), nn.ReLU(), nn.Linear(16, classes))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(x))
        return scores


class Careless(nn.Module):
    """One ReLU used again and again, functional and in-place ones, and sums of a tensor with its own ReLU.

    `relu` stands for every one of them, so that a test can change what it passes back.
    """

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.linear = nn.Linear(8, classes)
        self.rectify = None

    def forward(self, x: Tensor) -> Tensor:
        if self.rectify is not None:
            return self._with(x)
        h = self.relu(self.first(x))
        h = self.relu(self.second(h))
        h = self.second(h).relu_()
        h = h - 0.3
        h = h + F.relu(h, inplace=False)
        h = self.relu(self.second(h) + h)
        scores: Tensor = self.linear(F.relu(h.mean((2, 3)) - 0.1, inplace=True))
        return scores

    def _with(self, x: Tensor) -> Tensor:
        """The same, every ReLU `rectify`."""
        relu = self.rectify
        assert relu is not None
        h = relu(self.first(x))
        h = relu(self.second(h))
        h = relu(self.second(h)) - 0.3
        h = h + relu(h)
        h = relu(self.second(h) + h)
        scores: Tensor = self.linear(relu(h.mean((2, 3)) - 0.1))
        return scores


class Overlapping(nn.Module):
    """Max-pools whose windows overlap, with padding and dilation, on pictures whose values often tie."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        pools = nn.MaxPool2d(3, 2, padding=1), nn.MaxPool2d(3, 1, padding=1), nn.MaxPool2d(2, 1, dilation=2)
        self.pools = nn.Sequential(*pools)
        self.conv = nn.Conv2d(2, 6, 3, padding=1)
        self.linear = nn.Linear(6 * 16, classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.linear(F.max_pool2d(torch.relu(self.conv(self.pools(x))), 3, 1, 1).flatten(1))
        return scores


class Clipped(nn.Module):
    """ReLU6 and other activations with two kinks, or none."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU6())
        self.rest = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Hardswish(), nn.Conv2d(8, 8, 1), nn.LeakyReLU(0.2), nn.SiLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.rest(self.stem(4 * x)))
        return scores


class Pooled(nn.Module):
    """Convolutions over one, two or three dimensions, a mean over all of them, and one linear layer."""

    def __init__(self, dimensions: int, channels: int = 2, classes: int = 4) -> None:
        super().__init__()
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        pool = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}[dimensions]
        norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dimensions]
        self.features = nn.Sequential(
            convolution(channels, 6, 3, padding=1),
            nn.ReLU(),
            pool(2),
            norm(6),
            convolution(6, 8, 3, padding=1),
            nn.ReLU(),
        )
        self.linear = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        scores: Tensor = self.linear(features.mean(tuple(range(2, features.dim()))))
        return scores
