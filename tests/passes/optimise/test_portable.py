"""For any runtime: max-pools without indices, sums without scatters, and the same numbers."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxplain
from onnxplain.methods.method import Method
from onnxplain.passes.optimise.scatter import PlainScatter
from onnxplain.placement.portable import foreign
from tests.passes.graphs import emitted, refusals
from tests.rules.harness import DYNAMIC, Case, check_lowered
from tests.rules.vjp.test_indexing import CASES as LOOKUPS
from tests.rules.vjp.test_layout import CASES as LAYOUTS
from tests.rules.vjp.test_pooling import CASES as POOLS
from tests.running import Array, net, relative_error, run

MAX_POOLS = [c for c in POOLS if c.op == "MaxPool" and "at = " not in c.text]
ROWS = [c for c in LOOKUPS if c.op == "Gather" and c.operands["at"].constant]
CUTS = [c for c in LAYOUTS if c.op == "Slice" and "steps" in c.operands and (c.operands["steps"].array > 0).all()]
RUNTIMES = ("portable", "cpu", "cuda")
METHODS = [m for m in onnxplain.methods() if m.name != "cam" and "composite" not in {p.name for p in m.parameters}]


def cases(chosen: list[Case]) -> list[object]:
    return [pytest.param(c, shape, id=f"{c}-{shape}") for c in chosen for shape in c.shapes]


@pytest.mark.parametrize(("case", "shape"), cases(MAX_POOLS))
def test_the_derivative_of_a_max_pool_needs_no_indices(case: Case, shape: str) -> None:
    model = check_lowered(case, shape, "portable")
    if "auto_pad" in case.text and shape == DYNAMIC:
        assert len(foreign(model)) == 2  # the pads are computed when it runs, and so the indices stay
    else:
        assert foreign(model) == []


@pytest.mark.parametrize(("case", "shape"), cases(ROWS))
def test_the_derivative_of_a_lookup_at_known_places_is_a_lookup(case: Case, shape: str) -> None:
    model = check_lowered(case, shape, "portable")
    if shape == "static" or (shape != DYNAMIC and "axis=1" in case.text):  # the size of the axis is known
        assert foreign(model) == []


@pytest.mark.parametrize("case", CUTS, ids=str)
def test_the_derivative_of_a_slice_with_steps_needs_no_scatter(case: Case) -> None:
    bounds_known = all(case.operands[n].constant for n in ("starts", "ends", "steps"))
    assert (foreign(check_lowered(case, "static", "portable")) == []) == bounds_known


def test_a_scatter_stays_where_it_adds_to_something() -> None:
    model = emitted("""
        g (float[3,2] x, float[2,2] u) => (float[3,2] y) <int64[2,1] at = {0, 2}> {
            y = ScatterND<reduction="add">(x, at, u)
        }
    """)
    changed, declined = refusals(model, PlainScatter())
    assert changed == 0
    assert [d.why for d in declined] == ["it adds to something"]


def test_a_scatter_of_nothing_is_what_it_adds_to() -> None:
    text = """g (float[N,3] x) => (float[N,3] y) <int64[0] none = {}> {
        e = Gather<axis=1>(x, none) r = Relu(x) y = Concat<axis=1>(e, r) }"""
    x = np.array([[1, -2, 3]], np.float32)
    np.testing.assert_array_equal(run(onnxplain.compile_model(net(text), target=2), x)["attribution"], [[0, 0, 1]])


# Whole networks, every method


@cache
def network(pool: str) -> onnx.ModelProto:
    """Convolution, ReLU, a max-pool, convolution, scores."""
    rng = np.random.default_rng(0)

    def numbers(count: int) -> str:
        return ",".join(f"{v:.3f}" for v in rng.standard_normal(count))

    return net(f"""
        g (float[N,2,9,8] x) => (float[N,3] y)
        <float[3,2,3,3] w = {{{numbers(54)}}}, float[3,3,1,1] v = {{{numbers(9)}}}> {{
            c = Conv<pads=[1,1,1,1]>(x, w)  r = Relu(c)  p = MaxPool<{pool}>(r)
            d = Conv(p, v)  e = Relu(d)  m = GlobalAveragePool(e)  y = Flatten(m)
        }}
    """)


def pictures() -> Array:
    """Samples with large even parts, so that elements under a window tie."""
    images = np.random.default_rng(1).integers(-1, 2, (2, 2, 9, 8)).astype(np.float32)
    images[:, :, 2:7, 1:6] = 1
    return images


def settings(method: Method) -> dict[str, Any]:
    known = {p.name for p in method.parameters}
    return {n: v for n, v in {"steps": 2, "samples": 2, "low": "-1", "high": "1"}.items() if n in known}


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize(
    "pool",
    [
        "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]",
        "kernel_shape=[2,2], strides=[2,2], ceil_mode=1",
        "kernel_shape=[2,3], dilations=[2,1], pads=[1,0,0,1]",
    ],
    ids=["overlapping", "ceil_mode", "dilated"],
)
def test_every_method_returns_the_same_for_every_runtime(pool: str, method: Method) -> None:
    models = {r: onnxplain.compile_model(network(pool), method.name, runtime=r, **settings(method)) for r in RUNTIMES}
    assert foreign(models["portable"]) == []
    found = {r: run(model, pictures()) for r, model in models.items()}
    assert np.abs(found["cuda"]["attribution"]).max() > 0
    score = np.abs(found["cuda"]["explained_score"]).max()
    for name, expected in found["cuda"].items():
        for runtime in ("portable", "cpu"):
            if name == "residual":  # what is left of the score is rounding
                assert np.abs(found[runtime][name] - expected).max() <= 1e-5 * score
            elif expected.dtype.kind == "f":
                assert relative_error(found[runtime][name], expected) <= 1e-5, (name, runtime)
            else:
                assert (found[runtime][name] == expected).all()


@pytest.mark.parametrize("method", ["deeplift", "deeplift-rescale"])
@pytest.mark.parametrize(
    "pool", ["kernel_shape=[3,2], strides=[2,2], pads=[1,1,1,0]", "kernel_shape=[2,2], dilations=[3,2]"]
)
def test_so_does_a_baseline_whose_winners_are_stored(tmp_path: Path, pool: str, method: str) -> None:
    baseline = tmp_path / "baseline.npy"
    np.save(baseline, np.random.default_rng(2).standard_normal((2, 9, 8)).astype(np.float32))
    portable, cuda = (
        onnxplain.compile_model(network(pool), method, runtime=r, fold_baseline="yes", baseline=str(baseline))
        for r in ("portable", "cuda")
    )
    assert foreign(portable) == []
    images = pictures()
    assert relative_error(run(portable, images)["attribution"], run(cuda, images)["attribution"]) <= 1e-5
