"""What is computed when a model is compiled is what the runtime would compute."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.graphs import canonical, results, seeded
from tests.running import net, run

CONSTANTS = [
    "AveragePool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1, pads = [1, 1, 1, 1]>(c)",
    "AveragePool<kernel_shape = [2, 2], strides = [2, 2], dilations = [2, 2]>(c)",
    "MaxPool<kernel_shape = [2, 2], strides = [3, 3], ceil_mode = 1>(c)",
    "LpPool<kernel_shape = [2, 2], p = 3>(c)",
    "LRN<size = 3, alpha = 0.5>(c)",
    "LpNormalization<axis = 1, p = 1>(c)",
    "GridSample<padding_mode = \"reflection\", align_corners = 0>(c, grid)",
    "GridSample<mode = \"cubic\", padding_mode = \"border\">(c, grid)",
    "GlobalMaxPool(c)",
    "Softmax<axis = 1>(c)",
    "ConvTranspose<group = 2>(c, w)",
    "Resize<mode = \"linear\", coordinate_transformation_mode = \"align_corners\">(c, \"\", \"\", sizes)",
]  # fmt: skip


@pytest.mark.parametrize("call", CONSTANTS)
def test_a_constant_part_is_what_the_runtime_makes_of_it(call: str) -> None:
    text = f"""g (float[N,2] x) => (float[N,2] y) <float[1,4,6,7] c = {{{_listed(1, 4, 6, 7)}}},
        float[1,3,3,2] grid = {{{_listed(1, 3, 3, 2)}}}, float[4,1,3,3] w = {{{_listed(4, 1, 3, 3)}}},
        int64[4] sizes = {{1, 4, 9, 3}}> {{ p = {call} m = ReduceMax<keepdims = 0>(p) s = Sum(m, m)
        o = ReduceSumSquare<keepdims = 0>(p) t = Add(s, o) y = Mul(x, t) }}"""
    model, _ = canonical(text)
    np.testing.assert_allclose(results(model, 3, 2)["y"], run(net(text), seeded(3, 2))["y"], rtol=1e-5)


def _listed(*shape: int) -> str:
    return ", ".join(f"{v:.4f}" for v in seeded(*shape).ravel())
