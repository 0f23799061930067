"""What is written otherwise for CUDA computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxplain.compiler import compile_model
from onnxplain.placement.lint import place
from tests.precision.networks import pictures, quantised
from tests.running import net, run
from tests.running import operators as operators_of

OPEN = "g (float[N,2,h,w] x) => (float[N,2] y) { r = Relu(x)  m = GlobalAveragePool(r)  y = Flatten(m) }"


def test_a_count_of_elements_stays_on_the_card() -> None:
    """The size is a factor of the derivative, and known only when the graph runs."""
    portable, cuda = (compile_model(net(OPEN), "gradient", runtime=r) for r in ("portable", "cuda"))
    assert place(portable).copies != ()
    assert place(cuda).whole
    for shape in ((2, 2, 5, 7), (1, 2, 1, 3)):
        images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        expected = (images > 0) / np.float32(shape[2] * shape[3])
        found = run(cuda, images)
        chosen = found["explained_class"][0]
        np.testing.assert_allclose(found["attribution"][0, chosen], expected[0, chosen], rtol=1e-6)


@pytest.mark.parametrize("name", ["plain", "separable"])
def test_a_bias_of_whole_numbers_is_dequantised_by_a_product(tmp_path: Path, name: str) -> None:
    model = quantised(name, tmp_path, "QDQ")
    portable, cuda = (compile_model(model, "gradient", runtime=r) for r in ("portable", "cuda"))
    assert {f.op for f in place(portable).fallbacks} == {"DequantizeLinear"}
    assert place(cuda).whole
    assert ("", "DequantizeLinear") in operators_of(cuda.graph)
    images = pictures(2)
    for name, expected in run(portable, images).items():
        np.testing.assert_allclose(run(cuda, images)[name], expected, rtol=1e-4, atol=1e-5)
