"""The heatmap: in [0, 1], each sample by itself, and zero where there is nothing to show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedModel
from tests.catalogue import SPECIMENS, Specimen, parameters, with_batch
from tests.models.nets import Plain, ready
from tests.running import net, run

X = np.random.default_rng(0).standard_normal((3, 3, 16, 16)).astype(np.float32)
METHODS = (
    "gradient",
    "gradient-x-input",
    "deconvnet",
    "guided-backprop",
    "grad-cam",
    "guided-grad-cam",
    "fem",
    "integrated-gradients",
    "smoothgrad",
)
SETTINGS: dict[str, dict[str, Any]] = {"integrated-gradients": {"steps": 2}, "smoothgrad": {"samples": 2}}


def explained(method: str, model: Any = None, x: Any = X, **how: Any) -> Any:
    chosen = ready(Plain, 3, 16, 16, exporter="torchscript") if model is None else model
    return run(compile_model(chosen, method, **SETTINGS.get(method, {}), **how), x)


@pytest.mark.parametrize("method", METHODS)
def test_it_reaches_from_zero_to_one_whatever_the_scale_and_the_other_samples(method: str) -> None:
    returned = explained(method)
    heatmap = returned["heatmap"]
    assert heatmap.dtype == np.float32
    assert heatmap.min() >= 0
    for one in heatmap:
        assert one.max() == pytest.approx(1, abs=1e-6) or not one.any()
    assert sum(bool(one.any()) for one in heatmap) >= 2
    alone = np.concatenate([explained(method, x=X[k : k + 1])["heatmap"] for k in range(3)])
    np.testing.assert_allclose(heatmap, alone, atol=1e-5)


def reduced(attribution: Any, method: str) -> Any:
    """The largest magnitude over channels, or for methods that share a score out, the positive part of the sum."""
    signed = method in ("gradient-x-input", "integrated-gradients")
    size = np.maximum(attribution.sum(1), 0) if signed else np.abs(attribution).max(1)
    return size / size.max((1, 2), keepdims=True)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("grad-cam", "fem")])
def test_how_each_family_is_reduced(method: str) -> None:
    returned = explained(method)
    np.testing.assert_allclose(returned["heatmap"], reduced(returned["attribution"], method), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("x", [np.zeros_like(X), np.full_like(X, 0.5)], ids=["black", "grey"])
def test_pictures_of_one_colour_give_no_nan(method: str, x: Any) -> None:
    returned = explained(method, x=x)
    for name, value in returned.items():
        assert np.isfinite(value).all(), name
    assert 0 <= returned["heatmap"].min() <= returned["heatmap"].max() <= 1


DEAD = """g (float[N,3,8,8] x) => (float[N,2] y) <float[2,3,1,1] w = {1,2,3,4,5,6}, float[2] low = {-1000,-1000}> {
    c = Conv(x, w, low) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p) }"""


@pytest.mark.parametrize("method", [m for m in METHODS if m != "deconvnet"])
def test_where_nothing_reaches_the_score_it_is_zero(method: str) -> None:
    """Every ReLU is closed."""
    returned = explained(method, net(DEAD), np.ones((2, 3, 8, 8), np.float32))
    for name in ("attribution", "heatmap"):
        assert not returned[name].any(), name
        assert np.isfinite(returned[name]).all(), name


def test_a_map_that_is_the_same_everywhere_shows_nothing() -> None:
    model = net(DEAD.replace("-1000,-1000", "1,1"))
    for method in ("grad-cam", "fem", "cam"):
        returned = explained(method, model, np.ones((2, 3, 8, 8), np.float32))
        assert not returned["heatmap"].any(), method


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_slopes_are_shown_like_others(scale: float) -> None:
    text = f"""g (float[N,1,2,2] x) => (float[N,1] y) <float[1,1,2,2] w = {{{scale}, {2 * scale}, {-4 * scale}, 0}}> {{
        c = Conv(x, w) y = Flatten(c) }}"""
    returned = explained("gradient", net(text), np.ones((1, 1, 2, 2), np.float32))
    np.testing.assert_allclose(returned["heatmap"][0], [[0.25, 0.5], [1, 0]], rtol=1e-6)


@pytest.mark.parametrize("method", ["gradient", "integrated-gradients"])
def test_inputs_without_space_have_a_heatmap_of_their_features(method: str) -> None:
    model = net("g (float[N,3] x) => (float[N,1] y) <float[3,1] w = {1,-2,4}> { y = MatMul(x, w) }")
    x = np.array([[1, 1, 1], [2, -4, 0]], np.float32)
    returned = explained(method, model, x)
    expected = [[0.25, 0.5, 1]] * 2 if method == "gradient" else [[0.25, 0, 1], [0.25, 1, 0]]
    np.testing.assert_allclose(returned["heatmap"], expected, rtol=1e-5)


@pytest.mark.parametrize("specimen", parameters(s for s in SPECIMENS if s.trained))
def test_trained_models(specimen: Specimen) -> None:
    model, x = with_batch(specimen.load(), "N"), specimen.images(3, 3)
    returned = run(compile_model(model, "gradient,guided-backprop,grad-cam,fem"), x)
    for name, value in returned.items():
        assert np.isfinite(value).all(), name
        if name.startswith("heatmap"):
            assert value.dtype == np.float32
            assert value.min() >= 0
            assert np.isclose(value.reshape(3, -1).max(1), 1, atol=1e-5).all() | (name == "heatmap_grad-cam")


@pytest.mark.parametrize("method", ["grad-cam", "cam", "fem"])
def test_nor_does_one_that_interpolation_rounds(method: str) -> None:
    """Interpolation gives numbers that differ in their last place, which stretched from 0 to 1 are noise."""
    seeded = np.random.default_rng(0)
    listed = [", ".join(map(str, seeded.standard_normal(n).round(3))) for n in (216, 8, 40)]
    text = f"""g (float[N,3,9,9] x) => (float[N,5] y) <float[8,3,3,3] w = {{{listed[0]}}}, float[8] b = {{{listed[1]}}},
        float[5,8] v = {{{listed[2]}}}> {{ c = Conv(x, w, b) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p)
        y = Gemm<transB = 1>(f, v) }}"""
    plain = np.zeros((2, 3, 9, 9), np.float32)
    plain[1] = seeded.standard_normal((3, 9, 9))
    returned = explained(method, net(text), plain)
    assert np.ptp(returned["attribution"][0]) < 1e-6
    assert np.abs(returned["attribution"][0]).max() > 0.1
    assert not returned["heatmap"][0].any()
    assert returned["heatmap"][1].max() == pytest.approx(1)


def test_a_layer_of_other_dimensions_than_the_input_is_refused() -> None:
    """A signal that the model folds to a picture: where a pixel lies in the signal is not known."""
    model = net("""g (float[N,16] x) => (float[N,2] y) <int64[4] picture = {0,1,4,4}, float[2,1,1,1] w = {1,-2}> {
        p = Reshape(x, picture) c = Conv(p, w) r = Relu(c) m = GlobalAveragePool(r) y = Flatten(m) }""")
    with pytest.raises(UnsupportedModel, match=r"has 2 spatial dimensions and the input 'x' .* has 1: where a place"):
        compile_model(model, "grad-cam")
