"""The networks behind the project's own models, in PyTorch. All take images scaled to 0..1 and return logits.

Between them they hold what explanation methods stumble on: convolutions with bias, a dense head, batch normalisation
that no exporter can fold away, residual sums, strided and depthwise convolutions, and a max-pool whose windows overlap.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DigitsNet(nn.Module):
    """A plain convolutional network with bias everywhere, for images (N, 1, 8, 8): logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 48, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(48 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(image))
        return logits


class Residual(nn.Module):
    """A residual block whose batch norms come before the convolutions: x + conv(relu(norm(conv(relu(norm(x)))))).

    The first norm follows a sum or a pooling, never a convolution, so that it stays a node of its own when exported.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.ReLU(),
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
        )
        same = stride == 1 and channels_in == channels_out
        self.skip = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.skip(x) + self.branch(x)
        return total


class SeparableResidual(nn.Module):
    """The same block with a depthwise 3x3 convolution and a 1x1 convolution in place of two full ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = x + self.branch(x)
        return total


class SceneNet(nn.Module):
    """A residual network for scenes (N, 3, 64, 64): logits (N, classes), the mean over a last map and one linear layer.

    The maps shrink by half in the pooling and by half in the first block, so the last ones are 16x16. With nothing but
    a mean between them and the linear layer, the classic class activation map applies.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
            Residual(width, 2 * width, stride=2),
            Residual(2 * width, 4 * width),
            SeparableResidual(4 * width),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))

    def head(self, features: Tensor) -> Tensor:
        """Logits (N, classes) from the last maps (N, channels, 16, 16)."""
        logits: Tensor = self.linear(self.pool(features).flatten(1))
        return logits

    def class_maps(self, features: Tensor, labels: Tensor) -> Tensor:
        """The class activation map of each sample's label, before any scaling: (N, 16, 16)."""
        return torch.einsum("nchw,nc->nhw", features, self.linear.weight[labels])
