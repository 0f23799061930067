"""Several methods and several classes in one graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxplain.compiler import compile_model
from onnxplain.errors import UsageError
from tests.catalogue import SPECIMENS, Specimen, parameters, with_batch
from tests.models.nets import Plain, ready
from tests.running import assert_near, names_of, run, shape_of

X = np.random.default_rng(0).standard_normal((3, 3, 16, 16)).astype(np.float32)
ALL = (
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
SETTINGS: dict[str, Any] = {"steps": 3, "samples": 3}


def plain() -> Any:
    return ready(Plain, 3, 16, 16, exporter="torchscript")


def settings_of(method: str) -> dict[str, Any]:
    owners = {"steps": "integrated-gradients", "samples": "smoothgrad"}
    return {name: value for name, value in SETTINGS.items() if owners[name] == method}


def test_a_combined_graph_returns_what_the_single_graphs_return() -> None:
    together = run(compile_model(plain(), ",".join(ALL), **SETTINGS), X)
    for method in ALL:
        alone = run(compile_model(plain(), method, **settings_of(method)), X)
        for role in ("attribution", "heatmap", "residual"):
            if role in alone:
                assert_near(together[f"{role}_{method}"], alone[role], 1e-5, f"{role} of {method}")
        np.testing.assert_array_equal(together["explained_class"], alone["explained_class"])
        np.testing.assert_array_equal(together["explained_score"], alone["explained_score"])
    assert [name for name in together if name.startswith("residual")] == ["residual_integrated-gradients"]


@pytest.mark.parametrize("specimen", parameters(s for s in SPECIMENS if s.name in ("shapes", "vww_96", "cifar10_conv")))
def test_whole_models_combined(specimen: Specimen) -> None:
    methods = ("gradient", "guided-backprop", "grad-cam", "fem")
    model, x = with_batch(specimen.load(), "N"), specimen.images(2, 3)
    together = run(compile_model(model, ",".join(methods)), x)
    for method in methods:
        assert_near(
            together[f"attribution_{method}"], run(compile_model(model, method), x)["attribution"], 1e-5, method
        )


def test_the_forward_pass_is_there_once() -> None:
    def count(*methods: str) -> int:
        return sum(node.op_type == "Conv" for node in compile_model(plain(), ",".join(methods)).graph.node)

    own = sum(node.op_type == "Conv" for node in plain().graph.node)
    assert count("gradient") == own
    assert count("gradient", "gradient-x-input", "grad-cam", "fem") == own


@pytest.mark.parametrize("method", ALL)
def test_the_best_classes_on_an_axis_after_the_batch(method: str) -> None:
    """Each is what the class asked for by itself returns."""
    how = settings_of(method)
    ranked = run(compile_model(plain(), method, target="topk:3", **how), X)
    one = compile_model(plain(), method, target="input", **how)
    order = np.argsort(-ranked["y"], axis=1)[:, :3]
    np.testing.assert_array_equal(ranked["explained_class"], order)
    np.testing.assert_allclose(ranked["explained_score"], np.take_along_axis(ranked["y"], order, 1))
    for k in range(3):
        alone = run(one, {"x": X, "target": order[:, k]})
        for role in ("attribution", "heatmap", "residual"):
            if role in alone:
                assert ranked[role].shape == (3, 3, *alone[role].shape[1:])
                np.testing.assert_allclose(ranked[role][:, k], alone[role], rtol=1e-4, atol=1e-5)


def test_several_methods_for_several_classes() -> None:
    compiled = compile_model(plain(), "grad-cam,gradient", target="topk:2")
    shapes = {o.name: shape_of(o) for o in compiled.graph.output}
    assert names_of(compiled.graph.output) == [
        "y",
        "attribution_grad-cam",
        "attribution_gradient",
        "heatmap_grad-cam",
        "heatmap_gradient",
        "explained_class",
        "explained_score",
    ]
    (batch, _) = shapes["y"]
    assert shapes["attribution_gradient"] == [batch, 2, 3, 16, 16]
    assert shapes["attribution_grad-cam"] == [batch, 2, 4, 4]
    assert shapes["heatmap_grad-cam"] == shapes["heatmap_gradient"] == [batch, 2, 16, 16]
    assert shapes["explained_class"] == shapes["explained_score"] == [batch, 2]
    returned = run(compiled, X)
    for name, shape in shapes.items():
        assert returned[name].shape == (3, *shape[1:])


def test_one_of_several_best_classes_still_has_its_axis() -> None:
    returned = run(compile_model(plain(), target="topk:1"), X)
    assert returned["attribution"].shape == (3, 1, 3, 16, 16)
    assert returned["explained_class"].shape == (3, 1)


def test_a_parameter_goes_to_the_methods_that_have_it() -> None:
    how = {"layer": "*features.2*", "k": 0.5}
    together = run(compile_model(plain(), "grad-cam,fem,gradient", **how), X)
    assert together["attribution_grad-cam"].shape == (3, 8, 8)
    assert_near(together["attribution_fem"], run(compile_model(plain(), "fem", **how), X)["attribution"], 1e-5)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gradient,gradient", {}, "a method is named twice in 'gradient,gradient'."),
    ("gradient,grad-camm", {}, "there is no method 'grad-camm'. Did you mean 'grad-cam'"),
    ("gradient,fem", {"steps": 5}, "none of gradient,fem has a parameter 'steps'."),
    ("gradient", {"target": "topk:9"}, "topk:9 asks for more classes than there are: the model has 5."),
    ("gradient", {"target": "topk:0"}, "target 'topk:0' is none of: top1, topk:K, input, or a class index from 0."),
    ("gradient", {"target": "\u0662"}, "target '\u0662' is none of: top1, topk:K, input, or a class index from 0."),
    ("gradient", {"target": "topk:\u0662"}, "target 'topk:\u0662' is none of: top1, topk:K, input, or a class index"),
    ("gradient", {"target": ":2"}, "target ':2' is none of: top1, topk:K, input, or a class index from 0."),
    ("gradient", {"target": "topk:topk:2"}, "target 'topk:topk:2' is none of"),
    ("gradient", {"target": "best"}, "target 'best' is none of: top1, topk:K, input, or a class index from 0."),
    ("gradient", {"target": 5}, "class 5 is out of range: the model's classes are 0 to 4."),
    ("gradient", {"target": -1}, "target '-1' is none of"),
]


@pytest.mark.parametrize(("method", "how", "message"), REFUSED)
def test_requests_that_make_no_sense_are_refused(method: str, how: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        compile_model(plain(), method, **how)
    assert message in str(caught.value)
