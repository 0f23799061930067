"""Compiled for CUDA, every method on every model has all its nodes there but arithmetic with shapes, and no copies."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

import onnxplain
from onnxplain.methods.method import Method
from onnxplain.placement.checks import check_for
from tests.catalogue import SPECIMENS, Specimen, parameters
from tests.precision.networks import exported

METHODS = [m for m in onnxplain.methods() if "composite" not in {p.name for p in m.parameters}]
QUICK = [s for s in SPECIMENS if s.name in ("digits", "shapes")]
OTHERS = [s for s in SPECIMENS if s not in QUICK and not s.heavy]
REAL = [s for s in OTHERS if s.name in ("cifar10_vit", "vww_96", "mnist_zero_one")]
FEW = ("gradient", "lrp-epsilon-plus", "deeplift", "grad-cam")


def broken(model: onnx.ModelProto, method: str, **how: Any) -> list[str]:
    compiled = onnxplain.compile_model(model, method, runtime="cuda", **how)
    return [f"{check.promise}: {check.found}" for check in check_for("cuda", compiled) if not check.kept]


def settings(method: Method) -> dict[str, Any]:
    known = {p.name for p in method.parameters}
    return {n: v for n, v in {"steps": 2, "samples": 2, "low": "-3", "high": "3"}.items() if n in known}


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("specimen", parameters(QUICK))
def test_nothing_falls_back(specimen: Specimen, method: Method) -> None:
    if method.name == "cam" and specimen.name == "digits":
        pytest.skip("cam is for networks that end in global average pooling")
    assert broken(specimen.load(), method.name, **settings(method)) == []


@pytest.mark.parametrize("method", FEW)
@pytest.mark.parametrize("specimen", parameters(REAL))
def test_nothing_falls_back_on_real_models(specimen: Specimen, method: str) -> None:
    assert broken(specimen.load(), method) == []


@pytest.mark.slow
@pytest.mark.parametrize("specimen", parameters(OTHERS))
def test_nothing_falls_back_on_the_other_models(specimen: Specimen) -> None:
    model = specimen.load()
    for method in METHODS:
        if method.name != "cam":
            assert broken(model, method.name, **settings(method)) == [], method.name


@pytest.mark.parametrize("target", ["topk:2", "input", "3"])
def test_whatever_class_is_asked_for(target: str) -> None:
    (shapes,) = (s for s in SPECIMENS if s.name == "shapes")
    assert broken(shapes.load(), "gradient,lrp-eps,grad-cam,deeplift", target=target) == []


def test_a_network_in_half_precision() -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = convert_float_to_float16(exported("plain"))
    for method in ("gradient", "lrp-epsilon-plus", "deeplift-rescale", "grad-cam"):
        assert broken(half, method) == []


@pytest.mark.parametrize("method", ["gradient", "lrp-epsilon-plus", "integrated-gradients", "smoothgrad"])
@pytest.mark.parametrize("specimen", parameters(REAL))
def test_no_axis_to_sum_over_is_found_at_run_time(specimen: Specimen, method: str) -> None:
    """It would be found on the CPU at every residual sum, product and bias, where sizes have lost their names."""
    (known,) = (m for m in METHODS if m.name == method)
    compiled = onnxplain.compile_model(specimen.load(), method, runtime="cuda", **settings(known))
    assert "NonZero" not in {node.op_type for node in compiled.graph.node}


@pytest.mark.parametrize("baseline", ["zeros", "mean", "input"])
@pytest.mark.parametrize("method", ["deeplift-rescale", "deeplift-revealcancel"])
@pytest.mark.parametrize("specimen", parameters(REAL))
def test_nor_with_a_baseline_of_whatever_batch(specimen: Specimen, method: str, baseline: str) -> None:
    compiled = onnxplain.compile_model(specimen.load(), method, runtime="cuda", baseline=baseline)
    assert "NonZero" not in {node.op_type for node in compiled.graph.node}
