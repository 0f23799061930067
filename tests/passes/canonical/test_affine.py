"""The grid of a spatial transformer as a product: original outputs kept, gradients through it those of torch."""

from __future__ import annotations

import pytest
import torch

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedOp
from tests.passes.graphs import canonical, node, operators, seeded
from tests.running import assert_near, explained, net

READS = """g (float[N,2,{sizes}] x) => (float[N,a] y) <int64[3] turned = {{-1, {axes}, {columns}}},
        int64[{rank}] over = {{{over}}}, float[{count}] b = {{{start}}}, int64[2] ones = {{-1, 1}}> {{
    m = ReduceMean<keepdims = 0>(x, over) n = Reshape(m, ones) p = Mul(n, b) q = Add(p, b) theta = Reshape(q, turned)
    size = Shape(x) grid = AffineGrid<align_corners = {corners}>(theta, size)
    r = GridSample<align_corners = {corners}, padding_mode = "border">(x, grid) y = Flatten(r) }}"""

TURN = {2: [0.9, 0.2, 0.1, -0.3, 0.8, 0.05], 3: [0.9, 0.2, 0.1, 0.1, -0.3, 0.8, 0.1, 0.05, 0.2, -0.1, 0.7, -0.1]}


def reader(sizes: tuple[int, ...], corners: bool) -> str:
    axes = len(sizes)
    return READS.format(
        sizes=",".join(map(str, sizes)),
        axes=axes,
        columns=axes + 1,
        rank=axes + 1,
        over=", ".join(map(str, range(1, axes + 2))),
        count=len(TURN[axes]),
        start=", ".join(map(str, TURN[axes])),
        corners=int(corners),
    )


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("sizes", [(4, 5), (3, 4, 2)])
@pytest.mark.parametrize("runtime", ["portable", "cpu", "cuda"])
def test_pictures_of_any_number(sizes: tuple[int, ...], corners: bool, runtime: str) -> None:
    data = seeded(3, 2, *sizes)
    results = explained(net(reader(sizes, corners)), data, target=7, runtime=runtime)
    x = torch.from_numpy(data).double().requires_grad_()
    b = torch.tensor(TURN[len(sizes)], dtype=torch.float64)
    theta = (x.flatten(1).mean(1)[:, None] * b + b).reshape(-1, len(sizes), len(sizes) + 1)
    grid = torch.nn.functional.affine_grid(theta, list(data.shape), align_corners=corners)
    y = torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=corners).flatten(1)
    (want,) = torch.autograd.grad(y[:, 7].sum(), x)
    assert_near(results["y"], y.detach().numpy(), 1e-5)
    assert_near(results["attribution"], want.numpy(), 1e-4)


def test_the_grid_is_one_product() -> None:
    model, log = canonical(reader((4, 5), False))
    assert dict(log.entries)["GridsByProduct"].changed == 1
    assert "AffineGrid" not in operators(model)
    assert node(model, "r").inputs[1].shape == ["N", 4, 5, 2]
    assert node(model, "r").outputs[0].shape == ["N", 2, 4, 5]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            reader((4, 5), False).replace("N,2,4,5", "N,2,h,5"),
            "the size of its grid is known only at run time.\n  Export the model for pictures of a fixed size.",
        ),
        (
            reader((1, 5), True),
            "its grid has one place along an axis, which cannot be at both corners (align_corners).",
        ),
    ],
)
def test_it_says_why_not(text: str, why: str) -> None:
    assert [r.why for r in dict(canonical(text)[1].entries)["GridsByProduct"].refusals] == [why]
    with pytest.raises(UnsupportedOp) as error:
        compile_model(net(text), "gradient")
    assert "gradient has no rule for 'AffineGrid'" in str(error.value)
    assert why in str(error.value)
