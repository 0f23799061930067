"""The networks of the speed benchmark, full size, with seeded weights: the same modules go to Captum and zennit.

Weights are He-normal and batch norm's statistics are measured, so that activations stay well scaled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv_bn(cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias, and batch norm."""
    return [nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(cout)]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut; the stride is in the 3x3."""

    def __init__(self, cin: int, width: int, stride: int) -> None:
        super().__init__()
        cout = 4 * width
        self.body = nn.Sequential(
            *conv_bn(cin, width, 1), nn.ReLU(), *conv_bn(width, width, 3, stride), nn.ReLU(), *conv_bn(width, cout, 1)
        )
        self.shortcut = nn.Sequential(*conv_bn(cin, cout, 1, stride)) if stride > 1 or cin != cout else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


class InvertedResidual(nn.Module):
    """1x1 up, depthwise 3x3, 1x1 down; the input is added where sizes allow."""

    def __init__(self, cin: int, cout: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = cin * expand
        up = [*conv_bn(cin, wide, 1), nn.ReLU6()] if expand > 1 else []
        deep = [*conv_bn(wide, wide, 3, stride, groups=wide), nn.ReLU6()]
        self.body = nn.Sequential(*up, *deep, *conv_bn(wide, cout, 1))
        self.adds = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        out: Tensor = x + self.body(x) if self.adds else self.body(x)
        return out


def resnet50() -> nn.Module:
    """ResNet-50 as it is trained today (stride in the 3x3)."""
    layers: list[nn.Module] = [*conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    cin = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(blocks):
            layers.append(Bottleneck(cin, width, stride if i == 0 else 1))
            cin = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def vgg16() -> nn.Module:
    """VGG-16 without batch norm."""
    layers: list[nn.Module] = []
    cin = 3
    for cout in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if cout:
            layers += [nn.Conv2d(cin, cout, 3, padding=1), nn.ReLU()]
            cin = cout
        else:
            layers.append(nn.MaxPool2d(2))
    head = [nn.Linear(25088, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers, nn.Flatten(), *head)


def mobilenet_v2() -> nn.Module:
    """MobileNetV2."""
    layers: list[nn.Module] = [*conv_bn(3, 32, 3, 2), nn.ReLU6()]
    cin = 32
    for expand, cout, blocks, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for i in range(blocks):
            layers.append(InvertedResidual(cin, cout, stride if i == 0 else 1, expand))
            cin = cout
    layers += [*conv_bn(cin, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return nn.Sequential(*layers)


NETWORKS = {"ResNet-50": resnet50, "VGG-16": vgg16, "MobileNetV2": mobilenet_v2}


def seeded(name: str, seed: int = 0) -> nn.Module:
    """A network with seeded weights, in evaluation mode."""
    torch.manual_seed(seed)
    net = NETWORKS[name]()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.05)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = None
    net.train()
    with torch.no_grad():
        net(torch.randn(4, 3, 224, 224))
    return net.eval()
