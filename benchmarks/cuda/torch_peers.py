"""The same gradient in PyTorch: by Captum, eagerly, and by autograd under torch.compile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

import torch
from torch import nn

TIMES, SECONDS = 20, 1.0
"""The most runs timed; the time after which no more are."""


@dataclass(frozen=True)
class Peer:
    """What PyTorch offers for the same work, and what it is measured on, since torch.compile takes long."""

    name: str
    networks: frozenset[str] | None = None
    batches: frozenset[int] | None = None

    def measures(self, network: str, batch: int) -> bool:
        """Whether it is measured here."""
        return (self.networks is None or network in self.networks) and (self.batches is None or batch in self.batches)


CAPTUM = Peer("Captum gradient")
COMPILED = Peer("torch.compile gradient", frozenset({"ResNet-50", "tiny"}), frozenset({1, 64}))
PEERS = (CAPTUM, COMPILED)


@cache
def built(network: str) -> nn.Module:
    """A network of benchmarks/networks.py, or "tiny", which is for rehearsals."""
    if network == "tiny":
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 4, 7, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
        return nn.Sequential(*layers).eval()
    from benchmarks.networks import seeded

    return seeded(network)


def measured_peer(peer: Peer, network: str, batch: int, precision: str, provider: str) -> tuple[float | None, str]:
    """Milliseconds of the median run, or why there are none."""
    device = "cuda" if provider == "cuda" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        return None, "not measured: this PyTorch has no CUDA"
    dtype = torch.float16 if precision == "float16" else torch.float32
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        net = built(network).to(device, dtype)
        return _timed(_prepared(peer, net, torch.randn(batch, 3, 224, 224, device=device, dtype=dtype)), device), ""
    except Exception as error:  # what PyTorch cannot do is a result
        return None, f"fails: {' '.join(str(error).split())[:120]}"
    finally:
        built(network).to("cpu", torch.float32)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _prepared(peer: Peer, net: nn.Module, images: torch.Tensor) -> Callable[[], Any]:
    with torch.no_grad():
        target = net(images).argmax(1)
    for weight in net.parameters():
        weight.requires_grad_(peer == CAPTUM)  # as a model is that was loaded, and as one is that is compiled for this
    if peer == CAPTUM:
        from captum.attr import Saliency

        method = Saliency(net)
        return lambda: method.attribute(images.clone().requires_grad_(), target=target, abs=False)
    compiled = torch.compile(net)

    def gradient() -> torch.Tensor:
        x = images.clone().requires_grad_()
        scores: torch.Tensor = compiled(x)
        (found,) = torch.autograd.grad(scores.gather(1, target[:, None]).sum(), x)
        return found

    return gradient


def _timed(run: Callable[[], Any], device: str) -> float:
    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        run()
    took: list[float] = []
    while len(took) < TIMES and (len(took) < 3 or sum(took) < SECONDS):
        wait()
        began = time.perf_counter()
        run()
        wait()
        took.append(time.perf_counter() - began)
    return 1e3 * median(took)
