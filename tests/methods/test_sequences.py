"""Steps, tokens and pictures whose channels are not the first axis, or are not there: maps are over places.

The oracles are torch in float64, and the same network with its channels first.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedModel
from tests.catalogue import Floats
from tests.models.nets import exported, seeded
from tests.parity.fem import paper
from tests.running import assert_near, run


class Network(nn.Module):
    """forward: what it computes from its parts and the input."""

    def __init__(self, forward: Callable[[Network, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.parts, self.compute = nn.ModuleDict(parts), forward

    def __getitem__(self, name: str) -> nn.Module:
        return self.parts[name]

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def recurrent(kind: type[nn.RNNBase]) -> Network:
    """Behind a norm over steps, channels first between two transpositions."""

    def forward(net: Network, x: Tensor) -> Tensor:
        steps, _ = net["layer"](net["norm"](x.transpose(1, 2)).transpose(1, 2))
        scores: Tensor = net["head"](steps[:, -1])
        return scores

    return Network(forward, norm=nn.BatchNorm1d(8), layer=kind(8, 6, batch_first=True), head=nn.Linear(6, 3))


def transformer() -> Network:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    parts = {"first": nn.Linear(8, 16), "layer": layer, "head": nn.Linear(16, 3)}
    return Network(lambda net, x: net["head"](net["layer"](net["first"](x)).mean(1)), **parts)


def samples(*shape: int) -> Floats:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def model_of(net: nn.Module, x: Floats) -> ModelProto:
    return exported(net, torch.from_numpy(x), "torchscript")


@pytest.mark.parametrize(
    "build", [lambda: recurrent(nn.LSTM), lambda: recurrent(nn.GRU), transformer], ids=["LSTM", "GRU", "transformer"]
)
def test_a_gradient_is_seen_step_by_step(build: Callable[[], Network]) -> None:
    net, x = seeded(build()), samples(2, 12, 8)
    found = run(compile_model(model_of(net, x), "gradient"), x)
    given = torch.from_numpy(x).double().requires_grad_()
    (d,) = torch.autograd.grad(net.double()(given).amax(1).sum(), given)
    size = d.abs().amax(2)
    assert_near(found["attribution"], d.numpy(), 1e-4)
    assert_near(found["heatmap"], (size / size.amax(1, keepdim=True)).numpy(), 1e-4)


def test_activation_maps_of_a_transformer_have_one_number_for_each_token() -> None:
    net, x = seeded(transformer()), samples(1, 10, 8)
    found = run(compile_model(model_of(net, x), "grad-cam,fem"), x)
    net = net.double()
    tokens = net["layer"](net["first"](torch.from_numpy(x).double())).detach().requires_grad_()
    (d,) = torch.autograd.grad(net["head"](tokens.mean(1)).amax(1).sum(), tokens)
    expected = torch.relu((d.mean(1, keepdim=True) * tokens).sum(2)).detach()
    assert expected.shape == (1, 10)
    assert expected.any()
    assert_near(found["attribution_grad-cam"], expected.numpy(), 1e-4)
    assert_near(found["attribution_fem"], paper(tokens[0].T.detach().numpy(), 1.0)[None], 1e-4)
    assert found["heatmap_grad-cam"].shape == (1, 10)


def test_a_mean_baseline_is_each_features_mean_over_steps() -> None:
    """In a linear network Integrated Gradients are the slope times the way from the baseline, exactly."""
    parts = {"first": nn.Linear(8, 5), "last": nn.Linear(5, 3)}
    net, x = seeded(Network(lambda net, x: net["last"](net["first"](x).mean(1)), **parts)), samples(2, 12, 8)
    found = run(compile_model(model_of(net, x), "integrated-gradients", target=1, baseline="mean"), x)
    given = torch.from_numpy(x).double().requires_grad_()
    (d,) = torch.autograd.grad(net.double()(given)[:, 1].sum(), given)
    wide = x.astype(np.float64)
    assert_near(found["attribution"], d.numpy() * (wide - wide.mean(1, keepdims=True)), 1e-4)


def convolved(change: Callable[[Tensor], Tensor], d: int = 2, channels: int = 2) -> Network:
    """Two convolutions of what was changed before, so that they see (N, C, *S)."""
    kind = {1: nn.Conv1d, 2: nn.Conv2d}[d]
    parts = {"first": kind(channels, 6, 3), "second": kind(6, 5, 3), "head": nn.Linear(5, 3)}

    def forward(net: Network, x: Tensor) -> Tensor:
        features = torch.relu(net["second"](torch.relu(net["first"](change(x)))))
        scores: Tensor = net["head"](features.flatten(2).mean(2))
        return scores

    return Network(forward, **parts)


def centred(x: Tensor) -> Tensor:
    x = x.abs().clamp(0.01, 5).log()
    return x - x.mean((1, 2), keepdim=True)


CHANGES: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "channels last": (
        (2, 12, 20, 2), lambda x: centred(x).permute(0, 3, 1, 2),
        lambda x: (v := x.abs().clamp(0.01, 5).log()) - v.mean((2, 3), keepdim=True),
    ),
    "grey, an axis added in front": ((2, 12, 20), lambda x: x.unsqueeze(1), lambda x: x),
    "grey, an axis added by a Reshape": (
        (2, 12, 20), lambda x: x.reshape(-1, 12, 20, 1).permute(0, 3, 1, 2), lambda x: x
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_pictures_are_explained_as_the_same_network_is_with_channels_first(name: str) -> None:
    shape, change, same = CHANGES[name]
    x, channels = samples(*shape), shape[3] if len(shape) == 4 else 1
    first = np.ascontiguousarray(x.transpose(0, 3, 1, 2) if len(shape) == 4 else x[:, None])
    methods = "gradient,grad-cam,fem,guided-grad-cam"
    found = run(compile_model(model_of(seeded(convolved(change, channels=channels)), x), methods), x)
    expected = run(compile_model(model_of(seeded(convolved(same, channels=channels)), first), methods), first)
    for method in methods.split(","):
        key = f"heatmap_{method}"
        assert found[key].shape == (2, 12, 20)
        assert_near(found[key], expected[key], 1e-4, method)


def test_a_signal_that_is_convolved_as_a_picture_of_one_row() -> None:
    """As Keras exports Conv1D: (N, steps, features) becomes (N, features, 1, steps)."""
    x = samples(2, 30, 6)
    steps = seeded(convolved(lambda x: x, 1, 6))
    parts = {"first": nn.Conv2d(6, 6, (1, 3)), "second": nn.Conv2d(6, 5, (1, 3)), "head": nn.Linear(5, 3)}

    def forward(net: Network, x: Tensor) -> Tensor:
        h = x.unsqueeze(1).permute(0, 3, 1, 2)
        h = torch.relu(net["first"](h)).squeeze(2).unsqueeze(2)
        h = torch.relu(net["second"](h)).squeeze(2).transpose(1, 2)
        scores: Tensor = net["head"](h.mean(1))
        return scores

    net = Network(forward, **parts)
    net.load_state_dict({k: v.reshape(net.state_dict()[k].shape) for k, v in steps.state_dict().items()})
    first = np.ascontiguousarray(x.transpose(0, 2, 1))
    found = run(compile_model(model_of(net.eval(), x), "grad-cam,fem"), x)
    expected = run(compile_model(model_of(steps, first), "grad-cam,fem"), first)
    for key in ("attribution_grad-cam", "heatmap_grad-cam", "attribution_fem", "heatmap_fem"):
        assert_near(found[key], expected[key], 1e-4, key)
    assert found["heatmap_grad-cam"].shape == (2, 30)


def video() -> tuple[ModelProto, Floats]:
    """(N, frames, channels, rows, columns), each frame convolved by itself."""
    x = samples(2, 5, 6, 9, 12)
    kinds = {"conv": nn.Conv2d(6, 4, 3), "head": nn.Linear(4, 3)}

    def forward(net: Network, x: Tensor) -> Tensor:
        each = torch.relu(net["conv"](x.flatten(0, 1))).mean((2, 3))
        scores: Tensor = net["head"](each.reshape(-1, 5, 4).mean(1))
        return scores

    return model_of(seeded(Network(forward, **kinds)), x), x


@pytest.mark.parametrize("layout", ["auto", 2, "2"])
def test_a_video_whose_channels_come_behind_its_frames(layout: str | int) -> None:
    model, x = video()
    compiled = compile_model(model, "gradient", layout=layout)
    found = run(compiled, x)
    size = np.abs(found["attribution"]).max(2)
    np.testing.assert_allclose(found["heatmap"], size / size.max((1, 2, 3), keepdims=True), atol=1e-6)
    said = json.loads({e.key: e.value for e in compiled.metadata_props}["onnxplain.parameters"])
    assert said["layout"] == "2"


def test_a_wrong_layout_is_named_where_maps_do_not_fit() -> None:
    x = samples(2, 12, 20)
    model = model_of(seeded(convolved(lambda x: x.unsqueeze(1), channels=1)), x)
    with pytest.raises(UnsupportedModel) as caught:
        compile_model(model, "grad-cam", layout="channels-first")
    assert str(caught.value).endswith(
        " Its channels are taken to lie so: channels-first; if that is wrong, say where with --layout."
    )
