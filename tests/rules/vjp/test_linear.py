"""Convolutions in one to three dimensions, matrix products, einsum."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from onnxplain.compiler import compile_model
from tests.rules.harness import SIZED, against_torch, case, constant
from tests.running import net, run


def gemm(a: Tensor, b: Tensor, c: Tensor | float = 0) -> Tensor:
    return a @ b + c


CASES = [
    case("Conv", "y = Conv(x, w)", F.conv1d, x=(2, 3, 7), w=(4, 3, 3)),
    case("Conv", "y = Conv(x, w, b)", F.conv2d, x=(2, 3, 5, 6), w=(4, 3, 3, 2), b=(4,)),
    case("Conv", "y = Conv(x, w)", F.conv3d, x=(1, 2, 4, 5, 3), w=(3, 2, 2, 3, 1)),
    case("Conv", "y = Conv<kernel_shape=[1,1]>(x, w)", F.conv2d, x=(2, 3, 4, 4), w=(5, 3, 1, 1)),
    case("Conv", "y = Conv<strides=[2,2], pads=[1,1,1,1], group=2>(x, w)",
         lambda x, w: F.conv2d(x, w, stride=2, padding=1, groups=2), x=(2, 4, 9, 8), w=(6, 2, 3, 3)),
    case("Conv", "y = Conv<strides=[2,2], kernel_shape=[1,1]>(x, w)",
         lambda x, w: F.conv2d(x, w, stride=2), x=(1, 3, 8, 7), w=(4, 3, 1, 1)),
    case("Conv", "y = Conv<strides=[3,2], dilations=[2,1]>(x, w)",
         lambda x, w: F.conv2d(x, w, stride=(3, 2), dilation=(2, 1)), x=(1, 2, 12, 9), w=(3, 2, 3, 2)),
    case("Conv", "y = Conv<strides=[4,4], pads=[2,2,2,2]>(x, w)",
         lambda x, w: F.conv2d(x, w, stride=4, padding=2), x=(1, 2, 14, 15), w=(3, 2, 5, 5)),
    case("Conv", "y = Conv<strides=[3,3]>(x, w)", lambda x, w: F.conv2d(x, w, stride=3),
         x=(1, 2, 11, 10), w=(3, 2, 2, 2)),
    case("Conv", "y = Conv<pads=[1,0,2,3]>(x, w)",
         lambda x, w: F.conv2d(F.pad(x, (0, 3, 1, 2)), w), x=(1, 2, 5, 6), w=(3, 2, 3, 3)),
    case("Conv", "y = Conv<pads=[0,2,1,0], strides=[2,3]>(x, w)",
         lambda x, w: F.conv2d(F.pad(x, (2, 0, 0, 1)), w, stride=(2, 3)), x=(1, 2, 6, 9), w=(3, 2, 3, 3)),
    case("Conv", "y = Conv<pads=[2,2,2,2], dilations=[2,2]>(x, w)",
         lambda x, w: F.conv2d(x, w, padding=2, dilation=2), x=(1, 2, 6, 5), w=(3, 2, 3, 3)),
    case("Conv", "y = Conv<group=4, pads=[1,1,1,1]>(x, w)",
         lambda x, w: F.conv2d(x, w, padding=1, groups=4), x=(2, 4, 5, 5), w=(4, 1, 3, 3)),
    case("Conv", "y = Conv<group=4, pads=[1,1,1,1], strides=[2,2]>(x, w)",
         lambda x, w: F.conv2d(x, w, padding=1, groups=4, stride=2), x=(2, 4, 6, 7), w=(8, 1, 3, 3)),
    case("Conv", "y = Conv<strides=[2], pads=[1,2]>(x, w)",
         lambda x, w: F.conv1d(F.pad(x, (1, 2)), w, stride=2), x=(2, 3, 8), w=(4, 3, 4)),
    case("Conv", "y = Conv<strides=[1,2,2], pads=[1,0,1,1,0,1], group=2>(x, w)",
         lambda x, w: F.conv3d(x, w, stride=(1, 2, 2), padding=(1, 0, 1), groups=2),
         x=(1, 4, 4, 6, 5), w=(2, 2, 3, 2, 3)),
    case("Conv", 'y = Conv<auto_pad="VALID", strides=[2,2]>(x, w)',
         lambda x, w: F.conv2d(x, w, stride=2), x=(1, 2, 8, 7), w=(3, 2, 3, 3)),
    case("Conv", 'y = Conv<auto_pad="SAME_UPPER">(x, w)',
         lambda x, w: F.conv2d(F.pad(x, (1, 2, 0, 1)), w), x=(1, 2, 6, 5), w=(3, 2, 2, 4)),
    case("Conv", 'y = Conv<auto_pad="SAME_LOWER", dilations=[2,1]>(x, w)',
         lambda x, w: F.conv2d(F.pad(x, (2, 1, 1, 1)), w, dilation=(2, 1)), x=(1, 2, 6, 5), w=(3, 2, 2, 4)),
    case("Conv", 'y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)',
         lambda x, w: F.conv2d(F.pad(x, (1, 1, 0, 1)), w, stride=2), x=(1, 2, 6, 5), w=(3, 2, 3, 3), shapes=SIZED),
    case("Conv", 'y = Conv<auto_pad="SAME_LOWER", strides=[2,3]>(x, w)',
         lambda x, w: F.conv2d(F.pad(x, (0, 0, 1, 0)), w, stride=(2, 3)), x=(1, 2, 6, 7), w=(3, 2, 3, 1),
         shapes=SIZED),
    case("ConvTranspose", "y = ConvTranspose(x, w)", F.conv_transpose1d, x=(2, 3, 5), w=(3, 4, 3)),
    case("ConvTranspose", "y = ConvTranspose(x, w, b)", F.conv_transpose2d, x=(2, 3, 4, 5), w=(3, 4, 3, 2), b=(4,)),
    case("ConvTranspose", "y = ConvTranspose<strides=[2,1,2]>(x, w)",
         lambda x, w: F.conv_transpose3d(x, w, stride=(2, 1, 2)), x=(1, 2, 3, 4, 2), w=(2, 3, 2, 1, 3)),
    case("ConvTranspose", "y = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(x, w)",
         lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1), x=(1, 2, 4, 5), w=(2, 3, 4, 4)),
    case("ConvTranspose", "y = ConvTranspose<strides=[2,3], pads=[1,1,1,1], output_padding=[1,2]>(x, w)",
         lambda x, w: F.conv_transpose2d(x, w, stride=(2, 3), padding=1, output_padding=(1, 2)),
         x=(1, 2, 4, 5), w=(2, 3, 3, 3)),
    case("ConvTranspose", "y = ConvTranspose<group=2, strides=[2,2], output_padding=[1,1]>(x, w)",
         lambda x, w: F.conv_transpose2d(x, w, stride=2, groups=2, output_padding=1), x=(2, 4, 3, 3), w=(4, 3, 2, 2)),
    case("ConvTranspose", "y = ConvTranspose<dilations=[3,2], strides=[2,2], output_padding=[1,1]>(x, w)",
         lambda x, w: F.conv_transpose2d(x, w, stride=2, dilation=(3, 2), output_padding=1),
         x=(1, 2, 4, 4), w=(2, 3, 2, 3)),
    case("ConvTranspose", "y = ConvTranspose<strides=[2,2], pads=[0,1,1,2]>(x, w)",
         lambda x, w: F.conv_transpose2d(x, w, stride=2)[:, :, 0:-1, 1:-2], x=(1, 2, 4, 5), w=(2, 3, 3, 3)),
    case("ConvTranspose", 'y = ConvTranspose<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)',
         lambda x, w: F.conv_transpose2d(x, w, stride=2)[:, :, 0:-1, 0:-1], x=(1, 2, 4, 5), w=(2, 3, 3, 3)),
    case("ConvTranspose", 'y = ConvTranspose<auto_pad="SAME_LOWER", strides=[2,2]>(x, w)',
         lambda x, w: F.conv_transpose2d(x, w, stride=2)[:, :, 1:, 1:-1], x=(1, 2, 4, 5), w=(2, 3, 3, 4)),
    case("ConvTranspose", "y = ConvTranspose<output_shape=[8,9], strides=[2,2]>(x, w)",
         lambda x, w: F.conv_transpose2d(x, w, stride=2)[:, :, 1:, 1:-1], x=(1, 2, 4, 5), w=(2, 3, 3, 3),
         shapes=SIZED),
    *[
        case("Gemm", f"y = Gemm<transA={ta}, transB={tb}, alpha=0.5, beta=0.25>(a, b, c)",
             lambda a, b, c, ta=ta, tb=tb: 0.5 * gemm(a.T if ta else a, b.T if tb else b) + 0.25 * c,
             a=(4, 3) if ta else (3, 4), b=(5, 4) if tb else (4, 5), c=c)
        for ta in (0, 1) for tb in (0, 1) for c in ((3, 5), (5,), (3, 1), ())
    ],
    case("Gemm", "y = Gemm(a, b)", gemm, a=(3, 4), b=(4, 5)),
    case("Gemm", 'y = Gemm<transB=1>(a, b, "")', lambda a, b: a @ b.T, a=(3, 4), b=(5, 4)),
    case("Gemm", "y = Gemm<transB=1>(a, b, c)", lambda a, b, c: a @ b.T + c,
         a=(3, 4), b=constant((5, 4)), c=constant((5,))),
    *[
        case("MatMul", "y = MatMul(a, b)", torch.matmul, a=a, b=b)
        for a, b in (
            ((3, 4), (4, 5)), ((4,), (4,)), ((4,), (4, 5)), ((3, 4), (4,)), ((2, 3, 4), (4,)), ((4,), (2, 4, 5)),
            ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (3, 4, 5)),
            ((1, 3, 4), (2, 4, 5)), ((2, 3, 4), (1, 4, 5)), ((2, 3, 3, 4), (4,)),
        )
    ],
    case("MatMul", "y = MatMul(a, b)", torch.matmul, a=(2, 3, 4), b=constant((4, 5))),
    case("MatMul", "y = MatMul(a, a)", lambda a: a @ a, a=(2, 3, 3)),
    *[
        case("Einsum", f'y = Einsum<equation="{equation}">({", ".join(shapes)})',
             lambda *operands, equation=equation: torch.einsum(equation, *operands), **shapes)
        for equation, shapes in (
            ("ij,jk->ik", {"a": (2, 3), "b": (3, 4)}),
            ("ij , kj -> ki", {"a": (2, 3), "b": (4, 3)}),
            ("ij,jk", {"a": (2, 3), "b": (3, 4)}),
            ("ba", {"a": (2, 3)}),
            ("ij->ji", {"a": (2, 3)}),
            ("ijk->i", {"a": (2, 3, 4)}),
            ("ijk->", {"a": (2, 3, 4)}),
            ("i,i->", {"a": (3,), "b": (3,)}),
            ("i,j->ij", {"a": (3,), "b": (4,)}),
            ("bhid,bhjd->bhij", {"a": (2, 3, 4, 5), "b": (2, 3, 6, 5)}),
            ("bij,bjk,k->bi", {"a": (2, 3, 4), "b": (2, 4, 5), "c": (5,)}),
            ("bij,jl->bi", {"a": (2, 3, 4), "b": (4, 5)}),
            ("bij,bjk->bik", {"a": (2, 3, 4), "b": (1, 4, 5)}),
            ("...ij,...jk->...ik", {"a": (2, 3, 4), "b": (2, 4, 5)}),
            ("...ij,...jk->...ik", {"a": (1, 3, 4), "b": (2, 4, 5)}),
            ("i...,...j->ij...", {"a": (3, 2, 4), "b": (2, 4, 5)}),
            ("...i,...i", {"a": (2, 4, 3), "b": (2, 4, 3)}),
            ("...ij,jk->...k", {"a": (2, 3, 4), "b": (4, 5)}),
        )
    ],
]  # fmt: skip

test_derivative = against_torch(CASES)


@pytest.mark.parametrize(("text", "want"), [
    ("""(float[1, 3, 2] x) => (float[1, 3] y) <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}>
        { u = Einsum<equation = "bij->bi">(x) y = MatMul(u, w) }""", [[[2, 2], [5, 5], [8, 8]]]),
    ("""(float[1, 2] x) => (float[1, 3] y) <float[2, 3] w = {1, 2, 3, 4, 5, 6}>
        { y = Einsum<equation = "bd,de->be">(x, w) }""", [[2, 5]]),
], ids=["behind it a product", "at the end"])  # fmt: skip
def test_what_arrives_at_an_einsum_may_be_known(text: str, want: list[object]) -> None:
    """One sample, one class and nothing but products: what comes back are numbers."""
    model = net(f"g {text}")
    shape = np.shape(want)
    results = run(compile_model(model, "gradient", target=1), np.ones(shape, np.float32))
    np.testing.assert_array_equal(results["attribution"], want)
