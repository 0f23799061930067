"""However an exporter writes what stands behind the last convolution, its activation is what is looked at."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from onnxplain.compiler import compile_model
from tests.models.nets import EXPORTERS, exported, seeded
from tests.running import assert_near, run


class ChannelNorm(nn.Module):
    """Over the channels of each place, which stand last for it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normalised.permute(0, 3, 1, 2)


class Shuffle(nn.Module):
    """Channels of two groups in turns."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


BEHIND: dict[str, Callable[[], nn.Module]] = {
    "groups": lambda: nn.GroupNorm(4, 8),
    "channels": ChannelNorm,
    "shuffle": Shuffle,
}


class Net(nn.Module):
    """Two convolutions, something behind the second, a residual sum or none, and a mean over places."""

    def __init__(self, behind: nn.Module, *, residual: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.behind, self.head, self.residual = behind, nn.Linear(8, 5), residual

    def maps(self, x: Tensor) -> Tensor:
        a = torch.relu(self.first(x))
        y: Tensor = self.behind(self.second(a))
        return torch.relu(a + torch.relu(y)) if self.residual else torch.relu(y)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.maps(x).mean((2, 3)))
        return scores


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("behind", BEHIND)
def test_maps_are_of_the_last_activation(behind: str, residual: bool, exporter: str) -> None:
    net = seeded(Net(BEHIND[behind](), residual=residual))
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    model = exported(net, x, exporter)
    net.double()
    maps = net.maps(x.double()).detach().requires_grad_()
    (slopes,) = torch.autograd.grad(net.head(maps.mean((2, 3))).amax(1).sum(), maps)
    want = torch.relu((slopes.mean((2, 3), keepdim=True) * maps).sum(1)).detach().numpy()
    assert (want.max((1, 2)) > 0).all()
    found = run(compile_model(model, "grad-cam"), x.numpy())
    assert_near(found["attribution"], want, 1e-5)
