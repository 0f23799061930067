"""Activations as people write them: reused, in place, functional, clipped. A graph knows only operators, so none of
it needs care (Captum #1082, #578, #200)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onnxplain.compiler import compile_model
from tests.models.nets import EXPORTERS, Careless, Clipped, Overlapping, exported, ready, seeded
from tests.oracle import deconv_relu, guided_relu
from tests.running import assert_near, run

RULES: dict[str, Callable[[Tensor], Tensor] | None] = {
    "gradient": None,
    "guided-backprop": guided_relu,
    "deconvnet": deconv_relu,
}


def by_autograd(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The best class of each picture, and the gradient of its score, in float64."""
    x = x.double().requires_grad_()
    scores = module.double()(x)
    classes = scores.argmax(1)
    (gradient,) = torch.autograd.grad(scores.gather(1, classes[:, None]).sum(), x)
    module.float()
    return classes, gradient


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("method", RULES)
def test_reused_in_place_and_functional_relus_are_all_seen(method: str, exporter: str) -> None:
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    net, model = seeded(Careless()), ready(Careless, 3, 8, 8, exporter=exporter)
    assert sum(node.op_type == "Relu" for node in model.graph.node) == 6
    net.rectify = RULES[method]
    classes, truth = by_autograd(net, x)
    returned = run(compile_model(model, method), x.numpy())
    np.testing.assert_array_equal(returned["explained_class"], classes)
    assert_near(returned["attribution"], truth, 1e-5, method)


def test_a_sum_with_its_own_relu_passes_two_where_positive_and_one_elsewhere() -> None:
    class Doubling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + torch.relu(x)).flatten(1)

    x = torch.tensor([[[2.0, -1.0]], [[-3.0, -4.0]]])
    model = exported(Doubling(), x, "torchscript")
    attribution = run(compile_model(model, target=0), x.numpy())["attribution"]
    np.testing.assert_array_equal(attribution[:, 0], [[2, 0], [1, 0]])
    guided = run(compile_model(model, "guided-backprop", target=1), x.numpy())["attribution"]
    np.testing.assert_array_equal(guided[:, 0], [[0, 1], [0, 1]])


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_overlapping_max_pools_add_and_ties_go_to_the_first(exporter: str, dynamic: bool) -> None:
    """Pictures of three grey levels: in almost every window several are the largest."""
    x = torch.randint(-1, 2, (2, 2, 11, 11), generator=torch.Generator().manual_seed(2)).float()
    net, model = seeded(Overlapping()), ready(Overlapping, 2, 11, 11, exporter=exporter, dynamic=dynamic)
    classes, truth = by_autograd(net, x)
    returned = run(compile_model(model), x.numpy())
    np.testing.assert_array_equal(returned["explained_class"], classes)
    assert_near(returned["attribution"], truth, 1e-5)
    # where windows overlap, elements receive more than once, and elements that tie with an earlier one receive nothing
    assert (truth == 0).double().mean() > 0.2


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_clipped_and_smooth_activations(exporter: str) -> None:
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    net, model = seeded(Clipped()), ready(Clipped, 3, 8, 8, exporter=exporter)
    classes, truth = by_autograd(net, x)
    returned = run(compile_model(model), x.numpy())
    np.testing.assert_array_equal(returned["explained_class"], classes)
    assert_near(returned["attribution"], truth, 1e-5)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("method", ["guided-backprop", "deconvnet"])
def test_relu6_is_rectified_like_relu(method: str, exporter: str) -> None:
    """Guided: the positive part, where the ReLU6 is open. DeconvNet: the positive part, whatever it was."""

    class Relu6(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, z: Tensor) -> Tensor:
            ctx.save_for_backward(z)  # type: ignore[attr-defined]
            return z.clamp(0, 6)

        @staticmethod
        def backward(ctx: object, d: Tensor) -> Tensor:  # type: ignore[override]
            (z,) = ctx.saved_tensors  # type: ignore[attr-defined]
            return d.clamp(min=0) * ((z > 0) & (z < 6) if method == "guided-backprop" else 1)

    class Patched(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return Relu6.apply(z)  # type: ignore[no-any-return]

    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    net, model = seeded(Clipped()), ready(Clipped, 3, 8, 8, exporter=exporter)
    net.stem[1], net.stem[3] = Patched(), Patched()  # type: ignore[index]
    classes, truth = by_autograd(net, x)
    returned = run(compile_model(model, method), x.numpy())
    np.testing.assert_array_equal(returned["explained_class"], classes)
    assert_near(returned["attribution"], truth, 1e-5)
