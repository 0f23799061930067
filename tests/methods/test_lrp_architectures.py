"""Architectures of today under LRP: they compile, and relevance is kept where the rules promise it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from onnxplain.compiler import compile_model
from onnxplain.interface import Metadata
from tests.biases import without_biases
from tests.catalogue import with_batch
from tests.running import run

METHODS = ("lrp-0", "lrp-eps", "lrp-gamma", "lrp-epsilon-plus", "lrp-alphabeta")
CONSERVING = ("lrp-0", "lrp-eps", "lrp-gamma")
X = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)


class SqueezeExcite(nn.Module):
    """x times a gate for each channel, computed from the channels' means."""

    def __init__(self, channels: int, gate: nn.Module) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = x * self.gate(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return scaled


class ByHand(nn.Module):
    """An activation written in arithmetic."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def mobile(activation: nn.Module, gate: nn.Module) -> nn.Module:
    """As MobileNetV3 and EfficientNet have it: expansion, depthwise convolution, squeeze and excitation, projection."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), activation,
        nn.Conv2d(8, 16, 1), activation, nn.Conv2d(16, 16, 3, 1, 1, groups=16), activation,
        SqueezeExcite(16, gate), nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8), activation,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


class ViT(nn.Module):
    """Patches, a class token, two layers of attention with layer norms before or after, a linear head on the token."""

    def __init__(self, activation: str, *, first: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 12) * 0.3)
        self.place = nn.Parameter(torch.randn(1, 17, 12) * 0.3)
        layer = nn.TransformerEncoderLayer(12, 3, 24, 0.0, activation, batch_first=True, norm_first=first)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(parts.shape[0], -1, -1), parts], dim=1) + self.place
        scores: Tensor = self.head(self.norm(self.layers(tokens))[:, 0])
        return scores


class ConvNeXt(nn.Module):
    """A block with a depthwise convolution, a layer norm over channels, GELU, a scale per channel and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.norm, self.wide, self.narrow = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.scale, self.head = nn.Parameter(torch.rand(8)), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        branch = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        branch = self.narrow(nn.functional.gelu(self.wide(branch))) * self.scale
        scores: Tensor = self.head((x + branch.permute(0, 3, 1, 2)).mean((2, 3)))
        return scores


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "HardSwish, squeeze and excitation": lambda: mobile(nn.Hardswish(), nn.Hardsigmoid()),
    "SiLU, squeeze and excitation": lambda: mobile(nn.SiLU(), nn.Sigmoid()),
    "SiLU by hand": lambda: mobile(ByHand(silu), nn.Sigmoid()),
    "GELU by Erf": lambda: mobile(ByHand(gelu), nn.Sigmoid()),
    "GELU by Tanh": lambda: mobile(nn.GELU("tanh"), nn.Sigmoid()),
    "LeakyReLU": lambda: mobile(nn.LeakyReLU(0.2), nn.Sigmoid()),
    "ELU": lambda: mobile(nn.ELU(), nn.Sigmoid()),
    "ReLU6": lambda: mobile(nn.ReLU6(), nn.Sigmoid()),
    "ConvNeXt": ConvNeXt,
    "ViT, norms first": lambda: ViT("gelu", first=True),
    "ViT, norms last": lambda: ViT("relu", first=False),
}
IN_PARTS = ("GELU by Tanh", "ConvNeXt", "ViT, norms first")
ATTENTION = frozenset(name for name in NETWORKS if name.startswith("ViT"))


@cache
def exported(name: str, opset: int) -> onnx.ModelProto:
    """By the older exporter. Before opset 17 layer norms, and before 20 GELUs, are written in arithmetic."""
    torch.manual_seed(0)
    net, buffer = NETWORKS[name](), io.BytesIO()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(), torch.zeros(1, 3, 16, 16), buffer, dynamo=False, opset_version=opset,
            input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "N"}, "y": {0: "N"}},
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


@pytest.mark.parametrize(("name", "opset"), [*((n, 20) for n in NETWORKS), *((n, 14) for n in IN_PARTS)])
def test_relevance_is_finite_and_kept_where_that_is_promised(name: str, opset: int) -> None:
    model = without_biases(exported(name, opset))
    found = run(compile_model(model, ",".join(METHODS), stabiliser=1e-12, epsilon=1e-12), X)
    score = np.abs(found["explained_score"])
    for method in METHODS:
        assert np.isfinite(found[f"attribution_{method}"]).all()
        assert found[f"attribution_{method}"].any()
    if name not in ATTENTION:
        for method in CONSERVING:
            assert (np.abs(found[f"residual_{method}"]) <= 1e-4 * score).all(), method


@pytest.mark.parametrize("opset", [14, 20])
@pytest.mark.parametrize("name", sorted(ATTENTION))
def test_attention_loses_relevance_in_its_softmax_alone(name: str, opset: int) -> None:
    """Sample by sample, though torch turns its tensors to (T, N, C) and lays heads beside samples."""
    model = with_batch(without_biases(exported(name, opset)), 2)
    compiled = compile_model(model, "lrp-0", stabiliser=1e-12, diagnostics=True)
    metadata = Metadata.read({e.key: e.value for e in compiled.metadata_props})
    assert metadata is not None
    assert metadata.diagnostics is not None
    found = run(compiled, X)
    lost = np.abs(found["diagnostics"][..., 0] - found["diagnostics"][..., 1]).max(axis=0)
    softmax = [amount for (_, op, _), amount in zip(metadata.diagnostics, lost, strict=True) if op == "Softmax"]
    assert max(softmax) > 1e-2 * np.abs(found["explained_score"]).max()
    for (node, op, rule), amount in zip(metadata.diagnostics, lost, strict=True):
        assert amount <= 1e-4 * np.abs(found["explained_score"]).max() or op == "Softmax", (node, op, rule, amount)


def test_where_samples_cannot_be_told_apart_there_are_no_sums() -> None:
    """Of a batch whose axis is lost in torch's reshapes. Other nodes are right, and all are for one sample."""
    model = exported("ViT, norms first", 20)
    several, fixed = (compile_model(m, "lrp-0", diagnostics=True) for m in (model, with_batch(model, 2)))
    unsure, sure = run(several, X)["diagnostics"], run(fixed, X)["diagnostics"]
    told = np.isfinite(unsure)
    assert 0.5 < told.mean() < 1
    assert np.abs(unsure[told] - sure[told]).max() <= 1e-4 * np.abs(sure).max()
    alone = run(several, X[:1])["diagnostics"]
    assert np.abs(alone - sure[:1]).max() <= 1e-4 * np.abs(sure).max()
