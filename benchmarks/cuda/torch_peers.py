"""The same gradient in PyTorch: by Captum, eagerly, and by autograd under torch.compile."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from statistics import median
from typing import Any

import torch
from torch import nn

PEERS = ("Captum gradient", "torch.compile gradient")
TIMES = 20


@cache
def built(network: str) -> nn.Module:
    """A network of benchmarks/networks.py, or "tiny", which is for rehearsals."""
    if network == "tiny":
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 4, 7, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
        return nn.Sequential(*layers).eval()
    from benchmarks.networks import seeded

    return seeded(network)


def measured_peer(peer: str, network: str, batch: int, precision: str, provider: str) -> tuple[float | None, str]:
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


def _prepared(peer: str, net: nn.Module, images: torch.Tensor) -> Callable[[], Any]:
    with torch.no_grad():
        target = net(images).argmax(1)
    if peer.startswith("Captum"):
        from captum.attr import Saliency

        method = Saliency(net)
        return lambda: method.attribute(images.clone().requires_grad_(), target=target, abs=False)
    for weight in net.parameters():
        weight.requires_grad_(False)
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
    took = []
    for _ in range(TIMES if device == "cuda" else 3):
        wait()
        began = time.perf_counter()
        run()
        wait()
        took.append(time.perf_counter() - began)
    return 1e3 * median(took)
