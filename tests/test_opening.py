"""What is refused when a model is opened: inputs and scores that do not begin with one batch."""

from __future__ import annotations

import numpy as np
import pytest

from onnxplain.errors import UnsupportedModel
from tests.running import explained, net

W = "float[4,5] w = {1, -2, 3, 1, 2, 2, -1, 0, 1, 1, -3, 2, 0.5, 1, 2, -1, 0.5, 1, 2, 3}, int64[1] first = {0}"

OTHER = {
    "no batch, a vector of scores": (
        "float[3,2,2] x) => (float[5] y)", "f = Reshape(x, row) s = Slice(f, zero, four, one) m = MatMul(s, w) "
        "y = Reshape(m, all)"),
    "no batch, names of axes": (
        "float[C,2,2] x) => (float[5] y)",
        "t = Reshape(x, rows) m = ReduceSum<keepdims = 0>(t, first) y = MatMul(m, w)"),
    "time first": (
        "float[T,N,4] x) => (float[N,5] y)", "m = ReduceMean<keepdims = 0>(x, first) y = MatMul(m, w)"),
    "time first, a batch of one": (
        "float[T,1,4] x) => (float[1,5] y)", "m = ReduceMean<keepdims = 0>(x, first) y = MatMul(m, w)"),
    "time first, sizes in numbers": (
        "float[6,2,4] x) => (float[2,5] y)", "m = ReduceMean<keepdims = 0>(x, first) y = MatMul(m, w)"),
    "scores turned": (
        "float[N,4] x) => (float[5,N] y)", "m = MatMul(x, w) y = Transpose<perm = [1, 0]>(m)"),
    "classes of the only sample": (
        "float[1,4] x) => (float[5] y)", "m = MatMul(x, w) y = Squeeze(m, first)"),
}  # fmt: skip
ONE = {
    "names": ("float[N,4] x) => (float[N,5] y)", "y = MatMul(x, w)"),
    "a Reshape to one sample": (
        "float[N,3,2,2] x) => (float[1,5] y)",
        "s = ReduceMean<keepdims = 1>(x, one) f = Reshape(s, row) y = MatMul(f, w)"),
    "one score for each sample": (
        "float[N,4] x) => (float[N] y)", "m = MatMul(x, w) y = ReduceMax<keepdims = 0>(m, one)"),
    "places": ("float[N,4,3] x) => (float[N,3,5] y)", "t = Transpose<perm = [0, 2, 1]>(x) y = MatMul(t, w)"),
}  # fmt: skip


def model(ends: str, body: str) -> str:
    return f"""g ({ends} <{W}, int64[1] one = {{1}}, int64[1] zero = {{0}}, int64[1] four = {{4}},
        int64[2] row = {{1, -1}}, int64[2] rows = {{-1, 4}}, int64[1] all = {{-1}}> {{ {body} }}"""


@pytest.mark.parametrize("method", ["gradient", "lrp-eps", "deeplift-rescale"])
@pytest.mark.parametrize("case", OTHER)
def test_other_first_axes_are_refused(case: str, method: str) -> None:
    """Of these the graph returned something: a map of time steps for a class of samples, or the wrong class's."""
    with pytest.raises(UnsupportedModel) as error:
        explained(net(model(*OTHER[case])), np.zeros((1, 4), np.float32), method)
    first, *rest = str(error.value).splitlines()
    assert first.startswith("input 'x' has shape (")
    assert first.endswith("their first axes are not one batch.")
    assert rest == [
        "  Both must begin with it, (N, ...) and (N, classes): each sample is explained by itself.",
        "  Export the model with a batch axis in front, of one if there is but one sample.",
    ]


@pytest.mark.parametrize("case", ONE)
def test_one_batch_is_taken(case: str) -> None:
    shape = {2: (1, 4), 3: (1, 4, 3), 4: (1, 3, 2, 2)}[ONE[case][0].count(",", 0, ONE[case][0].index("]")) + 1]
    how = {"at": "1"} if case == "places" else {}
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert explained(net(model(*ONE[case])), x, "gradient", **how)["attribution"].shape == shape
