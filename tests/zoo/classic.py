"""Convolutional networks up to 2017, and their one- and three-dimensional relatives."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from tests.zoo.blocks import ConvNorm, Head, Parallel, Residual


def vgg() -> nn.Module:
    """Convolutions with bias and batch norm, max-pools, an adaptive pool and three linear layers (VGG-11-BN)."""
    layers: list[nn.Module] = []
    for inputs, outputs, pooled in ((3, 8, True), (8, 16, True), (16, 16, False), (16, 24, True)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(2, 2)] if pooled else []
    head = [nn.Linear(24 * 4, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(True), nn.Dropout()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), *head, nn.Linear(32, 10))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    return None if inputs == outputs and stride == 1 else ConvNorm(inputs, outputs, 1, stride, act=None)


def basic_block(inputs: int, outputs: int, stride: int) -> nn.Module:
    branch = nn.Sequential(ConvNorm(inputs, outputs, 3, stride), ConvNorm(outputs, outputs, act=None))
    return Residual(branch, _shortcut(inputs, outputs, stride), nn.ReLU())


def bottleneck(inputs: int, outputs: int, stride: int, groups: int = 1) -> nn.Module:
    width = outputs // 2
    branch = nn.Sequential(
        ConvNorm(inputs, width, 1), ConvNorm(width, width, 3, stride, groups), ConvNorm(width, outputs, 1, act=None)
    )
    return Residual(branch, _shortcut(inputs, outputs, stride), nn.ReLU())


def _stem(width: int) -> nn.Sequential:
    return nn.Sequential(ConvNorm(3, width, 7, 2), nn.MaxPool2d(3, 2, 1))


def resnet_basic() -> nn.Module:
    blocks = (basic_block(8, 8, 1), basic_block(8, 16, 2), basic_block(16, 24, 2))
    return nn.Sequential(_stem(8), *blocks, Head(24))


def resnet_bottleneck() -> nn.Module:
    blocks = (bottleneck(8, 16, 1), bottleneck(16, 16, 1), bottleneck(16, 32, 2))
    return nn.Sequential(_stem(8), *blocks, Head(32))


def resnext() -> nn.Module:
    blocks = (bottleneck(8, 16, 1, groups=4), bottleneck(16, 32, 2, groups=4))
    return nn.Sequential(_stem(8), *blocks, Head(32))


class _DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 2 * growth, 1, bias=False),
            nn.BatchNorm2d(2 * growth), nn.ReLU(), nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layers(x)], 1)


def densenet() -> nn.Module:
    """Batch norm before the activation and the convolution; each layer sees all before it."""
    stem = nn.Sequential(ConvNorm(3, 8, 3, 2), nn.MaxPool2d(3, 2, 1))
    first = nn.Sequential(_DenseLayer(8, 4), _DenseLayer(12, 4))
    between = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1, bias=False), nn.AvgPool2d(2, 2))
    second = nn.Sequential(_DenseLayer(8, 4), _DenseLayer(12, 4))
    return nn.Sequential(stem, first, between, second, nn.BatchNorm2d(16), nn.ReLU(), Head(16))


def inception_v3() -> nn.Module:
    """Its four kinds of block, with factorised convolutions and the stride-2 reductions."""
    stem = nn.Sequential(ConvNorm(3, 8, 3, 2, padding=0), ConvNorm(8, 8, 3, padding=0), ConvNorm(8, 12))
    a = Parallel(
        ConvNorm(12, 4, 1),
        nn.Sequential(ConvNorm(12, 4, 1), ConvNorm(4, 6, 5)),
        nn.Sequential(ConvNorm(12, 4, 1), ConvNorm(4, 6), ConvNorm(6, 6)),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), ConvNorm(12, 4, 1)),
    )
    b = Parallel(ConvNorm(20, 8, 3, 2, padding=0), ConvNorm(20, 6, 3, 2, padding=0), nn.MaxPool2d(3, 2))
    c = Parallel(
        ConvNorm(34, 6, 1),
        nn.Sequential(ConvNorm(34, 4, 1), ConvNorm(4, 4, (1, 7)), ConvNorm(4, 6, (7, 1))),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), ConvNorm(34, 6, 1)),
    )
    e = Parallel(
        nn.Sequential(ConvNorm(18, 6, 1), Parallel(ConvNorm(6, 6, (1, 3)), ConvNorm(6, 6, (3, 1)))),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), ConvNorm(18, 6, 1)),
    )
    return nn.Sequential(stem, a, b, c, e, Head(18, dropout=True))


def googlenet() -> nn.Module:
    """Inception v1: pools that round up, and a pooled branch in every block."""

    def block(inputs: int) -> nn.Module:
        return Parallel(
            ConvNorm(inputs, 4, 1),
            nn.Sequential(ConvNorm(inputs, 4, 1), ConvNorm(4, 6)),
            nn.Sequential(ConvNorm(inputs, 3, 1), ConvNorm(3, 4)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), ConvNorm(inputs, 4, 1)),
        )

    stem = nn.Sequential(ConvNorm(3, 8, 7, 2), nn.MaxPool2d(3, 2, ceil_mode=True), ConvNorm(8, 12))
    blocks = nn.Sequential(block(12), nn.MaxPool2d(3, 2, ceil_mode=True), block(18))
    return nn.Sequential(stem, blocks, Head(18, dropout=True))


class _Fire(nn.Module):
    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(inputs, squeezed, 1), nn.ReLU())
        self.one = nn.Sequential(nn.Conv2d(squeezed, expanded, 1), nn.ReLU())
        self.three = nn.Sequential(nn.Conv2d(squeezed, expanded, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return torch.cat([self.one(x), self.three(x)], 1)


def squeezenet() -> nn.Module:
    """No linear layer: the last convolution makes the classes, and a ReLU comes after it."""
    features = (nn.Conv2d(3, 12, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), _Fire(12, 4, 8), _Fire(16, 4, 8))
    head = (nn.Dropout(), nn.Conv2d(16, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*features, *head)


class _Block3d(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm3d(outputs), nn.ReLU(),
            nn.Conv3d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm3d(outputs),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.branch(x) + self.shortcut(x))
        return y


def resnet_3d() -> nn.Module:
    stem = nn.Sequential(nn.Conv3d(3, 6, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False), nn.BatchNorm3d(6), nn.ReLU())
    blocks = (_Block3d(6, 8, 1), _Block3d(8, 12, 2))
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(12, 10))


def conv_1d() -> nn.Module:
    """For signals, with dilated convolutions and a pool with overlap."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((2, 8, 12, 16)):
        layers += [nn.Conv1d(inputs, outputs, 5, padding=4, dilation=2), nn.BatchNorm1d(outputs), nn.ReLU()]
        layers += [nn.MaxPool1d(3, 2, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 10))


class TwoInputs(nn.Module):
    """A picture and a vector of facts about it, joined before the last layers."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(ConvNorm(3, 8, 3, 2), ConvNorm(8, 12, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.know = nn.Sequential(nn.Linear(5, 8), nn.ReLU())
        self.decide = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 10))

    def forward(self, pixels: Tensor, facts: Tensor) -> Tensor:
        y: Tensor = self.decide(torch.cat([self.see(pixels), self.know(facts)], 1))
        return y
