"""Single and double precision in one model: an end in the other type changes the types of what is returned, no more."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.passes.graphs import seeded
from tests.running import Results, explained, net, relative_error

TYPES = {"float": np.dtype(np.float32), "double": np.dtype(np.float64)}
NUMBERS = {"float": 1, "double": 11}
METHODS = {
    "gradient-x-input": {}, "guided-grad-cam": {}, "grad-cam": {}, "integrated-gradients": {"steps": 5},
    "smoothgrad": {"samples": 3}, "lrp-eps": {}, "lrp-zplus": {}, "lrp-composite": {"low": -4, "high": 4},
    "deep-taylor": {}, "deeplift": {}, "deeplift-rescale": {"baseline": "mean"},
}  # fmt: skip
X = seeded(2, 2, 6, 6)


@cache
def classifier(given: str, returned: str) -> onnx.ModelProto:
    """Single precision but for its ends."""
    model = net(f"""g ({given}[N,2,6,6] x) => ({returned}[N,3] y) {{
        a = Cast<to = 1>(x) c = Conv<pads = [1, 1, 1, 1]>(a, w, b) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p)
        d = MatMul(f, v) y = Cast<to = {NUMBERS[returned]}>(d) }}""")
    weights = {"w": seeded(5, 2, 3, 3), "b": np.abs(seeded(5)), "v": seeded(5, 3)}
    model.graph.initializer.extend(numpy_helper.from_array(each, name) for name, each in weights.items())
    return model


def result(given: str, returned: str, method: str, **how: object) -> Results:
    return explained(classifier(given, returned), X.astype(TYPES[given]), method, **METHODS[method], **how)


@pytest.mark.parametrize("target", [1, "topk:2", "input"])
@pytest.mark.parametrize(("given", "returned"), [("double", "float"), ("float", "double"), ("double", "double")])
@pytest.mark.parametrize("method", METHODS)
def test_the_ends_may_be_of_another_precision(method: str, given: str, returned: str, target: int | str) -> None:
    if target == "input":
        feeds = {"target": np.array([2, 0])}
        one, other = (
            explained(
                classifier(*ends), {"x": X.astype(TYPES[ends[0]])} | feeds, method, target=target, **METHODS[method]
            )
            for ends in ((given, returned), ("float", "float"))
        )
    else:
        one, other = (result(*ends, method, target=target) for ends in ((given, returned), ("float", "float")))
    assert one.keys() == other.keys()
    assert one["attribution"].dtype == TYPES["float" if method == "grad-cam" else given]
    assert one["heatmap"].dtype == np.float32
    assert one["explained_score"].dtype == one["y"].dtype == TYPES[returned]
    assert relative_error(one["attribution"], other["attribution"]) < 1e-5
    if "residual" in one:
        assert one["residual"].dtype == TYPES[returned]
        np.testing.assert_allclose(one["residual"], other["residual"], atol=1e-5)


@pytest.mark.parametrize(("given", "returned"), [("double", "float"), ("float", "double")])
def test_sums_at_each_node_are_of_the_scores_type(given: str, returned: str) -> None:
    one, other = (result(*ends, "lrp-eps", diagnostics=True) for ends in ((given, returned), ("float", "float")))
    assert one["diagnostics"].dtype == TYPES[returned]
    np.testing.assert_allclose(
        one["diagnostics"].sum(1)[:, 0], one["diagnostics"].sum(1)[:, 1] + one["residual"], rtol=1e-4
    )
    np.testing.assert_allclose(one["diagnostics"][:, -1], other["diagnostics"][:, -1], rtol=1e-4, atol=1e-5)
