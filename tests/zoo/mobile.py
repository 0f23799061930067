"""Networks made to be small: depthwise convolutions, inverted residuals, gates, shuffles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo.blocks import ConvNorm, Head, Residual, SqueezeExcite


def mobilenet_v1() -> nn.Module:
    def separable(inputs: int, outputs: int, stride: int) -> nn.Module:
        return nn.Sequential(ConvNorm(inputs, inputs, 3, stride, groups=inputs), ConvNorm(inputs, outputs, 1))

    return nn.Sequential(
        ConvNorm(3, 8, 3, 2), separable(8, 16, 1), separable(16, 24, 2), separable(24, 24, 1), Head(24)
    )


def inverted(
    inputs: int,
    outputs: int,
    stride: int = 1,
    expand: int = 3,
    kernel: int = 3,
    act: type[nn.Module] = nn.ReLU6,
    gate: nn.Module | None = None,
) -> nn.Module:
    """Widen, convolve channel by channel, narrow without activation; added to the input where shapes allow."""
    width = inputs * expand
    layers = [ConvNorm(inputs, width, 1, act=act), ConvNorm(width, width, kernel, stride, groups=width, act=act)]
    branch = nn.Sequential(*layers, *([] if gate is None else [gate]), ConvNorm(width, outputs, 1, act=None))
    return Residual(branch) if stride == 1 and inputs == outputs else branch


def mobilenet_v2() -> nn.Module:
    blocks = (inverted(8, 12, 2), inverted(12, 12), inverted(12, 16, 2))
    last = ConvNorm(16, 32, 1, act=nn.ReLU6)
    return nn.Sequential(ConvNorm(3, 8, 3, 2, act=nn.ReLU6), *blocks, last, Head(32, dropout=True))


def mobilenet_v3() -> nn.Module:
    """Hard swish, and squeeze-and-excitation with a hard sigmoid."""

    def gate(width: int) -> nn.Module:
        return SqueezeExcite(width, 8, nn.ReLU, nn.Hardsigmoid)

    blocks = (
        inverted(8, 12, 2, act=nn.ReLU, gate=gate(24)),
        inverted(12, 12, kernel=5, act=nn.Hardswish, gate=gate(36)),
        inverted(12, 16, 2, act=nn.Hardswish),
    )
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 32), nn.Hardswish(), nn.Dropout(), nn.Linear(32, 10))
    return nn.Sequential(ConvNorm(3, 8, 3, 2, act=nn.Hardswish), *blocks, ConvNorm(16, 32, 1, act=nn.Hardswish), *head)


def mnasnet() -> nn.Module:
    blocks = (
        inverted(8, 12, 2, act=nn.ReLU),
        inverted(12, 12, kernel=5, act=nn.ReLU),
        inverted(12, 16, 2, act=nn.ReLU),
    )
    return nn.Sequential(ConvNorm(3, 8, 3, 2), *blocks, ConvNorm(16, 32, 1), Head(32, dropout=True))


class _Shuffle(nn.Module):
    """Half of the channels pass, half are convolved; then the halves are dealt out in turn."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        half = channels // 2
        inputs = half if stride == 1 else channels
        self.branch = nn.Sequential(
            ConvNorm(inputs, half, 1), ConvNorm(half, half, 3, stride, groups=half, act=None), ConvNorm(half, half, 1)
        )
        self.beside = None
        if stride > 1:
            self.beside = nn.Sequential(
                ConvNorm(channels, channels, 3, stride, groups=channels, act=None), ConvNorm(channels, half, 1)
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.beside is None:
            kept, used = x.chunk(2, dim=1)
            both = torch.cat([kept, self.branch(used)], 1)
        else:
            both = torch.cat([self.beside(x), self.branch(x)], 1)
        n, c, h, w = both.shape
        return both.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet_v2() -> nn.Module:
    stem = nn.Sequential(ConvNorm(3, 16, 3, 2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(stem, _Shuffle(16, 2), _Shuffle(16, 1), ConvNorm(16, 32, 1), Head(32))


class _Drop(nn.Module):
    """Stochastic depth, which does nothing at inference."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            keep = torch.empty(x.shape[0], 1, 1, 1, device=x.device).bernoulli_(0.9)
            return x * keep / 0.9
        return x


def efficientnet_v1() -> nn.Module:
    def block(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Module:
        gate = SqueezeExcite(3 * inputs, max(1, inputs // 4), nn.SiLU, nn.Sigmoid)
        found = inverted(inputs, outputs, stride, kernel=kernel, act=nn.SiLU, gate=gate)
        if isinstance(found, Residual):
            found.branch = nn.Sequential(found.branch, _Drop())
        return found

    blocks = (block(8, 12, 2), block(12, 12, kernel=5), block(12, 16, 2, kernel=5))
    stem, last = ConvNorm(3, 8, 3, 2, act=nn.SiLU), ConvNorm(16, 32, 1, act=nn.SiLU)
    return nn.Sequential(stem, *blocks, last, Head(32, dropout=True))


def efficientnet_v2() -> nn.Module:
    """Early blocks with one full convolution in the place of the first two."""

    def fused(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
        branch = nn.Sequential(
            ConvNorm(inputs, 3 * inputs, 3, stride, act=nn.SiLU), ConvNorm(3 * inputs, outputs, 1, act=None)
        )
        return Residual(branch) if stride == 1 and inputs == outputs else branch

    gate = SqueezeExcite(36, 3, nn.SiLU, nn.Sigmoid)
    blocks = (fused(8, 8), fused(8, 12, 2), inverted(12, 16, 2, act=nn.SiLU, gate=gate))
    stem, last = ConvNorm(3, 8, 3, 2, act=nn.SiLU), ConvNorm(16, 32, 1, act=nn.SiLU)
    return nn.Sequential(stem, *blocks, last, Head(32, dropout=True))


def regnet() -> nn.Module:
    """RegNetY: bottlenecks of one width with grouped convolutions and squeeze-and-excitation."""

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        branch = nn.Sequential(
            ConvNorm(inputs, outputs, 1),
            ConvNorm(outputs, outputs, 3, stride, groups=outputs // 4),
            SqueezeExcite(outputs, inputs // 4, nn.ReLU, nn.Sigmoid),
            ConvNorm(outputs, outputs, 1, act=None),
        )
        same = inputs == outputs and stride == 1
        return Residual(branch, None if same else ConvNorm(inputs, outputs, 1, stride, act=None), nn.ReLU())

    return nn.Sequential(ConvNorm(3, 8, 3, 2), block(8, 16, 2), block(16, 16, 1), block(16, 24, 2), Head(24))
