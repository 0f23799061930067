"""DeepLIFT as a method: its baselines, what is computed when, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxplain.compiler import compile_model
from onnxplain.errors import UsageError
from onnxplain.ir.load import load
from onnxplain.ir.model import Model
from onnxplain.passes.base import run_passes
from onnxplain.passes.optimise.fold_baseline import FoldBaseline
from tests.catalogue import OWN_SPECIMENS, SHARED_SPECIMENS, Specimen, parameters, with_batch
from tests.methods.plain_deeplift import Array
from tests.running import Results, assert_near, run, session
from tests.zoo.architectures import ZOO, samples
from tests.zoo.exporting import exported

METHODS = ("deeplift", "deeplift-rescale", "deeplift-revealcancel")
DIGITS = next(s for s in OWN_SPECIMENS if s.name == "digits")
SHAPES = next(s for s in OWN_SPECIMENS if s.name == "shapes")


def explain(model: onnx.ModelProto, x: Array, method: str = "deeplift", **how: Any) -> Results:
    return run(compile_model(model, method, **how), x)


def assert_sums(results: Results, tolerance: float = 1e-4) -> None:
    """|residual| within a share of the score's difference from the baseline's."""
    total = results["attribution"].reshape(len(results["attribution"]), -1).sum(1, dtype=np.float64)
    assert (np.abs(results["residual"]) <= tolerance * np.abs(total + results["residual"])).all()


def saved(folder: Path, array: Array) -> str:
    np.save(folder / "baseline.npy", array)
    return str(folder / "baseline.npy")


# Baselines


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("baseline", ["zeros", "black", "mean", "blur", "file"])
def test_every_baseline_is_what_it_says(method: str, baseline: str, tmp_path: Path) -> None:
    """The same as the run-time input with those numbers, and the sum kept."""
    model, x = SHAPES.load(), SHAPES.images(2, 0)
    scale = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "scale": 1 / 255}
    other = SHAPES.images(1, 9)
    numbers = {
        "zeros": np.zeros_like(x[:1]),
        "black": np.broadcast_to(np.reshape([-0.5 / 0.2, -0.4 / 0.25, -1.0], (1, 3, 1, 1)), x[:1].shape),
        "mean": np.broadcast_to(x.mean((2, 3), keepdims=True), x.shape),
        "file": other,
    }
    asked = saved(tmp_path, other) if baseline == "file" else baseline
    found = explain(model, x, method, baseline=asked, preprocess=scale)
    assert_sums(found)
    if baseline in numbers:
        at_run_time = compile_model(model, method, baseline="input")
        fed = {at_run_time.graph.input[0].name: x, "baseline": numbers[baseline].astype(np.float32)}
        assert_near(found["attribution"], run(at_run_time, fed)["attribution"], 1e-4, baseline)


def test_several_baselines_are_averaged(tmp_path: Path) -> None:
    model, x = DIGITS.load(), DIGITS.images(3, 0)
    several = DIGITS.images(5, 4)
    for construction in ("loop", "unroll"):
        found = explain(model, x, baseline=saved(tmp_path, several), construction=construction)
        assert_sums(found)
        each = [explain(model, x, baseline=saved(tmp_path, several[k : k + 1])) for k in range(5)]
        assert_near(found["attribution"], np.mean([e["attribution"] for e in each], 0), 1e-5, construction)


def test_a_baseline_for_each_sample_or_one_for_all() -> None:
    model, x, others = DIGITS.load(), DIGITS.images(3, 0), DIGITS.images(3, 4)
    compiled = session(compile_model(model, "deeplift-revealcancel", baseline="input"))
    name = compiled.get_inputs()[0].name
    together = run(compiled, {name: x, "baseline": others})
    for i in range(3):
        alone = run(compiled, {name: x[i : i + 1], "baseline": others[i : i + 1]})
        assert_near(together["attribution"][i : i + 1], alone["attribution"], 1e-5)
    one = run(compiled, {name: x, "baseline": others[:1]})
    assert_near(one["attribution"], run(compiled, {name: x, "baseline": others[[0, 0, 0]]})["attribution"], 1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("specimen", parameters(s for s in [*SHARED_SPECIMENS, *OWN_SPECIMENS] if s.trained))
def test_at_the_baseline_there_is_nothing_to_explain(specimen: Specimen, method: str) -> None:
    model, x = with_batch(specimen.load(), "N"), specimen.images(2, 1)
    compiled = compile_model(model, method, baseline="input")
    stored = {i.name for i in compiled.graph.initializer}
    name = next(i.name for i in compiled.graph.input if i.name not in stored)
    results = run(compiled, {name: x, "baseline": x})
    for output in ("attribution", "heatmap"):
        assert not results[output].any(), output  # NaN counts as something
    # The runtime may fuse the two forward passes differently, which rounds a score differently.
    assert (np.abs(results["residual"]) <= 1e-6 * np.maximum(np.abs(results["explained_score"]), 1)).all()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((1, 1, 9, 8)), "shape"),
        (np.zeros((1, 3, 8, 8)), "shape"),
        (np.zeros(8), "shape"),
        (np.zeros((0, 1, 8, 8)), "shape"),
        (np.full((1, 1, 8, 8), np.nan), "NaN"),
        (np.full((2, 1, 8, 8), np.inf), "infinity"),
        (np.zeros((1, 1, 8, 8), complex), "complex"),
        (np.zeros((1, 1, 8, 8), "U3"), "no real numbers"),
        (np.full((1, 1, 8, 8), 1e60), "beyond"),
    ],
    ids=lambda v: v if isinstance(v, str) else f"{v.dtype}{list(v.shape)}",
)
def test_a_bad_baseline_file_is_refused_with_its_reason(array: Array, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=reason):
        compile_model(DIGITS.load(), "deeplift", baseline=saved(tmp_path, array))


def test_a_baseline_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("numbers")
    for asked, reason in (("grey", "none of"), (str(tmp_path / "a.npy"), "no baseline file"), ("black", "preprocess")):
        with pytest.raises(UsageError, match=reason):
            compile_model(DIGITS.load(), "deeplift", baseline=asked)
    with pytest.raises(UsageError, match="can be read"):
        compile_model(DIGITS.load(), "deeplift", baseline=str(tmp_path / "text.npy"))


def test_a_bad_run_time_baseline_cannot_pass_for_an_answer() -> None:
    x = DIGITS.images(2, 0)
    compiled = session(compile_model(DIGITS.load(), "deeplift", baseline="input"))
    name = compiled.get_inputs()[0].name
    for wrong in (np.zeros((1, 1, 8, 9), np.float32), np.zeros((1, 1, 8, 8)), np.zeros((1, 1, 8), np.float32)):
        with pytest.raises(Exception, match=r"(?i)invalid|unexpected|rank"):
            run(compiled, {name: x, "baseline": wrong})
    nothing = run(compiled, {name: x, "baseline": np.full((1, 1, 8, 8), np.nan, np.float32)})
    assert np.isnan(nothing["attribution"]).all()
    assert np.isnan(nothing["residual"]).all()


# What one sample's result depends on


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["resnet-basic", "mobilenet-v3", "vit", "swin-v1"])
def test_a_sample_does_not_depend_on_the_rest_of_the_batch(method: str, name: str) -> None:
    each = next(a for a in ZOO if a.name == name)
    compiled = session(compile_model(onnx.load_model_from_string(exported(each, "torchscript", "dynamic")), method))
    x = samples(each, 3, 2)[0].numpy()
    x[1] *= 30
    together = run(compiled, {"pixels": x})
    for i in range(3):
        alone = run(compiled, {"pixels": x[i : i + 1]})
        assert_near(together["attribution"][i : i + 1], alone["attribution"], 1e-4, f"sample {i}")


@pytest.mark.parametrize("method", METHODS)
def test_heatmaps_show_what_speaks_for_the_class(method: str) -> None:
    results = explain(SHAPES.load(), SHAPES.images(2, 0), method)
    total = np.maximum(results["attribution"].sum(1), 0)
    np.testing.assert_allclose(results["heatmap"], total / total.max((1, 2), keepdims=True), atol=1e-5)


# The baseline's activations


def of_baseline(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node if node.name.startswith("onnxplain/baseline/")]


@pytest.mark.parametrize("method", METHODS)
def test_the_baselines_activations_are_stored_when_asked_for(method: str) -> None:
    """Stored or not, the same numbers; stored, there is no pass on the baseline left to compute."""
    model, x = DIGITS.load(), DIGITS.images(3, 0)
    kept, stored = (compile_model(model, method, fold_baseline=mode) for mode in ("no", "yes"))
    onnx.checker.check_model(stored, full_check=True)
    assert of_baseline(kept)
    assert not of_baseline(stored)
    assert_near(run(stored, x)["attribution"], run(kept, x)["attribution"], 1e-5)
    assert_sums(run(stored, x))


def size(model: onnx.ModelProto) -> int:
    return len(model.SerializeToString())


def test_by_default_they_are_stored_within_a_tenth_of_the_weights() -> None:
    """cifar10_conv has large layers on a small picture; shapes has small ones on a large picture."""
    large = next(s for s in SHARED_SPECIMENS if s.name == "cifar10_conv")
    for specimen, fits in ((large, True), (SHAPES, False)):
        if specimen.missing:
            continue
        model = specimen.load()
        auto, never, always = (compile_model(model, "deeplift-rescale", fold_baseline=m) for m in ("auto", "no", "yes"))
        assert bool(of_baseline(auto)) != fits
        assert abs(size(auto) - size(always if fits else never)) < 9  # the name of the mode
        assert not fits or size(auto) - size(never) <= 0.1 * size(model)


def test_why_they_are_not_stored_is_told() -> None:
    graph = compile_model(SHAPES.load(), "deeplift-rescale", fold_baseline="no")
    model = Model.of(load(graph))
    ((_, report),) = run_passes(model, [FoldBaseline("auto")]).entries
    assert [(r.where, r.why) for r in report.refusals] == [
        ("baseline", "its activations take more than 10% of what the weights do")
    ]


@pytest.mark.parametrize("baseline", ["mean", "blur", "input"])
def test_activations_that_are_not_known_beforehand_cannot_be_stored(baseline: str) -> None:
    with pytest.raises(UsageError, match="fold_baseline=yes"):
        compile_model(DIGITS.load(), "deeplift", baseline=baseline, fold_baseline="yes")
    assert of_baseline(compile_model(DIGITS.load(), "deeplift", baseline=baseline))


def test_the_baselines_pass_is_of_batch_one() -> None:
    """Whatever the batch: it is computed once for all samples."""
    model = compile_model(SHAPES.load(), "deeplift-rescale", fold_baseline="no")
    inferred = onnx.shape_inference.infer_shapes(model)
    names = {n.output[0] for n in model.graph.node if n.op_type == "Conv" and n.name in of_baseline(model)}
    found = [v.type.tensor_type.shape.dim[0].dim_value for v in inferred.graph.value_info if v.name in names]
    assert found
    assert set(found) == {1}


def test_several_methods_and_classes_share_one_pass_on_the_baseline() -> None:
    model, x = DIGITS.load(), DIGITS.images(2, 0)
    compiled = compile_model(model, "deeplift-rescale,deeplift-revealcancel", target="topk:3", fold_baseline="no")
    alone = compile_model(model, "deeplift-rescale", fold_baseline="no")
    assert len(of_baseline(compiled)) == len(of_baseline(alone))
    results = run(compiled, x)
    assert results["attribution_deeplift-rescale"].shape == (2, 3, *x.shape[1:])
    assert np.abs(results["residual_deeplift-rescale"]).max() < 1e-4
    assert np.abs(results["residual_deeplift-revealcancel"]).max() < 1e-4
