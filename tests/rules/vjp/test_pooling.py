"""Pooling in one to three dimensions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.rules.harness import DYNAMIC, SIZED, against_torch, case, real, ties


def lp(x: Tensor, p: int, kernel: int | tuple[int, int], **how: object) -> Tensor:
    """(sum over each window of |x|^p)^(1/p), by an average that counts padding."""
    size = torch.tensor(kernel).prod().item() if isinstance(kernel, tuple) else kernel**2
    return (F.avg_pool2d(x.abs() ** p, kernel, **how) * size) ** (1 / p)  # type: ignore[arg-type]


CASES = [
    case("MaxPool", "y = MaxPool<kernel_shape=[3]>(x)", lambda x: F.max_pool1d(x, 3, 1), x=(2, 3, 8)),
    case("MaxPool", "y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)", lambda x: F.max_pool2d(x, 2), x=(2, 3, 6, 7)),
    case("MaxPool", "y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)", lambda x: F.max_pool2d(x, 2),
         x=ties(2, 3, 6, 6)),
    case("MaxPool", "y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)",
         lambda x: F.max_pool2d(x, 3, 2, 1), x=(2, 3, 7, 8)),
    case("MaxPool", "y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)",
         lambda x: F.max_pool2d(x, 3, 2, 1), x=ties(2, 3, 7, 8)),
    case("MaxPool", "y = MaxPool<kernel_shape=[3,3]>(x)", lambda x: F.max_pool2d(x, 3, 1), x=ties(2, 3, 7, 8)),
    case("MaxPool", "y = MaxPool<kernel_shape=[3,2], strides=[2,2], ceil_mode=1>(x)",
         lambda x: F.max_pool2d(x, (3, 2), 2, ceil_mode=True), x=(2, 3, 6, 7)),
    case("MaxPool", "y = MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x)",
         lambda x: F.max_pool2d(x, 2, ceil_mode=True), x=ties(2, 3, 5, 7)),
    case("MaxPool", "y = MaxPool<kernel_shape=[2,3], dilations=[2,2], pads=[1,1,0,1]>(x)",
         lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 0), value=-1e9), (2, 3), 1, dilation=2), x=(2, 3, 6, 7)),
    case("MaxPool", "y = MaxPool<kernel_shape=[2,2], dilations=[3,3], strides=[2,2]>(x)",
         lambda x: F.max_pool2d(x, 2, 2, dilation=3), x=(2, 3, 8, 7)),
    case("MaxPool", "y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[0,0,1,1]>(x)",
         lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-1e9), 3, 2), x=(1, 2, 6, 6)),
    case("MaxPool", "y = MaxPool<kernel_shape=[2,3,2], strides=[1,2,2]>(x)",
         lambda x: F.max_pool3d(x, (2, 3, 2), (1, 2, 2)), x=ties(1, 2, 4, 5, 6)),
    case("MaxPool", 'y = MaxPool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER">(x)',
         lambda x: F.max_pool2d(F.pad(x, (1, 1, 0, 1), value=-1e9), 3, 2), x=(1, 2, 6, 7)),
    case("MaxPool", "y = MaxPool<kernel_shape=[2,2], strides=[2,2], storage_order=1>(x)",
         lambda x: F.max_pool2d(x, 2), x=ties(1, 2, 4, 4)),
    case("MaxPool", "y, at = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)", lambda x: F.max_pool2d(x, 2),
         x=(1, 2, 4, 4)),
    case("AveragePool", "y = AveragePool<kernel_shape=[3]>(x)", lambda x: F.avg_pool1d(x, 3, 1), x=(2, 3, 8)),
    case("AveragePool", "y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(x)",
         lambda x: F.avg_pool2d(x, 2), x=(2, 3, 6, 7)),
    case("AveragePool", "y = AveragePool<kernel_shape=[7,7]>(x)", lambda x: F.avg_pool2d(x, 7), x=(2, 3, 7, 7)),
    case("AveragePool", "y = AveragePool<kernel_shape=[3,2], strides=[2,1], pads=[1,1,1,1]>(x)",
         lambda x: F.avg_pool2d(x, (3, 2), (2, 1), 1, count_include_pad=False), x=(2, 3, 7, 6)),
    case("AveragePool", "y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1>(x)",
         lambda x: F.avg_pool2d(x, 3, 2, 1), x=(2, 3, 7, 6)),
    case("AveragePool", "y = AveragePool<kernel_shape=[3,3], pads=[0,1,2,1], count_include_pad=1>(x)",
         lambda x: F.avg_pool2d(F.pad(x, (1, 1, 0, 2)), 3, 1), x=(2, 3, 5, 6)),
    case("AveragePool", "y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[0,1,2,1]>(x)",
         lambda x: F.avg_pool2d(F.pad(x, (1, 1, 0, 2)), 3, 2)
         / F.avg_pool2d(F.pad(torch.ones_like(x), (1, 1, 0, 2)), 3, 2), x=(2, 3, 5, 6)),
    case("AveragePool", "y = AveragePool<kernel_shape=[3,2], strides=[2,2], ceil_mode=1>(x)",
         lambda x: F.avg_pool2d(x, (3, 2), 2, ceil_mode=True), x=(2, 3, 6, 7)),
    case("AveragePool", "y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], ceil_mode=1>(x)",
         lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False), x=(2, 3, 6, 8)),
    case("AveragePool",
         "y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], ceil_mode=1, count_include_pad=1>(x)",
         lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), x=(2, 3, 6, 8)),
    case("AveragePool", "y = AveragePool<kernel_shape=[2,2], strides=[3,3], ceil_mode=1>(x)",
         lambda x: F.avg_pool2d(x, 2, 3, ceil_mode=True), x=(1, 2, 6, 7),
         shapes=(DYNAMIC,)),  # ONNX's inference counts a last window that begins past the input; the runtime has none
    case("AveragePool", "y = AveragePool<kernel_shape=[2,2], dilations=[2,1]>(x)",
         lambda x: (x[:, :, :-2, :-1] + x[:, :, 2:, :-1] + x[:, :, :-2, 1:] + x[:, :, 2:, 1:]) / 4, x=(1, 2, 5, 6)),
    case("AveragePool", "y = AveragePool<kernel_shape=[2,3,2], strides=[1,2,2], pads=[1,1,0,0,1,1]>(x)",
         lambda x: F.avg_pool3d(F.pad(x, (0, 1, 1, 1, 1, 0)), (2, 3, 2), (1, 2, 2))
         / F.avg_pool3d(F.pad(torch.ones_like(x), (0, 1, 1, 1, 1, 0)), (2, 3, 2), (1, 2, 2)), x=(1, 2, 4, 5, 5)),
    case("AveragePool", 'y = AveragePool<kernel_shape=[3,3], auto_pad="SAME_UPPER">(x)',
         lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), x=(1, 2, 5, 6)),
    case("AveragePool", 'y = AveragePool<kernel_shape=[2,2], strides=[2,2], auto_pad="SAME_LOWER">(x)',
         lambda x: F.avg_pool2d(F.pad(x, (0, 0, 1, 0)), 2) / F.avg_pool2d(F.pad(torch.ones_like(x), (0, 0, 1, 0)), 2),
         x=(1, 2, 5, 6), shapes=SIZED),
    case("LpPool", "y = LpPool<kernel_shape=[2,2], strides=[2,2]>(x)", lambda x: lp(x, 2, 2), x=(2, 3, 6, 7)),
    case("LpPool", "y = LpPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)",
         lambda x: lp(x, 2, 3, stride=2, padding=1), x=(2, 3, 6, 7)),
    case("LpPool", "y = LpPool<kernel_shape=[2,3], strides=[1,1], p=3>(x)",
         lambda x: lp(x, 3, (2, 3), stride=1), x=(2, 3, 4, 5), single=1e-4),
    case("LpPool", "y = LpPool<kernel_shape=[3,3], strides=[2,2], p=1>(x)",
         lambda x: lp(x, 1, 3, stride=2), x=(2, 3, 7, 7)),
    case("LpPool", "y = LpPool<kernel_shape=[2,2], strides=[2,2]>(x)",
         lambda x: ((x * x).reshape(1, 1, 2, 2, 2, 2).sum((3, 5)) + 1e-30).sqrt(),
         x=real([[[[0, 0, 1, 2], [0, 0, 3, 4], [1, 0, 5, 6], [0, 0, 7, 8]]]])),
    case("LpPool", "y = LpPool<kernel_shape=[3], dilations=[2]>(x)",
         lambda x: (x[:, :, :-4] ** 2 + x[:, :, 2:-2] ** 2 + x[:, :, 4:] ** 2).sqrt(), x=(2, 3, 8)),
    case("GlobalLpPool", "y = GlobalLpPool(x)", lambda x: (x**2).sum((2, 3), keepdim=True).sqrt(), x=(2, 3, 4, 5)),
    case("GlobalLpPool", "y = GlobalLpPool<p=3>(x)",
         lambda x: (x.abs() ** 3).sum((2, 3), keepdim=True) ** (1 / 3), x=(2, 3, 4, 5)),
    case("GlobalLpPool", "y = GlobalLpPool<p=1>(x)", lambda x: x.abs().sum(2, keepdim=True), x=(2, 3, 4)),
    case("GlobalAveragePool", "y = GlobalAveragePool(x)", lambda x: x.mean((2, 3), keepdim=True), x=(2, 3, 4, 5)),
    case("GlobalAveragePool", "y = GlobalAveragePool(x)", lambda x: x.mean(2, keepdim=True), x=(2, 3, 4)),
    case("GlobalAveragePool", "y = GlobalAveragePool(x)", lambda x: x.mean((2, 3, 4), keepdim=True), x=(1, 2, 3, 4, 2)),
    case("GlobalMaxPool", "y = GlobalMaxPool(x)", lambda x: F.adaptive_max_pool2d(x, 1), x=(2, 3, 4, 5)),
    case("GlobalMaxPool", "y = GlobalMaxPool(x)", lambda x: F.adaptive_max_pool2d(x, 1), x=ties(2, 3, 4, 5)),
    case("GlobalMaxPool", "y = GlobalMaxPool(x)", lambda x: F.adaptive_max_pool3d(x, 1), x=ties(1, 2, 3, 4, 2)),
]  # fmt: skip

test_derivative = against_torch(CASES)
