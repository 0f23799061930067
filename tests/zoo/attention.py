"""Transformers, and the convolutional and all-linear networks built like them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.blocks import Head, LayerNorm2d, Permute, Residual, mlp
from tests.zoo.mobile import inverted


class Attention(nn.Module):
    """Self-attention of several heads over (N, tokens, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.join = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        parts = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        y: Tensor = self.join(mixed.transpose(1, 2).reshape(n, tokens, width))
        return y


def encoder(width: int, heads: int) -> nn.Module:
    return nn.Sequential(
        Residual(nn.Sequential(nn.LayerNorm(width), Attention(width, heads))),
        Residual(nn.Sequential(nn.LayerNorm(width), mlp(width, 2 * width))),
    )


class VisionTransformer(nn.Module):
    """Patches, a class token (for DeiT a second one, with its own head) and learned positions."""

    def __init__(self, *, distilled: bool = False, width: int = 24) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.tokens = nn.Parameter(0.5 * torch.randn(1, 2 if distilled else 1, width))
        self.positions = nn.Parameter(0.5 * torch.randn(1, 16 + self.tokens.shape[1], width))
        self.blocks = nn.Sequential(encoder(width, 4), encoder(width, 4), nn.LayerNorm(width))
        self.heads = nn.ModuleList(nn.Linear(width, 10) for _ in range(self.tokens.shape[1]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.tokens.expand(x.shape[0], -1, -1), x], 1) + self.positions
        x = self.blocks(x)
        scores = [head(x[:, i]) for i, head in enumerate(self.heads)]
        y: Tensor = scores[0] if len(scores) == 1 else (scores[0] + scores[1]) / 2
        return y


class WindowAttention(nn.Module):
    """Attention within windows of (N, H, W, C), shifted or not, with a bias for each relative position.

    version: 1, or 2 with cosine similarity, a learned scale and positions from a small network.
    """

    def __init__(self, width: int, heads: int, window: int, shift: int, version: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift, self.version = heads, window, shift, version
        self.qkv, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        side = torch.arange(window)
        at = torch.stack(torch.meshgrid(side, side, indexing="ij")).flatten(1)
        apart = (at[:, :, None] - at[:, None, :]).permute(1, 2, 0) + window - 1
        self.register_buffer("index", apart[..., 0] * (2 * window - 1) + apart[..., 1])
        self.table = nn.Parameter(0.5 * torch.randn((2 * window - 1) ** 2, heads))
        if version == 2:
            self.scale = nn.Parameter(torch.log(5 * torch.ones(heads, 1, 1)))
            far = torch.arange(-(window - 1), window) / (window - 1) * 8
            grid = torch.stack(torch.meshgrid(far, far, indexing="ij"), -1).flatten(0, 1)
            self.register_buffer("far", grid.sign() * torch.log2(grid.abs() + 1) / 3)
            self.positions = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, heads, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        k = self.window
        down, right = (k - h % k) % k, (k - w % k) % k
        x = F.pad(x, (0, 0, 0, right, 0, down))
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        rows, columns = (h + down) // k, (w + right) // k
        x = x.view(n, rows, k, columns, k, c).permute(0, 1, 3, 2, 4, 5).reshape(n * rows * columns, k * k, c)
        q, key, v = self.qkv(x).reshape(-1, k * k, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        weights = self.similarity(q, key) + self.bias()
        if self.shift:
            apart = self.mask(h + down, w + right, x.device)
            weights = weights.view(n, rows * columns, self.heads, k * k, k * k) + apart[:, None]
            weights = weights.view(-1, self.heads, k * k, k * k)
        x = self.join((weights.softmax(-1) @ v).transpose(1, 2).reshape(-1, k * k, c))
        x = x.view(n, rows, columns, k, k, c).permute(0, 1, 3, 2, 4, 5).reshape(n, rows * k, columns * k, c)
        if self.shift:
            x = torch.roll(x, (self.shift, self.shift), (1, 2))
        return x[:, :h, :w]

    def similarity(self, q: Tensor, key: Tensor) -> Tensor:
        if self.version == 1:
            return (q * q.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        scale = self.scale.clamp(max=4.6052).exp()
        return F.normalize(q, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1) * scale

    def bias(self) -> Tensor:
        size = self.window**2
        table = self.table if self.version == 1 else 16 * torch.sigmoid(self.positions(self.far))
        index: Tensor = self.index
        return table[index.view(-1)].view(size, size, -1).permute(2, 0, 1).unsqueeze(0)

    def mask(self, h: int, w: int, device: torch.device) -> Tensor:
        """What the shift brought together from opposite sides must not mix."""
        k, s = self.window, self.shift
        parts = (slice(0, -k), slice(-k, -s), slice(-s, None))
        zones = torch.zeros(h, w, device=device)
        for i, rows in enumerate(parts):
            for j, columns in enumerate(parts):
                zones[rows, columns] = 3 * i + j
        zones = zones.view(h // k, k, w // k, k).permute(0, 2, 1, 3).reshape(-1, k * k)
        apart = zones[:, None, :] - zones[:, :, None]
        return torch.where(apart == 0, 0.0, -100.0)


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the width."""

    def __init__(self, width: int, version: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)
        self.before = nn.LayerNorm(4 * width) if version == 1 else nn.Identity()
        self.after = nn.LayerNorm(2 * width) if version == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        four = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        y: Tensor = self.after(self.reduce(self.before(torch.cat(four, -1))))
        return y


def swin(version: int) -> nn.Module:
    def block(width: int, heads: int, shift: int) -> nn.Module:
        attention, feed = WindowAttention(width, heads, 4, shift, version), mlp(width, 2 * width)
        pairs = ((nn.LayerNorm(width), attention), (nn.LayerNorm(width), feed))
        return nn.Sequential(*(Residual(nn.Sequential(*(p if version == 1 else p[::-1]))) for p in pairs))

    stem = nn.Sequential(nn.Conv2d(3, 16, 4, 4), Permute(0, 2, 3, 1), nn.LayerNorm(16))
    first = nn.Sequential(block(16, 2, 0), block(16, 2, 2))
    second = nn.Sequential(PatchMerging(16, version), block(32, 4, 0))
    return nn.Sequential(stem, first, second, nn.LayerNorm(32), Permute(0, 3, 1, 2), Head(32))


class GridAttention(nn.Module):
    """MaxViT's: attention within blocks of neighbours, or over a grid of distant positions, of (N, C, H, W)."""

    def __init__(self, width: int, side: int, *, grid: bool) -> None:
        super().__init__()
        self.side, self.grid, self.encoder = side, grid, encoder(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        k = self.side
        if self.grid:
            parts = x.view(n, c, k, h // k, k, w // k).permute(0, 3, 5, 2, 4, 1)
        else:
            parts = x.view(n, c, h // k, k, w // k, k).permute(0, 2, 4, 3, 5, 1)
        y = self.encoder(parts.reshape(-1, k * k, c)).view(n, h // k, w // k, k, k, c)
        order = (0, 5, 3, 1, 4, 2) if self.grid else (0, 5, 1, 3, 2, 4)
        return y.permute(order).reshape(n, c, h, w)


def maxvit() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 16, 3, 1, 1))
    blocks = (inverted(16, 16, 2, act=nn.GELU), GridAttention(16, 4, grid=False), GridAttention(16, 4, grid=True))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 10))
    return nn.Sequential(stem, *blocks, *head)


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.by = nn.Parameter(0.5 + torch.rand(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.by


def convnext() -> nn.Module:
    def block(width: int) -> nn.Module:
        depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        inner = (Permute(0, 2, 3, 1), nn.LayerNorm(width, 1e-6), mlp(width, 4 * width), Permute(0, 3, 1, 2))
        return Residual(nn.Sequential(depthwise, *inner, _Scale(width)))

    stem = nn.Sequential(nn.Conv2d(3, 12, 4, 4), LayerNorm2d(12, 1e-6))
    down = nn.Sequential(LayerNorm2d(12, 1e-6), nn.Conv2d(12, 16, 2, 2))
    head = (nn.AdaptiveAvgPool2d(1), LayerNorm2d(16, 1e-6), nn.Flatten(), nn.Linear(16, 10))
    return nn.Sequential(stem, block(12), block(12), down, block(16), *head)


def mlp_mixer() -> nn.Module:
    def block(tokens: int, width: int) -> nn.Module:
        across = nn.Sequential(nn.LayerNorm(width), Permute(0, 2, 1), mlp(tokens, 2 * tokens), Permute(0, 2, 1))
        return nn.Sequential(Residual(across), Residual(nn.Sequential(nn.LayerNorm(width), mlp(width, 2 * width))))

    class Mixer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.blocks = nn.Conv2d(3, 24, 8, 8), nn.Sequential(block(16, 24), block(16, 24))
            self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 10)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.blocks(self.patches(x).flatten(2).transpose(1, 2))
            y: Tensor = self.head(self.norm(tokens).mean(1))
            return y

    return Mixer()
