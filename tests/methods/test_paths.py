"""Integrated Gradients and SmoothGrad: quadratures, completeness, chunks, baselines, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from onnxplain.compiler import compile_model
from onnxplain.errors import UsageError
from onnxplain.methods.paths import QUADRATURES, quadrature
from onnxplain.placement.lint import place
from tests.catalogue import SPECIMENS, Specimen, parameters, with_batch
from tests.models.nets import Plain, ready
from tests.running import assert_near, net, operators, run

IG, SMOOTH = "integrated-gradients", "smoothgrad"
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 16, 16)).astype(np.float32)


def plain() -> Any:
    return ready(Plain, 3, 16, 16, exporter="torchscript")


def attribution(method: str, x: Any = X, **settings: Any) -> Any:
    return run(compile_model(plain(), method, **settings), x)["attribution"]


@pytest.mark.parametrize("name", QUADRATURES)
def test_weights_sum_to_one_and_points_lie_on_the_way(name: str) -> None:
    for n in (2, 3, 50):
        nodes, weights = quadrature(name, n)
        assert len(nodes) == len(weights) == n
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        assert nodes.min() >= 0
        assert nodes.max() <= 1
        assert (np.diff(nodes) > 0).all()


@pytest.mark.parametrize(("name", "degree"), [("gauss-legendre", 9), ("middle", 1), ("trapezoid", 1), ("left", 0)])
def test_a_rule_integrates_polynomials_up_to_its_degree(name: str, degree: int) -> None:
    nodes, weights = quadrature(name, 5)
    for power in range(degree + 1):
        assert weights @ nodes**power == pytest.approx(1 / (power + 1), abs=1e-12)
    assert weights @ nodes ** (degree + 1) != pytest.approx(1 / (degree + 2), abs=1e-7)


STEPS = {"vww_96": 400}
"""A network of 27 convolutions between black and the picture: 50 points miss 6 % of the difference, as Captum's do."""


@pytest.mark.parametrize("specimen", parameters(s for s in SPECIMENS if s.trained))
def test_the_attribution_adds_up_to_the_score_within_a_hundredth(specimen: Specimen) -> None:
    """Of its difference to the score at zeros, with 50 points, for the median picture: how much is missing depends on
    where on the way ReLUs open, and each rule misses more on some pictures than on others."""
    model, x = with_batch(specimen.load(), "N"), specimen.images(12, 2)
    returned = run(compile_model(model, IG, steps=STEPS.get(specimen.name, 50)), x)
    feeds = {model.graph.input[0].name: np.zeros_like(x), "target": returned["explained_class"]}
    difference = returned["explained_score"] - run(compile_model(model, target="input"), feeds)["explained_score"]
    total = returned["attribution"].reshape(len(x), -1).sum(1, dtype=np.float64)
    np.testing.assert_allclose(total + returned["residual"], difference, rtol=1e-4, atol=1e-4)
    share = np.abs(returned["residual"] / difference)
    print(f"{specimen}: residual {np.median(share):.1e} of the difference, at most {share.max():.1e}")
    assert np.median(share) <= 0.01


def test_more_points_miss_less() -> None:
    specimen = next(s for s in SPECIMENS if s.name == "shapes")
    model, x = specimen.load(), specimen.images(4, 2)
    missed = [np.abs(run(compile_model(model, IG, steps=n), x)["residual"]).mean() for n in (5, 50, 500)]
    assert missed[0] > 3 * missed[1] > 9 * missed[2]


@pytest.mark.parametrize("construction", ["loop", "unroll"])
@pytest.mark.parametrize("chunk", [1, 3, 4, 7])
def test_chunks_and_constructions_agree(chunk: int, construction: str) -> None:
    for method, settings in (
        (IG, {"steps": 7}),
        (SMOOTH, {"samples": 7}),
        (SMOOTH, {"samples": 7, "variant": "vargrad"}),
    ):
        together = attribution(method, chunk=7, **settings)
        assert_near(attribution(method, chunk=chunk, construction=construction, **settings), together, 1e-5, method)


def test_a_small_variance_keeps_its_digits() -> None:
    """Gradients of about ten that differ in the fifth digit: the mean of squares less the squared mean would not do."""
    rng = np.random.default_rng(0)
    w, v = (rng.standard_normal(shape).round(3) for shape in ((6, 8), (8, 3)))
    text = f"""g (float[N,6] x) => (float[N,3] y) <float[6,8] w = {{{", ".join(map(str, w.ravel()))}}},
        float e = {{0.001}}, float[8,3] v = {{{", ".join(map(str, 10 * v.ravel()))}}}> {{
        h = MatMul(x, w) t = Tanh(h) u = Mul(t, e) s = Add(u, h) y = MatMul(s, v) }}"""
    x, noise = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 6), (40, 2, 6)))
    settings = {"variant": "vargrad", "noise": "input", "samples": 40, "target": 0}
    returned = run(compile_model(net(text), SMOOTH, **settings), {"x": x, "noise": noise})
    h = (x + 0.15 * np.ptp(x, axis=1, keepdims=True) * noise.astype(np.float64)) @ w
    expected = ((0.001 * (1 - np.tanh(h) ** 2) + 1) * 10 * v[:, 0]) @ w.T
    np.testing.assert_allclose(returned["attribution"], expected.var(0), rtol=2e-3)


def test_of_a_linear_model_the_variance_is_zero_and_no_heatmap_is_shown() -> None:
    text = """g (float[N,4] x) => (float[N,2] y) <float[4,2] w = {0.1, 0.7, -1.3, 2.9, 0.3, 0.11, -0.7, 1.7}> {
        y = MatMul(x, w) }"""
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    returned = run(compile_model(net(text), SMOOTH, variant="vargrad"), x)
    assert not returned["attribution"].any()
    assert not returned["heatmap"].any()


def test_one_chunk_or_unrolled_ones_need_no_control_flow() -> None:
    looped = {"chunk": 2, "construction": "loop"}
    for how, loops in (
        (looped, True),
        ({"chunk": 6}, False),
        ({"chunk": 2, "construction": "unroll"}, False),
        ({}, True),
    ):
        compiled = compile_model(plain(), IG, steps=6, **how)
        assert (("", "Loop") in operators(compiled.graph)) is loops
    assert ("", "Loop") not in operators(compile_model(plain(), IG, steps=3, runtime="cuda").graph)


@pytest.mark.parametrize("method", [IG, SMOOTH])
def test_a_fixed_batch_is_stacked_where_the_model_lets_it(method: str) -> None:
    """A model for exactly two pictures: chunks of three run six at once."""
    fixed = with_batch(plain(), 2)
    n = {"steps": 6} if method == IG else {"samples": 6}
    expected = attribution(method, **n)
    for chunk in (1, 3):
        assert_near(run(compile_model(fixed, method, chunk=chunk, **n), X)["attribution"], expected, 1e-5)


def joining() -> ModelProto:
    """Its Reshape joins the pictures of a batch, so that more of them mean something else."""
    return net(
        """g (float[2,3,4,4] x) => (float[2,6] y) <int64[2] s = {2, 6}, float[1,3,3,3] w = {%s}> {
        c = Conv(x, w)  a = Relu(c)  f = Transpose<perm = [2, 0, 1, 3]>(a)  k = Concat<axis = 1>(f, f, f)
        y = Reshape(k, s) }""".replace("%s", ",".join(["0.1"] * 27))
    )


@pytest.mark.parametrize("method", [IG, SMOOTH])
def test_repeated_nodes_take_ten_inputs_each_where_the_model_lets_them(method: str) -> None:
    n = "steps" if method == IG else "samples"

    def passes(model: ModelProto, times: int) -> int:
        weights = next(node.input[1] for node in model.graph.node if node.op_type == "Conv")
        compiled = compile_model(model, method, runtime="cuda", **{n: times})
        return sum(node.op_type == "Conv" and node.input[1] == weights for node in compiled.graph.node) - 1

    assert [passes(plain(), times) for times in (4, 10, 25)] == [1, 1, 3]
    assert passes(joining(), 4) == 4
    unrolled = attribution(method, **{n: 25}, construction="unroll")
    assert_near(unrolled, attribution(method, **{n: 25}, construction="loop"), 1e-5)


RESIDUAL = net(
    """g (float[N,3,4,4] x) => (float[N,3] y) <float[3,3,3,3] w = {%s}> {
    c = Conv<pads = [1, 1, 1, 1]>(x, w)  a = Relu(c)  d = Conv<pads = [1, 1, 1, 1]>(a, w)  s = Add(d, a)
    b = Relu(s)  m = GlobalAveragePool(b)  y = Flatten(m) }""".replace(
        "%s", ",".join(f"{v:.3f}" for v in np.random.default_rng(3).standard_normal(81))
    )
)


@pytest.mark.parametrize("method", [IG, SMOOTH])
@pytest.mark.parametrize("batch", ["N", 2])
def test_of_stacked_inputs_sizes_are_known_to_be_alike(method: str, batch: str | int) -> None:
    """A residual sum of two tensors whose batches have no name would be summed over axes found when it runs."""
    model = RESIDUAL if batch == "N" else with_batch(RESIDUAL, 2)
    n = {"steps" if method == IG else "samples": 6}
    compiled = compile_model(model, method, runtime="cuda", chunk=3, **n)
    assert ("", "NonZero") not in operators(compiled.graph)
    assert not set(place(compiled).shapes) & {node.name for node in compiled.graph.node if "/Add/" in node.name}
    x = np.random.default_rng(5).standard_normal((2, 3, 4, 4)).astype(np.float32)
    alone = run(compile_model(model, method, chunk=1, **n), x)["attribution"]
    assert_near(run(compiled, x)["attribution"], alone, 1e-5)


FIXED = "g (float[2,3] x) => (float[2,3] y) <float[2,3] w = {1,2,3,4,5,6}> { y = Mul(x, w) }"
OTHER = "g (float[{n},3] x, float[{n},3] scale) => (float[{n},3] y) {{ s = Mul(x, scale) y = Relu(s) }}"
ACROSS = """g (float[1,3] x) => (float[1,3] y) <int64[1] axis = {0}> {
    [top] m = ReduceMax(x, axis) y = Sub(x, m) }"""


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (joining(), "Concat (node 'k') may mix them.\n  Leave chunk at 1."),
        (net(FIXED), "it is fixed to a batch of 2; exported with a dynamic one it may take them.\n  Leave chunk at 1."),
        (net(ACROSS), "ReduceMax (node 'top') may mix them.\n  Leave chunk at 1."),
        (
            net(OTHER.format(n="N")),
            "'scale', which comes from another input, has the batch too.\n  Leave chunk at 1.",
        ),
        (
            net(OTHER.format(n="2")),
            "'scale', which comes from another input, has the batch too.\n  Leave chunk at 1.",
        ),
    ],
)
def test_a_chunk_that_the_model_does_not_take_is_refused_with_the_reason(model: ModelProto, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        compile_model(model, IG, input="x", steps=4, chunk=2)
    assert str(caught.value) == (
        "chunk=2 needs a model that takes several batches at once, each sample by itself, and of this one that is not "
        f"sure: {why}"
    )


# Baselines


def ig(baseline: str, x: Any = X, **settings: Any) -> dict[str, Any]:
    return run(compile_model(plain(), IG, steps=5, target=2, baseline=baseline, **settings), x)


def with_given(baseline: Any, x: Any = X) -> dict[str, Any]:
    compiled = compile_model(plain(), IG, steps=5, target=2, baseline="input")
    return run(compiled, {"x": x, "baseline": baseline.astype(np.float32)})


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert_near(a["attribution"], b["attribution"], 1e-5)
    np.testing.assert_allclose(a["residual"], b["residual"], atol=1e-4)


def test_zeros_and_the_mean_of_each_channel() -> None:
    assert_same(ig("zeros"), with_given(0 * X))
    assert_same(ig("zeros"), with_given(0 * X[:1]))
    assert_same(ig("mean"), with_given(np.broadcast_to(X.mean((2, 3), keepdims=True), X.shape)))


def test_black_is_pixel_zero_in_the_models_normalisation() -> None:
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.5]}
    level = -np.divide([0.4, 0.5, 0.6], [0.2, 0.25, 0.5]).reshape(1, 3, 1, 1)
    assert_same(ig("black", preprocess=preprocess), with_given(np.broadcast_to(level, X[:1].shape)))
    with pytest.raises(UsageError, match="'black' is pixel 0 in the model's own normalisation, which is not known"):
        ig("black")


def test_blur_is_a_gaussian_that_counts_only_what_is_inside() -> None:
    sigma, reach = 2.0, 6
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    rows = np.array([[bell[j - i + reach] if abs(j - i) <= reach else 0 for j in range(16)] for i in range(16)])
    rows /= rows.sum(1, keepdims=True)
    assert_same(ig("blur", blur_sigma=sigma), with_given(np.einsum("ih,jw,nchw->ncij", rows, rows, X)))


def test_a_baseline_that_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "bright.npy", np.full((1, 4), 1e5))
    model = net("g (float16[N,4] x) => (float16[N,4] y) { y = Relu(x) }")
    with pytest.raises(UsageError, match=r"bright.npy holds numbers beyond what the model's input can be \(float16\)"):
        compile_model(model, IG, baseline=str(tmp_path / "bright.npy"))


def test_a_file_with_or_without_the_batch_axis(tmp_path: Path) -> None:
    grey = RNG.standard_normal((1, 3, 16, 16))
    expected = with_given(grey)
    for array in (grey, grey[0], grey.astype(np.float32)):
        np.save(tmp_path / "grey.npy", array)
        assert_same(ig(str(tmp_path / "grey.npy")), expected)


def test_each_sample_may_have_its_own_baseline() -> None:
    own = RNG.standard_normal(X.shape)
    both = with_given(own)
    for k in range(2):
        assert_near(with_given(own[k : k + 1], X[k : k + 1])["attribution"], both["attribution"][k : k + 1], 1e-5)


REFUSED: list[tuple[Any, str]] = [
    (np.zeros((3, 16, 15)), r"baseline file b.npy has shape \(1, 3, 16, 15\), and one input of shape \(1, 3, 16, 16\)"),
    (np.zeros((2, 3, 16, 16)), r"baseline file b.npy has shape \(2, 3, 16, 16\), and one input of shape"),
    (np.full((3, 16, 16), np.nan), "baseline file b.npy holds NaN, infinity or no real numbers at all"),
    (np.full((3, 16, 16), np.inf), "holds NaN, infinity"),
    (np.full((3, 16, 16), "a"), "or no real numbers at all"),
]


@pytest.mark.parametrize(("array", "message"), REFUSED)
def test_a_file_of_another_shape_or_without_numbers_is_refused(array: Any, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", array)
    with pytest.raises(UsageError, match=message):
        ig(str(tmp_path / "b.npy"))


def test_a_file_that_is_not_there_or_not_an_array_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("nothing")
    with pytest.raises(UsageError, match=r"there is no baseline file .*none\.npy"):
        ig(str(tmp_path / "none.npy"))
    np.savez(tmp_path / "several.npz", a=np.zeros((3, 16, 16), np.float32))
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    with pytest.raises(UsageError, match=r"several\.npy is not a NumPy array that can be read"):
        ig(str(tmp_path / "several.npy"))
    with pytest.raises(UsageError, match=r"text\.npy is not a NumPy array that can be read"):
        ig(str(tmp_path / "text.npy"))
    with pytest.raises(UsageError, match="baseline 'zeroes' is none of: zeros, black, mean, blur, input, or a"):
        ig("zeroes")


SETTINGS: list[tuple[str, dict[str, Any], str]] = [
    (IG, {"steps": 0}, "parameter 'steps' of integrated-gradients must be at least 1, not 0."),
    (IG, {"steps": -3}, "must be at least 1, not -3."),
    (
        IG,
        {"steps": 10**20},
        "parameter 'steps' of integrated-gradients must be below 2147483648, not 100000000000000000000.",
    ),
    (IG, {"steps": "many"}, "parameter 'steps' of integrated-gradients must be of kind int, not 'many'."),
    (IG, {"steps": 2.5}, "must be of kind int, not 2.5."),
    (IG, {"steps": 1, "quadrature": "trapezoid"}, "the trapezoid rule needs at least 2 steps."),
    (
        IG,
        {"quadrature": "midle"},
        "parameter 'quadrature' of integrated-gradients cannot be 'midle'. Did you mean 'middle'?",
    ),
    (IG, {"chunk": 51}, "chunk=51 is larger than the 50 inputs there are."),
    (IG, {"chunk": -1}, "parameter 'chunk' of integrated-gradients must be at least 0, not -1."),
    (IG, {"step": 5}, "integrated-gradients has no parameter 'step'. Did you mean 'steps'?"),
    (SMOOTH, {"samples": 0}, "parameter 'samples' of smoothgrad must be at least 1, not 0."),
    (SMOOTH, {"samples": 4, "chunk": 5}, "chunk=5 is larger than the 4 inputs there are."),
    (SMOOTH, {"sigma": -0.1}, "parameter 'sigma' of smoothgrad must be at least 0, not -0.1."),
    (SMOOTH, {"sigma": "inf"}, "parameter 'sigma' of smoothgrad must be finite, not 'inf'."),
    (IG, {"baseline": "blur", "blur_sigma": 1e999}, "parameter 'blur_sigma' of integrated-gradients must be finite"),
    (IG, {"steps": float("inf")}, "must be of kind int, not inf."),
    (SMOOTH, {"base": "grad-cam"}, "parameter 'base' of smoothgrad cannot be 'grad-cam'."),
    (SMOOTH, {"variant": "max"}, "parameter 'variant' of smoothgrad cannot be 'max'."),
]


@pytest.mark.parametrize(("method", "settings", "message"), SETTINGS)
def test_settings_out_of_range_are_refused_by_name(method: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        compile_model(plain(), method, **settings)


@pytest.mark.parametrize("runtime", ["portable", "cuda"])
def test_points_that_fill_a_chunk_up_lie_where_others_do(runtime: str) -> None:
    """At the baseline this gradient is infinite, and what weighs nothing there would be NaN."""
    model = net(
        """g (float[N,4] x) => (float[N,3] y) <float[4,3] w = {1,2,3,-4,5,6,7,-8,9,1,-1,2}> {
        l = Log(x) y = MatMul(l, w) }"""
    )
    x = np.random.default_rng(0).uniform(0.5, 2, (2, 4)).astype(np.float32)
    one, seven = (
        run(compile_model(model, IG, steps=50, chunk=chunk, target=1, runtime=runtime), x)["attribution"]
        for chunk in (1, 7)
    )
    assert np.isfinite(one).all()
    assert_near(seven, one, 1e-5)
