"""The noise that SmoothGrad draws in the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from onnxplain.compiler import compile_model
from onnxplain.ir.builder import Builder
from onnxplain.ir.load import load
from onnxplain.ir.save import to_proto
from onnxplain.passes.canonical import canonicalise
from onnxplain.passes.explain.noise import standard_normal
from tests.models.nets import Plain, ready
from tests.running import Array, assert_near, net, operators, run, session


def drawn(samples: int, shape: tuple[int, ...], seed: int = 0) -> Array:
    """Noise (samples, *shape) as a graph draws it."""
    sizes = ",".join(map(str, shape))
    model, _ = canonicalise(load(net(f"g (float[{sizes}] x) => (float[{sizes}] y) {{ y = Relu(x) }}")))
    g = Builder(model)
    x = g.wrap(model.graph.inputs[0])
    noise = standard_normal(g, g.ints(range(samples)), g.op("Shape", x), seed, x)
    model.graph.outputs.append(g.publish(noise, "noise").tensor)
    return run(to_proto(model), np.zeros(shape, np.float32))["noise"]


def correlation(a: Array, b: Array) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


N = 40 * 3 * 64 * 64
"""Numbers drawn; of so many, the mean has a deviation of 1 / sqrt(N)."""


@pytest.fixture(scope="module")
def noise() -> Array:
    return drawn(40, (3, 64, 64)).astype(np.float64)


def test_it_is_standard_normal(noise: Array) -> None:
    assert noise.shape == (40, 3, 64, 64)
    assert abs(noise.mean()) < 4 / N**0.5
    assert abs(noise.var() - 1) < 4 * (2 / N) ** 0.5
    assert abs((noise**3).mean()) < 4 * (15 / N) ** 0.5
    assert abs((noise**4).mean() - 3) < 4 * (96 / N) ** 0.5
    for threshold, share in ((1, 0.317311), (2, 0.045500), (3, 0.002700)):
        assert abs((np.abs(noise) > threshold).mean() - share) < 4 * (share / N) ** 0.5
    assert 4.2 < np.abs(noise).max() < 6.5


def test_neighbours_rows_channels_and_draws_do_not_correlate(noise: Array) -> None:
    allowed = 4 / (N / 2) ** 0.5
    for lag in (1, 2, 3, 7, 31):
        assert abs(correlation(noise[..., lag:], noise[..., :-lag])) < allowed
        assert abs(correlation(noise[..., lag:, :], noise[..., :-lag, :])) < allowed
    assert abs(correlation(noise[:, 1:], noise[:, :-1])) < allowed
    assert abs(correlation(noise[1:], noise[:-1])) < allowed
    assert abs(correlation(noise[1:] ** 2, noise[:-1] ** 2)) < allowed


def test_its_spectrum_is_flat(noise: Array) -> None:
    """No wave stands out: every power is exponentially distributed around one."""
    power = (np.abs(np.fft.fft2(noise)) ** 2 / (64 * 64)).mean((0, 1))
    power = power[: 64 // 2, 1 : 64 // 2]
    assert abs(power.mean() - 1) < 0.01
    assert power.max() < 1 + 6 / 120**0.5


def test_no_two_draws_are_equal(noise: Array) -> None:
    assert len(np.unique(noise.reshape(40, -1).round(6), axis=0)) == 40
    assert len(np.unique(noise)) > 0.9 * N


def test_another_seed_is_other_noise_and_the_same_seed_the_same(noise: Array) -> None:
    other = drawn(4, (3, 64, 64), seed=1)
    assert abs(correlation(other, noise[:4])) < 4 / (4 * 3 * 64 * 64) ** 0.5
    np.testing.assert_array_equal(drawn(4, (3, 64, 64)), noise[:4].astype(np.float32))


SHAPE = (3, 16, 16)
X = np.random.default_rng(0).standard_normal((3, *SHAPE)).astype(np.float32)


def compiled(**settings: Any) -> Any:
    return compile_model(ready(Plain, *SHAPE, exporter="torchscript"), "smoothgrad", samples=6, **settings)


def test_every_run_and_every_session_gives_the_same() -> None:
    model = compiled()
    opened = session(model)
    first = run(opened, X)["attribution"]
    np.testing.assert_array_equal(run(opened, X)["attribution"], first)
    np.testing.assert_array_equal(run(model, X)["attribution"], first)
    assert not {"RandomNormal", "RandomNormalLike", "RandomUniform"} & {op for _, op in operators(model.graph)}


def test_a_samples_result_does_not_depend_on_its_batch() -> None:
    opened = session(compiled())
    together = run(opened, X)["attribution"]
    for k in range(3):
        assert_near(run(opened, X[k : k + 1])["attribution"], together[k : k + 1], 1e-5)
    assert_near(run(opened, X[::-1])["attribution"][::-1], together, 1e-5)


def test_the_graphs_noise_given_as_an_input_returns_the_same() -> None:
    for chunk in (1, 4, 6):
        noise = drawn(6, SHAPE)[:, None].repeat(3, axis=1)
        expected = run(compiled(noise="input", chunk=chunk), {"x": X, "noise": noise})["attribution"]
        assert_near(run(compiled(chunk=chunk), X)["attribution"], expected, 1e-5)


def test_seeds_differ_and_no_noise_is_the_gradient() -> None:
    first, second = (run(compiled(seed=seed), X)["attribution"] for seed in (0, 1))
    assert np.abs(first - second).max() > 1e-3
    plain = run(compile_model(ready(Plain, *SHAPE, exporter="torchscript")), X)["attribution"]
    assert_near(run(compiled(sigma=0), X)["attribution"], plain, 1e-5)


@pytest.mark.parametrize("base", ["gradient", "gradient-x-input", "guided-backprop", "deconvnet"])
def test_any_gradient_method_can_be_the_base(base: str) -> None:
    noise = np.random.default_rng(4).standard_normal((6, *X.shape)).astype(np.float32)
    spread = 0.15 * np.ptp(X.reshape(3, -1), axis=1).reshape(-1, 1, 1, 1)
    classes = run(compile_model(ready(Plain, *SHAPE, exporter="torchscript")), X)["explained_class"]
    one = session(compile_model(ready(Plain, *SHAPE, exporter="torchscript"), base, target="input"))
    maps = [run(one, {"x": X + spread * each, "target": classes})["attribution"] for each in noise]
    found = run(compiled(base=base, noise="input"), {"x": X, "noise": noise})["attribution"]
    assert_near(found, np.mean(maps, axis=0), 1e-5, base)


def test_smoothgrad_takes_sizes_that_are_known_only_at_run_time() -> None:
    """Height and width free: the map is the one that the same network of fixed sizes has."""
    text = """g (float[N,2,{h},{w}] x) => (float[N,2] y) {{
        e = Exp(x) s = ReduceSum<keepdims = 0>(e, axes) y = Mul(s, s) }}"""
    found = []
    for h, w in ((5, 4), ("H", "W")):
        model = net(text.format(h=h, w=w))
        model.graph.initializer.append(numpy_helper.from_array(np.asarray([2, 3]), "axes"))
        x = np.random.default_rng(0).standard_normal((2, 2, 5, 4)).astype(np.float32)
        found.append(run(compile_model(model, "smoothgrad", samples=3), x)["attribution"])
    assert np.any(found[0])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
