"""Maps lie where their places lie in the input, whatever the graph does to the picture before a layer sees it.

The oracle is the same network without that: its map of the changed picture, put back by NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn import functional as F

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedModel
from tests.catalogue import Floats
from tests.models.nets import exported, seeded
from tests.running import run

METHODS = "grad-cam,cam,fem,guided-grad-cam"


class Moved(nn.Module):
    """Two convolutions of a picture that was moved."""

    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.move = move
        self.first, self.second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 1, 1)
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.second(torch.relu(self.first(self.move(x)))))
        scores: Tensor = self.last(h.mean((2, 3)))
        return scores


def pictures(height: int = 24, width: int = 32) -> Floats:
    return np.random.default_rng(0).standard_normal((2, 3, height, width)).astype(np.float32)


@cache
def still(height: int, width: int) -> ModelProto:
    """The network of pictures that are not moved."""
    return moving(lambda x: x, height, width)


def moving(move: Callable[[Tensor], Tensor], height: int = 24, width: int = 32) -> ModelProto:
    return exported(seeded(Moved(move)), torch.zeros(2, 3, height, width), "torchscript")


def of_any_size(model: ModelProto) -> ModelProto:
    for axis, name in ((2, "H"), (3, "W")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    return model


def maps(model: ModelProto, images: Floats) -> dict[str, Floats]:
    found = run(compile_model(model, METHODS, target=1), images)
    return {name: found[f"heatmap_{name}"] for name in METHODS.split(",")} | {
        f"raw {name}": found[f"attribution_{name}"] for name in ("grad-cam", "fem")
    }


MOVES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Floats], Floats]]] = {
    "cropped": (
        lambda x: x[:, :, 4:20, 8:32],
        lambda h: np.pad(h, ((0, 0), (4, 4), (8, 0))),
    ),
    "mirrored": (lambda x: x.flip(3), lambda h: h[:, :, ::-1]),
    "mirrored twice": (lambda x: x.flip(2).flip(3), lambda h: h[:, ::-1, ::-1]),
    "turned": (lambda x: x.transpose(2, 3), lambda h: h.transpose(0, 2, 1)),
    "cropped and mirrored": (
        lambda x: x[:, :, 8:].flip(2),
        lambda h: np.pad(h[:, ::-1], ((0, 0), (8, 0), (0, 0))),
    ),
    "as two halves, one of which is seen": (
        lambda x: x.chunk(2, 3)[1],
        lambda h: np.pad(h, ((0, 0), (0, 0), (16, 0))),
    ),
    "mirrored by indices": (lambda x: x[:, :, torch.arange(23, -1, -1)], lambda h: h[:, ::-1]),
}


@pytest.mark.parametrize("how", MOVES)
def test_a_picture_that_is_moved_before_the_network_sees_it(how: str) -> None:
    move, back = MOVES[how]
    images = pictures()
    seen = move(torch.from_numpy(images)).numpy()
    expected = maps(still(*seen.shape[2:]), np.ascontiguousarray(seen))
    found = maps(moving(move), images)
    for name in METHODS.split(","):
        np.testing.assert_allclose(found[name], back(expected[name]), atol=2e-5, err_msg=name)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_a_letterbox_is_cut_off(mode: str) -> None:
    """Places of the padding are of nothing; what is left is scaled from its own minimum to its own maximum."""

    def move(x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 8, 0), mode=mode)

    images = pictures()
    found = maps(moving(move), images)
    expected = maps(still(32, 32), move(torch.from_numpy(images)).numpy())
    for name in ("grad-cam", "fem"):
        raw = torch.from_numpy(expected[f"raw {name}"])[:, None]
        np.testing.assert_allclose(found[f"raw {name}"], raw[:, 0], rtol=1e-4, atol=1e-6)
        fine = F.interpolate(raw, size=(32, 32), mode="bilinear")[:, 0, 8:].numpy()
        low, high = fine.min((1, 2), keepdims=True), fine.max((1, 2), keepdims=True)
        np.testing.assert_allclose(found[name], (fine - low) / (high - low), atol=2e-5)


@pytest.mark.parametrize(
    ("stem", "pads"),
    [
        (seeded(nn.Conv2d(3, 3, 7)).requires_grad_(False), (3,) * 4),
        (seeded(nn.Conv2d(3, 3, 3, 2)).requires_grad_(False), (0, 1) * 2),
    ],
)
def test_padding_for_a_window_is_none_of_the_map(stem: nn.Conv2d, pads: tuple[int, ...]) -> None:
    """As Keras and TensorFlow pad: the map is stretched over the whole picture, as without."""

    def move(x: Tensor) -> Tensor:
        padded: Tensor = stem(F.pad(x, pads, mode="reflect"))
        return padded

    images = pictures(32, 32)
    found = maps(moving(move, 32), images)
    for name in ("grad-cam", "fem"):
        fine = F.interpolate(torch.from_numpy(found[f"raw {name}"])[:, None], size=(32, 32), mode="bilinear")[:, 0]
        low, high = fine.amin((1, 2), keepdim=True), fine.amax((1, 2), keepdim=True)
        np.testing.assert_allclose(found[name], (fine - low) / (high - low), atol=2e-5)


TOLD = (
    "between the input 'x' and the layer looked at the picture is cropped, padded, mirrored or put together: where a "
    "place lies in the input cannot be told.\n"
    "  Choose a method that reaches the input, such as gradient; if the model's sizes are free, export it with fixed "
    "ones."
)


@pytest.mark.parametrize("method", METHODS.split(","))
def test_pictures_that_are_put_together_are_refused(method: str) -> None:
    model = moving(lambda x: torch.cat([x[:, :, 12:], x[:, :, :12]], 2))
    with pytest.raises(UnsupportedModel) as caught:
        compile_model(model, method)
    assert str(caught.value) == TOLD


def test_a_crop_of_a_picture_of_any_size_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="put together"):
        compile_model(of_any_size(moving(lambda x: x[:, :, 4:])), "grad-cam")
    whole = of_any_size(moving(lambda x: x + 0))
    assert run(compile_model(whole, "grad-cam"), pictures(16, 40))["heatmap"].shape == (2, 16, 40)


def test_sums_of_what_shows_other_places_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="put together"):
        compile_model(moving(lambda x: x + x.flip(3)), "grad-cam")


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("method", ["grad-cam", "fem", "guided-grad-cam"])
def test_parts_of_a_picture_in_the_place_of_samples_are_no_layer(method: str, dynamic: bool) -> None:
    """Their maps would be returned as those of other pictures."""
    parts = exported(seeded(Parts()), torch.zeros(2, 3, 16, 16), "torchscript", dynamic=dynamic)
    with pytest.raises(UnsupportedModel, match="no layer with spatial extent lies on all paths"):
        compile_model(parts, method)


class Parts(nn.Module):
    """Each channel through one network by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.conv(x.reshape(-1, 1, 16, 16))).mean((2, 3))
        scores: Tensor = self.last(h.reshape(-1, 3, 8).mean(1))
        return scores
