"""Upsample, and Resize of opset 10: the converted model is the same model, and its gradient the slope of it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedModel
from tests.running import Array, net, run

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 1, 5, 4)).astype(np.float32)


def enlarging(node: str, opset: int, scales: tuple[float, float] = (1, 1), batch: int | str = "N") -> ModelProto:
    """Linear from end to end, so that differences are slopes."""
    sizes = [int(np.floor(np.float32(size) * np.float32(by))) for size, by in zip((5, 4), scales, strict=True)]
    text = f"""g (float[{batch},1,5,4] x) => (float[{batch},3] y) {{ u = {node} f = Flatten(u) y = MatMul(f, w) }}"""
    model = net(text, opset, 9)
    weights = {"w": RNG.standard_normal((sizes[0] * sizes[1], 3)), "s": np.array([1, 1, *scales]), "r": np.zeros(0)}
    used = {name for n in model.graph.node for name in n.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items() if name in used
    )
    return model


def assert_slope(model: ModelProto, x: Array = X) -> None:
    """The model's own outputs are kept, and the gradient is what each unit of the input brings."""
    found, expected = run(compile_model(model, "gradient", target=1), x), run(model, x)
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-5, atol=1e-5)
    rest = run(model, np.zeros_like(x))["y"][0, 1]
    units = np.eye(x[0].size, dtype=np.float32).reshape(-1, *x.shape[1:])
    slopes = [run(model, np.repeat(unit[None], len(x), 0))["y"][0, 1] - rest for unit in units]
    np.testing.assert_allclose(found["attribution"][0].ravel(), slopes, atol=1e-5)


@pytest.mark.parametrize("scales", [(2, 2), (1.5, 1.7), (1, 3)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("opset", [7, 9, 10])
def test_what_is_enlarged_stays_what_it_was(opset: int, mode: str, scales: tuple[float, float]) -> None:
    stated = f", scales = [1.0, 1.0, {scales[0]:.1f}, {scales[1]:.1f}]>(x)" if opset == 7 else ">(x, s)"
    assert_slope(enlarging(f'{"Resize" if opset == 10 else "Upsample"}<mode = "{mode}"{stated}', opset, scales))


def test_what_is_reduced_linearly_stays_what_it_was() -> None:
    assert_slope(enlarging('Resize<mode = "linear">(x, s)', 10, (0.6, 0.5)))


@pytest.mark.parametrize("operator", ["Upsample", "Resize"])
def test_the_nearest_element_of_what_shrinks_is_refused(operator: str) -> None:
    model = enlarging(f"{operator}(x, s)", 10 if operator == "Resize" else 9, (0.5, 0.5))
    model.graph.node[0].name = "smaller"
    with pytest.raises(UnsupportedModel) as caught:
        compile_model(model)
    assert str(caught.value) == (
        f"node 'smaller' is a '{operator}' that shrinks to the nearest element, of an opset before 11, in which ONNX "
        "does not say which one that is.\n  Export the model with opset 11 or newer."
    )


NEAREST = [
    ("align_corners", "floor", 0.75),
    ("align_corners", "round_prefer_floor", 1.5),
    ("half_pixel", "floor", 0.6),
    ("pytorch_half_pixel", "floor", 0.6),
    ("asymmetric", "floor", 1.7),
]


@pytest.mark.parametrize("batch", [2, "N"])
@pytest.mark.parametrize(("place", "nearest", "scale"), NEAREST)
def test_elements_are_those_that_the_runtime_takes(place: str, nearest: str, scale: float, batch: int | str) -> None:
    """With a batch that is known, where the elements come from could be computed when compiling, and was, wrongly."""
    how = f'mode = "nearest", coordinate_transformation_mode = "{place}", nearest_mode = "{nearest}"'
    assert_slope(enlarging(f"Resize<{how}>(x, r, s)", 13, (scale, scale), batch))


def test_an_older_way_to_the_nearest_element() -> None:
    how = 'mode = "nearest", coordinate_transformation_mode = "tf_half_pixel_for_nn", nearest_mode = "floor"'
    assert_slope(enlarging(f"Resize<{how}>(x, r, s)", 11, (2, 2)))


@pytest.mark.parametrize("scales", [(0.66, 0.57), (0.5, 0.75)])
def test_antialiasing_with_aligned_corners(scales: tuple[float, float]) -> None:
    how = 'mode = "linear", antialias = 1, coordinate_transformation_mode = "align_corners"'
    assert_slope(enlarging(f"Resize<{how}>(x, , s)", 19, scales))


def test_antialiasing_to_one_element() -> None:
    model = net(
        """g (float[N,1,5,4] x) => (float[N,3] y) <int64[2] z = {1, 3}, float[3,3] w = {1,2,3,-4,5,6,7,8,-9}> {
        u = Resize<mode = "linear", antialias = 1, coordinate_transformation_mode = "pytorch_half_pixel", axes = [2,3]>
            (x, , , z)
        f = Flatten(u) y = MatMul(f, w) }""",
        19,
    )
    assert_slope(model)


@pytest.mark.parametrize(("mode", "scales"), [("linear", (1.5, 1.5)), ("cubic", (1.7, 1.3)), ("nearest", (0.6, 0.7))])
def test_constants_are_resized_as_the_runtime_does(mode: str, scales: tuple[float, float]) -> None:
    sizes = [int(np.floor(np.float32(size) * np.float32(by))) for size, by in zip((5, 4), scales, strict=True)]
    model = net(
        f"""g (float[N,1,{sizes[0]},{sizes[1]}] x) => (float[N,3] y) {{
        p = Resize<mode = "{mode}", coordinate_transformation_mode = "align_corners">(places, r, s)
        a = Add(x, p) f = Flatten(a) y = MatMul(f, w) }}""",
        13,
    )
    weights = {
        "places": RNG.standard_normal((1, 1, 5, 4)), "r": np.zeros(0), "s": np.array([1, 1, *scales]),
        "w": RNG.standard_normal((sizes[0] * sizes[1], 3)),
    }  # fmt: skip
    model.graph.initializer.extend(numpy_helper.from_array(a.astype(np.float32), name) for name, a in weights.items())
    assert_slope(model, RNG.standard_normal((2, 1, *sizes)).astype(np.float32))
