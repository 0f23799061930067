"""What several architectures are built of."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and, unless told otherwise, an activation; padding keeps the size."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 3,
        stride: int = 1,
        groups: int = 1,
        act: type[nn.Module] | None = nn.ReLU,
        padding: int | tuple[int, int] | None = None,
    ) -> None:
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        pad = (sides[0] // 2, sides[1] // 2) if padding is None else padding
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, sides, stride, pad, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([] if act is None else [act()]))


class Residual(nn.Module):
    """x + f(x), then an activation if there is one."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.shortcut, self.act = branch, shortcut or nn.Identity(), act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.shortcut(x) + self.branch(x))
        return y


class Parallel(nn.Module):
    """Branches side by side, joined along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class SqueezeExcite(nn.Module):
    """Channels weighted by what two small layers make of their means."""

    def __init__(self, channels: int, squeezed: int, act: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, squeezed, 1), act(), nn.Conv2d(squeezed, channels, 1), gate()
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.weigh(x)
        return y


class Head(nn.Sequential):
    """Global average pooling and one linear layer."""

    def __init__(self, channels: int, classes: int = 10, *, dropout: bool = False) -> None:
        last = [nn.Dropout(0.2)] if dropout else []
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *last, nn.Linear(channels, classes))


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of (N, C, H, W), as torchvision's ConvNeXt has it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Permute(nn.Module):
    """Axes in another order."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


def mlp(width: int, hidden: int, act: type[nn.Module] = nn.GELU) -> nn.Sequential:
    """Two linear layers."""
    return nn.Sequential(nn.Linear(width, hidden), act(), nn.Linear(hidden, width))
