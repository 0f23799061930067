"""Every architecture of the zoo: how it is built, what it takes, and what cannot be asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.zoo import attention, classic, mobile

Array = NDArray[Any]

PICTURE = (3, 32, 32)

STEADY = 2e-5
"""How far a gradient may move, relatively, when every weight moves by some 1e-6 of its size: no kink is that near."""


@dataclass(frozen=True)
class Architecture:
    """One network.

    build:  makes it, with torch's own initialisation.
    shape:  of one sample of its first input, the one that is explained.
    others: shapes of one sample of its other inputs, by name.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = PICTURE
    others: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def inputs(self) -> tuple[str, ...]:
        return "pixels", *(name for name, _ in self.others)


def draw(shape: tuple[int, ...], n: int, seed: int) -> Tensor:
    """Coarse blobs under grain, since deep nets average grain alone out; plain normal numbers for vectors."""
    rng = np.random.default_rng(seed)
    grain = rng.standard_normal((n, *shape))
    if len(shape) < 2:
        return torch.from_numpy(grain.astype(np.float32))
    blobs = rng.standard_normal((n, shape[0], *(-(-size // 4) for size in shape[1:])))
    for axis, size in enumerate(shape[1:], 2):
        blobs = np.take(np.repeat(blobs, 4, axis), np.arange(size), axis)
    return torch.from_numpy((0.8 * blobs + 0.6 * grain).astype(np.float32))


def samples(each: Architecture, n: int, seed: int) -> tuple[Tensor, ...]:
    """n samples of every input."""
    shapes = (each.shape, *(shape for _, shape in each.others))
    return tuple(draw(shape, n, 1000 * seed + i) for i, shape in enumerate(shapes))


@cache
def trained(each: Architecture) -> nn.Module:
    """The network in evaluation mode, as if trained: seeded weights, and batch norms that know their inputs."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = each.build()
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm)):
            nn.init.uniform_(layer.weight, 0.7, 1.3)
            nn.init.normal_(layer.bias, 0, 0.2)
        elif isinstance(layer, nn.Linear) and layer.out_features == 10:
            nn.init.normal_(layer.weight, 0, 2 / layer.in_features**0.5)
    module.train()
    with torch.no_grad():
        for batch in range(20):
            module(*samples(each, 8, 100 + batch))
    return module.eval()


@cache
def unbiased(each: Architecture) -> nn.Module:
    """The same network without a single additive constant: scores are then all made of the input.

    Batch norms are told the spread that there then is, so that scores keep their size.
    """
    module = each.build()
    module.load_state_dict(trained(each).state_dict())
    _without_constants(module)
    module.train()
    with torch.no_grad():
        for batch in range(10):
            module(*samples(each, 8, 200 + batch))
    _without_constants(module)
    return module.eval()


def _without_constants(module: nn.Module) -> None:
    for layer in module.modules():
        for name in ("bias", "running_mean", "tokens", "positions"):
            constant = getattr(layer, name, None)
            if isinstance(constant, Tensor):
                constant.data.zero_()


def gradient(module: nn.Module, inputs: tuple[Tensor, ...], classes: Tensor) -> Tensor:
    """The gradient of each sample's score for its class by the first input, by torch.autograd."""
    x = inputs[0].clone().requires_grad_()
    scores = module(x, *inputs[1:])
    (found,) = torch.autograd.grad(scores.gather(1, classes[:, None]).sum(), x)
    return found


def exact(module: nn.Module, each: Architecture) -> nn.Module:
    """The module in float64."""
    copied = each.build().double()
    copied.load_state_dict(module.state_dict())
    return copied.double().eval()


@dataclass(frozen=True)
class Truth:
    """Samples away from kinks, and what torch makes of them in float64."""

    inputs: tuple[Tensor, ...]
    scores: Array
    classes: Array
    gradient: Array


@cache
def truth(each: Architecture, n: int = 2) -> Truth:
    """The first n samples at which no rounding can flip a ReLU or the winner of a pool.

    The criterion knows nothing of the compiler: torch's own float64 gradient stays within STEADY when every weight is
    moved by about 1e-6 of itself, several times over.
    """
    module = trained(each)
    reference = exact(module, each)
    moved = [exact(module, each) for _ in range(4)]
    generator = torch.Generator().manual_seed(1)
    for other in moved:
        for weight in other.parameters():
            weight.data *= 1 + 1e-6 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    kept: list[tuple[Tensor, ...]] = []
    for seed in range(200):
        inputs = tuple(t.double() for t in samples(each, 1, seed))
        classes = reference(*inputs).argmax(1)
        found = gradient(reference, inputs, classes)
        apart = [(gradient(other, inputs, classes) - found).norm() / found.norm() for other in moved]
        if found.norm() > 0 and max(apart) < STEADY:
            kept.append(inputs)
        if len(kept) == n:
            break
    assert len(kept) == n, f"{each.name}: every sample lies near a kink"
    inputs = tuple(torch.cat(parts) for parts in zip(*kept, strict=True))
    with torch.no_grad():
        scores = reference(*inputs)
    classes = scores.argmax(1)
    found = gradient(reference, inputs, classes)
    return Truth(tuple(t.float() for t in inputs), scores.numpy(), classes.numpy(), found.numpy())


ZOO = (
    Architecture("vgg", classic.vgg),
    Architecture("resnet-basic", classic.resnet_basic),
    Architecture("resnet-bottleneck", classic.resnet_bottleneck),
    Architecture("resnext", classic.resnext),
    Architecture("densenet", classic.densenet),
    Architecture("inception-v3", classic.inception_v3),
    Architecture("googlenet", classic.googlenet),
    Architecture("mobilenet-v1", mobile.mobilenet_v1),
    Architecture("mobilenet-v2", mobile.mobilenet_v2),
    Architecture("mobilenet-v3", mobile.mobilenet_v3),
    Architecture("shufflenet-v2", mobile.shufflenet_v2),
    Architecture("squeezenet", classic.squeezenet),
    Architecture("mnasnet", mobile.mnasnet),
    Architecture("efficientnet-v1", mobile.efficientnet_v1),
    Architecture("efficientnet-v2", mobile.efficientnet_v2),
    Architecture("regnet", mobile.regnet),
    Architecture("convnext", attention.convnext),
    Architecture("vit", attention.VisionTransformer),
    Architecture("deit", partial(attention.VisionTransformer, distilled=True)),
    Architecture("swin-v1", partial(attention.swin, 1)),
    Architecture("swin-v2", partial(attention.swin, 2)),
    Architecture("maxvit", attention.maxvit),
    Architecture("mlp-mixer", attention.mlp_mixer),
    Architecture("resnet-3d", classic.resnet_3d, shape=(3, 8, 16, 16)),
    Architecture("conv-1d", classic.conv_1d, shape=(2, 64)),
    Architecture("two-inputs", classic.TwoInputs, others=(("facts", (5,)),)),
)
