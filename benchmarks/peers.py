"""The same work in Captum and zennit: each entry prepares a call on a network and a picture."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Explain = Callable[[nn.Module, Tensor, int], Callable[[], object]]


def _captum(name: str, **how: Any) -> Explain:
    def prepare(net: nn.Module, image: Tensor, steps: int) -> Callable[[], object]:
        from captum import attr

        target = net(image).argmax(1)
        method = getattr(attr, name)(net)
        given = {**how, "n_steps": steps, "internal_batch_size": len(image)} if name == "IntegratedGradients" else how
        return lambda: method.attribute(image.clone().requires_grad_(), target=target, **given)

    return prepare


def _captum_grad_cam(net: nn.Module, image: Tensor, steps: int) -> Callable[[], object]:
    from captum.attr import LayerGradCam

    last = [m for m in net.modules() if isinstance(m, nn.Conv2d)][-1]
    target = net(image).argmax(1)
    return lambda: LayerGradCam(net, last).attribute(image, target=target)


def _captum_lrp(net: nn.Module, image: Tensor, steps: int) -> Callable[[], object]:
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import IdentityRule

    for module in net.modules():
        if isinstance(module, nn.Identity | nn.Flatten):  # Captum knows no rule for these
            module.rule = IdentityRule()
    target = net(image).argmax(1)
    return lambda: LRP(net).attribute(image.clone().requires_grad_(), target=target)


def _zennit(name: str, **how: Any) -> Explain:
    def prepare(net: nn.Module, image: Tensor, steps: int) -> Callable[[], object]:
        _stand_in_for_torchvision()
        from zennit import composites
        from zennit.attribution import Gradient

        composite = getattr(composites, name)(**{key: torch.full_like(image, value) for key, value in how.items()})
        seed = torch.eye(1000)[net(image).argmax(1)]

        def run() -> object:
            with Gradient(model=net, composite=composite) as attributor:
                return attributor(image, seed)

        return run

    return prepare


def _stand_in_for_torchvision() -> None:
    """zennit imports torchvision for its canonizers alone, which are not used here."""
    if "torchvision" in sys.modules:
        return
    found: dict[str, types.ModuleType] = {}
    for name, classes in {
        "torchvision": (), "torchvision.models": (), "torchvision.models.vgg": ("VGG",),
        "torchvision.models.resnet": ("ResNet", "BasicBlock", "Bottleneck"),
    }.items():  # fmt: skip
        module = types.ModuleType(name)
        for each in classes:
            setattr(module, each, type(each, (nn.Module,), {}))
        found[name] = module
    sys.modules.update(found)


PEERS: dict[str, dict[str, Explain]] = {
    "Captum": {
        "gradient": _captum("Saliency"),
        "guided-backprop": _captum("GuidedBackprop"),
        "deconvnet": _captum("Deconvolution"),
        "grad-cam": _captum_grad_cam,
        "lrp-eps": _captum_lrp,
        "deeplift-rescale": _captum("DeepLift"),
        "integrated-gradients": _captum("IntegratedGradients"),
    },
    "zennit": {
        "lrp-epsilon-plus": _zennit("EpsilonPlus"),
        "lrp-epsilon-gamma-box": _zennit("EpsilonGammaBox", low=-3.0, high=3.0),
        "lrp-epsilon-alpha2-beta1": _zennit("EpsilonAlpha2Beta1"),
    },
}
