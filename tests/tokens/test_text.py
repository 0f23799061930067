"""Activation maps of classifiers that look numbers of tokens up in a table, against torch in float64.

Each test computes what stands behind its layer anew from that layer's values, and differentiates by them.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from onnxplain.compiler import compile_model
from onnxplain.errors import OnnxplainError
from tests.models.nets import seeded
from tests.parity.fem import paper
from tests.running import assert_near, net, run

WORDS, LENGTH, WIDTH = 20, 10, 16


class Text(nn.Module):
    """features: those that are to be looked at, (N, tokens, features); head: the scores from these."""

    def __init__(
        self,
        features: Callable[[Text, Tensor], Tensor],
        head: Callable[[Text, Tensor], Tensor],
        **parts: nn.Module,
    ) -> None:
        super().__init__()
        self.parts, self.features, self.head = nn.ModuleDict(parts), features, head
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Parameter(torch.randn(LENGTH, WIDTH, generator=torch.Generator().manual_seed(0)))

    def __getitem__(self, name: str) -> nn.Module:
        return self.parts[name]

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self, self.features(self, ids))


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True)


def embedded(net: Text, ids: Tensor) -> Tensor:
    found: Tensor = net.words(ids) + net.places
    return found


TEXTS: dict[str, Callable[[], Text]] = {
    "transformer": lambda: Text(
        lambda net, ids: net["b"](net["a"](embedded(net, ids))),
        lambda net, x: net["last"](x.mean(1)),
        a=encoder(), b=encoder(), last=nn.Linear(WIDTH, 3),
    ),
    "transformer read at its first token": lambda: Text(
        lambda net, ids: net["a"](embedded(net, ids)),
        lambda net, x: net["last"](net["b"](x)[:, 0]),
        a=encoder(), b=encoder(), last=nn.Linear(WIDTH, 3),
    ),
    "LSTM": lambda: Text(
        embedded,
        lambda net, x: net["last"](net["a"](x)[0][:, -1]),
        a=nn.LSTM(WIDTH, 6, batch_first=True), last=nn.Linear(6, 3),
    ),
    "convolution": lambda: Text(
        lambda net, ids: torch.relu(net["a"](embedded(net, ids).transpose(1, 2))).transpose(1, 2),
        lambda net, x: net["last"](x.amax(1)),
        a=nn.Conv1d(WIDTH, 6, 3), last=nn.Linear(6, 3),
    ),
    "convolutions side by side": lambda: Text(
        embedded,
        lambda net, x: net["last"](torch.cat([net[k](x.transpose(1, 2)).relu().amax(2) for k in "ab"], 1)),
        a=nn.Conv1d(WIDTH, 6, 3), b=nn.Conv1d(WIDTH, 6, 4), last=nn.Linear(12, 3),
    ),
    "bag of words": lambda: Text(embedded, lambda net, x: net["last"](x.mean(1)), last=nn.Linear(WIDTH, 3)),
}  # fmt: skip


def numbers() -> Tensor:
    return torch.randint(0, WORDS, (2, LENGTH), generator=torch.Generator().manual_seed(1))


def exported(net: nn.Module, given: tuple[Tensor, ...], names: list[str]) -> onnx.ModelProto:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, given, file, dynamo=False, input_names=names, output_names=["scores"],
            dynamic_axes={name: {0: "N"} for name in (*names, "scores")},
        )  # fmt: skip
    return onnx.load_model_from_string(file.getvalue())


def expected(net: Text, head: Callable[[Tensor], Tensor], ids: Tensor) -> tuple[Tensor, Tensor]:
    """Grad-CAM and FEM."""
    features = net.features(net, ids).detach().requires_grad_()
    (d,) = torch.autograd.grad(head(features).amax(1).sum(), features)
    cam = torch.relu((d.mean(1, keepdim=True) * features).sum(2)).detach()
    fem = np.stack([paper(each.T.detach().numpy(), 1.0) for each in features])
    return cam, torch.from_numpy(fem)


@pytest.mark.parametrize("name", TEXTS)
def test_maps_have_one_number_for_each_token(name: str) -> None:
    text, ids = seeded(TEXTS[name]()), numbers()
    assert isinstance(text, Text)
    found = run(compile_model(exported(text, (ids,), ["ids"]), "grad-cam,fem"), ids.numpy())
    text = text.double()
    cam, fem = expected(text, lambda x: text.head(text, x), ids)
    assert cam.any(), "a map of zeros would show nothing"
    assert_near(found["attribution_grad-cam"], cam.numpy(), 1e-4, name)
    assert_near(found["attribution_fem"], fem.numpy(), 1e-4, name)
    assert found["heatmap_grad-cam"].shape == found["heatmap_fem"].shape == (2, LENGTH)


class Masked(nn.Module):
    """The mean over the tokens that a second input marks; their features times the mask are looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.text = TEXTS["transformer"]()

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        kept = mask.unsqueeze(-1).float()
        features = self.text.features(self.text, ids) * kept
        scores: Tensor = self.text["last"](features.sum(1) / kept.sum(1))
        return scores


def test_a_mask_beside_the_tokens_hides_what_it_hides() -> None:
    network, ids = seeded(Masked()), numbers()
    assert isinstance(network, Masked)
    mask = torch.ones_like(ids)
    mask[0, 7:] = mask[1, 4:] = 0
    model = exported(network, (ids, mask), ["ids", "mask"])
    compiled = compile_model(model, "grad-cam", input="ids")
    found = run(compiled, {"ids": ids.numpy(), "mask": mask.numpy()})
    network = network.double()
    kept = mask.unsqueeze(-1).double()
    features = (network.text.features(network.text, ids) * kept).detach().requires_grad_()
    (d,) = torch.autograd.grad(network.text["last"](features.sum(1) / kept.sum(1)).amax(1).sum(), features)
    cam = torch.relu((d.mean(1, keepdim=True) * features).sum(2)).detach().numpy()
    assert cam.any()
    assert not cam[mask.numpy() == 0].any()
    assert_near(found["attribution"], cam, 1e-4)


def test_the_embedding_may_be_named() -> None:
    model = exported(seeded(TEXTS["transformer"]()), (numbers(),), ["ids"])
    lookup = next(n for n in model.graph.node if n.op_type == "Gather" and "ids" in n.input)
    found = run(compile_model(model, "grad-cam", layer=lookup.name), numbers().numpy())
    assert found["attribution"].shape == (2, LENGTH)


@pytest.mark.parametrize("layer", ["", "c"])
def test_where_no_layers_places_are_known_no_layer_is_asked_for(layer: str) -> None:
    model = net("""g (int64[N,4] ids) => (float[N,1] y) <float[4,1] w = {1,2,3,4}> {
        c = Cast<to=1>(ids) y = MatMul(c, w) }""")
    with pytest.raises(OnnxplainError) as caught:
        compile_model(model, "grad-cam", layer=layer)
    assert str(caught.value).endswith(
        "\n  Of no layer it is known which of its axes are places, so that none can be named. Export the model with "
        "real numbers as its input, such as those that it looks up for each token."
    )


def test_of_a_real_input_a_method_that_reaches_it_is_named() -> None:
    model = net("g (float[N,4] x) => (float[N,1] y) <float[4,1] w = {1,2,3,4}> { y = MatMul(x, w) }")
    with pytest.raises(OnnxplainError) as caught:
        compile_model(model, "grad-cam")
    assert str(caught.value) == (
        "between 'x' and 'y' no layer with spatial extent lies on all paths, neither behind the last convolution nor "
        "among tokens.\n"
        "  Of no layer it is known which of its axes are places, so that none can be named. Choose a method that "
        "reaches the input, such as gradient."
    )
