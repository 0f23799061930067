"""zennit, with stand-ins for the two modules of torchvision that it imports for its canonizers."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

try:
    INSTALLED = version("zennit")
except PackageNotFoundError:
    INSTALLED = ""

needed = pytest.mark.skipif(
    not INSTALLED, reason="zennit is not installed; pip install --no-deps zennit==0.5.1, since it asks for torchvision"
)

if INSTALLED and find_spec("torchvision") is None:
    names = {"torchvision": (), "torchvision.models": (), "torchvision.models.vgg": ("VGG",),
             "torchvision.models.resnet": ("ResNet", "BasicBlock", "Bottleneck")}  # fmt: skip
    for name, classes in names.items():
        sys.modules[name] = ModuleType(name)
        for each in classes:
            setattr(sys.modules[name], each, type(each, (nn.Module,), {}))


class ZennitPlus(nn.Module):
    """The sum of two tensors by zennit's own module, which its composites have a rule for."""

    def __init__(self) -> None:
        super().__init__()
        from zennit.layer import Sum

        self.sum = Sum()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        total: Tensor = self.sum(torch.stack([a, b], dim=-1))
        return total


def composite(name: str, merging: Any = None, **how: Any) -> Any:
    """One of zennit's composites; `merging` is the canonizer for batch norms, None where there are none to merge."""
    from zennit import composites

    return getattr(composites, name)(canonizers=[] if merging is None else [merging], **how)


def stock_merging() -> Any:
    """zennit's canonizer, which leaves x / sqrt(1 + eps) of a merged norm instead of x: half of 1e-5 for each."""
    from zennit.canonizers import SequentialMergeBatchNorm

    return SequentialMergeBatchNorm()


def exact_merging() -> Any:
    """The same, with nothing left of a merged norm."""
    from zennit.canonizers import SequentialMergeBatchNorm

    class Exact(SequentialMergeBatchNorm):  # type: ignore[misc]
        def register(self, linears: Any, batch_norm: Any) -> None:
            super().register(linears, batch_norm)
            self.eps, batch_norm.eps = batch_norm.eps, 0

        def remove(self) -> None:
            self.batch_norm.eps = self.eps
            super().remove()

    return Exact()


def relevance(net: nn.Module, x: Tensor, made: Any) -> tuple[Tensor, Tensor]:
    """The relevance of x for each sample's highest score, which starts as relevance itself; and that class."""
    scores = net(x)
    classes = scores.argmax(dim=1, keepdim=True)
    start = torch.zeros_like(scores).scatter(1, classes, scores.gather(1, classes))
    x = x.clone().requires_grad_()
    context: AbstractContextManager[nn.Module] = made.context(net)
    with context as changed:
        (found,) = torch.autograd.grad(changed(x), x, start)
    return found, classes[:, 0]
