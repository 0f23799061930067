"""Small transformers and their like, each with the layer whose features Grad-CAM is meant to weigh.

Every network takes (N, 3, 16, 24) pictures, so that rows and columns cannot be taken for each other.
"""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout

import onnx
import torch
from torch import Tensor, nn

SIZE = (16, 24)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-1, -2) * (c // self.heads) ** -0.5).softmax(-1)
        y: Tensor = self.out((weights @ v).transpose(1, 2).reshape(n, t, c))
        return y


class Block(nn.Module):
    """Attention, then a small network for each token, both beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.mix = nn.LayerNorm(width), Attention(width)
        self.norm2, self.feed = nn.LayerNorm(width), mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.norm1(x))
        y: Tensor = x + self.feed(self.norm2(x))
        return y


class ViT(nn.Module):
    """prefix: how many tokens stand before the patches; with none, the head takes the mean over tokens."""

    def __init__(self, prefix: int = 1, width: int = 16) -> None:
        super().__init__()
        self.patches, self.prefix = nn.Conv2d(3, width, 4, 4), prefix
        self.first = nn.Parameter(torch.randn(1, prefix, width)) if prefix else None
        self.positions = nn.Parameter(0.5 * torch.randn(1, 24 + prefix, width))
        self.blocks, self.norm = nn.ModuleList([Block(width), Block(width)]), nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)
        self.looked_at = self.blocks[-1].norm1 if prefix else self.norm

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.first is not None:
            x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.positions
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        y: Tensor = self.head(x[:, : self.prefix].mean(1) if self.prefix else x.mean(1))
        return y

    def maps(self, features: Tensor) -> Tensor:
        return features[:, self.prefix :].transpose(1, 2).unflatten(2, (4, 6))


class Unfolded(ViT):
    """No convolution: patches are cut out by Reshape and Transpose, and the tokens come first (T, N, C)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__(1, width)
        self.patches = nn.Linear(48, width)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        x = x.reshape(n, 3, 4, 4, 6, 4).permute(0, 2, 4, 3, 5, 1).reshape(n, 24, 48)
        x = self.patches(x)
        assert self.first is not None
        x = (torch.cat([self.first.expand(n, -1, -1), x], 1) + self.positions).transpose(0, 1)
        for block in self.blocks:
            x = x + block.mix(block.norm1(x).transpose(0, 1)).transpose(0, 1)
            x = x + block.feed(block.norm2(x))
        y: Tensor = self.head(self.norm(x)[0])
        return y

    def maps(self, features: Tensor) -> Tensor:
        return super().maps(features.transpose(0, 1))


class Windows(nn.Module):
    """Swin: attention in windows of channels-last maps, patches merged, a mean at the end."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.patches, self.blocks = nn.Conv2d(3, width, 2, 2), nn.ModuleList([Block(width), Block(2 * width)])
        self.merge, self.norm = nn.Linear(4 * width, 2 * width), nn.LayerNorm(2 * width)
        self.head = nn.Linear(2 * width, 5)
        self.looked_at = self.norm

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        x = self.blocks_of(self.blocks[0], x)
        x = self.merge(torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1))
        x = self.blocks_of(self.blocks[1], x)
        y: Tensor = self.head(self.norm(x).mean((1, 2)))
        return y

    def blocks_of(self, block: nn.Module, x: Tensor, side: int = 2) -> Tensor:
        """The block over shifted windows, with nothing beside them: the windows alone know the shortcut."""
        n, h, w, c = x.shape
        parts = x.view(n, h // side, side, w // side, side, c).permute(0, 1, 3, 2, 4, 5)
        y = block(parts.reshape(-1, side * side, c)).view(n, h // side, w // side, side, side, c)
        return y.permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)

    def maps(self, features: Tensor) -> Tensor:
        return features.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Depthwise convolutions, and small networks over channels-last maps, beside shortcuts."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, width, 4, 4), nn.Linear(width, 5)
        self.depthwise = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1, groups=width) for _ in range(2))
        self.norms, self.feeds = (nn.ModuleList(f(width) for _ in range(2)) for f in (nn.LayerNorm, mlp))
        self.looked_at = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for conv, norm, feed in zip(self.depthwise, self.norms, self.feeds, strict=True):
            x = x + feed(norm(conv(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        y: Tensor = self.head(self.looked_at(x).mean((2, 3)))
        return y

    def maps(self, features: Tensor) -> Tensor:
        return features


class Mixer(nn.Module):
    """Linear layers over tokens and over channels in turn."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches, self.across, self.along = nn.Conv2d(3, width, 4, 4), mlp(24), mlp(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.head, self.looked_at = nn.Linear(width, 5), self.norms[2]

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.across(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        x = x + self.along(self.norms[1](x))
        y: Tensor = self.head(self.norms[2](x).mean(1))
        return y

    def maps(self, features: Tensor) -> Tensor:
        return features.transpose(1, 2).unflatten(2, (4, 6))


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


NETWORKS = {
    "class token": lambda: ViT(1),
    "two class tokens": lambda: ViT(2),
    "mean over tokens": lambda: ViT(0),
    "tokens before the batch, no convolution": Unfolded,
    "windows": Windows,
    "channels-last blocks": ConvNeXt,
    "mixer": Mixer,
}


def made(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net: nn.Module = NETWORKS[name]().eval()  # type: ignore[operator]
    return net


def pictures(count: int = 2) -> Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def exported(net: nn.Module, exporter: str = "torchscript", *, dynamic: bool = True) -> onnx.ModelProto:
    x, file = pictures(), io.BytesIO()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            axes = {"pixels": {0: "N"}, "scores": {0: "N"}} if dynamic else None
            torch.onnx.export(
                net, (x,), file, dynamo=False, input_names=["pixels"], output_names=["scores"], dynamic_axes=axes
            )
            return onnx.load_model_from_string(file.getvalue())
        shapes = ({0: torch.export.Dim("N", min=1, max=64)},) if dynamic else None
        program = torch.onnx.export(
            net, (x,), dynamo=True, input_names=["pixels"], output_names=["scores"], dynamic_shapes=shapes,
            verbose=False,
        )  # fmt: skip
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def features_and_gradient(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """What Grad-CAM weighs, (N, C, *S), and its gradient of each sample's best score, by hooks and autograd."""
    kept: list[Tensor] = []
    handle = net.looked_at.register_forward_hook(lambda *seen: kept.append(seen[2]))  # type: ignore[union-attr,operator]
    scores = net(x)
    handle.remove()
    (d,) = torch.autograd.grad(scores.amax(1).sum(), kept[0])
    maps = net.maps
    return maps(kept[0].detach()), maps(d)  # type: ignore[operator]
