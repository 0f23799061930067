"""Every rule on every kind of layer with weights, against a dense matrix in float64."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.rules.lrp.compat import captum_alpha1_beta0, captum_gamma
from onnxplain.rules.lrp.inputs import flat, w_square, z_box
from onnxplain.rules.lrp.layers import alpha_beta, epsilon, gamma, relative_epsilon, z_plus
from tests.rules.lrp import dense, harness
from tests.rules.lrp.cases import CASES, Case
from tests.rules.lrp.harness import BETWEEN, PLACES, SIGNED, Compared

EPS = 1e-6

RULES = {
    "zero": Compared(epsilon(0), dense.epsilon(0)),
    "epsilon": Compared(epsilon(0.25), dense.epsilon(0.25)),
    "epsilon, no bias": Compared(epsilon(EPS, bias=False), dense.epsilon(EPS, bias=False)),
    "relative epsilon": Compared(relative_epsilon(0.25), dense.relative_epsilon(0.25)),
    "gamma": Compared(gamma(0.25, EPS), dense.gamma(0.25, EPS)),
    "gamma 2": Compared(gamma(2, EPS), dense.gamma(2, EPS)),
    "alpha 2, beta 1": Compared(alpha_beta(2, 1, EPS), dense.alpha_beta(2, 1, EPS)),
    "alpha 1.5, beta 0.5, no bias": Compared(alpha_beta(1.5, 0.5, EPS, False), dense.alpha_beta(1.5, 0.5, EPS, False)),
    "whole bias": Compared(alpha_beta(2, 1, EPS, whole_bias=True), dense.alpha_beta_whole_bias(2, 1, EPS)),
    "z+": Compared(z_plus(EPS), dense.alpha_beta(1, 0, EPS)),
    "z+, no bias": Compared(z_plus(EPS, bias=False), dense.alpha_beta(1, 0, EPS, bias=False)),
    "box": Compared(z_box(EPS), dense.box(EPS), "unknown"),
    "w^2": Compared(w_square(EPS), dense.w_square(EPS), "unknown"),
    "flat": Compared(flat(EPS), dense.flat(EPS, np.zeros((0, 0))), "unknown"),
    "Captum's gamma": Compared(captum_gamma(0.25), dense.captum_gamma(0.25)),
    "Captum's alpha 1, beta 0": Compared(captum_alpha1_beta0(), dense.captum_alpha1_beta0()),
}


def check(case: Case, place: str, dtype: type, tolerance: float, *, runtime: bool) -> None:
    x, r, layers, arriving, seen = harness.enough_relevance_for(case, place)
    model = harness.explained(case, place, dtype, RULES, ["relative epsilon"] if case.single else [])
    got = harness.results(model, {"x": x, "r": r}, dtype, runtime=runtime)
    wrong = []
    for name, compared in RULES.items():
        if name == "relative epsilon" and case.single:
            continue  # the mean over a sample means nothing without an axis of samples
        plain = dense.flat(EPS, seen) if name == "flat" else compared.plain
        want = np.stack([plain(d, r) for d, r in zip(layers, arriving, strict=True)]).reshape(case.shape)
        for how in ("analysed", "plain"):
            have = got[f"{name} {how}"]
            assert have.dtype == dtype
            assert have.shape == case.shape
            error = float(np.linalg.norm(have - want) / np.linalg.norm(want))
            if not error <= tolerance:
                wrong.append(f"{name}, {how}: {error:.2e}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_single_precision(case: Case, place: str) -> None:
    check(case, place, np.float32, 1e-5, runtime=True)


@pytest.mark.parametrize("place", [SIGNED, BETWEEN])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_double_precision(case: Case, place: str) -> None:
    """ONNX Runtime has Gemm and MatMul in float64; convolutions run in the oracle."""
    check(case, place, np.float64, 1e-10, runtime=case.op in ("Gemm", "MatMul"))
