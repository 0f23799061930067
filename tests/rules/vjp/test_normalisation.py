"""Normalisation layers. Epsilons are powers of two, which float32 holds exactly."""

import torch.nn.functional as F
from torch import Tensor

from tests.rules.harness import against_torch, case, constant, positive

EPS = 2.0**-10


def neighbours(x: Tensor, size: int, alpha: float, beta: float, bias: float) -> Tensor:
    """ONNX's LRN: floor((size - 1) / 2) channels in front, and the rest behind."""
    squares = F.pad((x * x).movedim(1, -1), ((size - 1) // 2, size // 2)).unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    return x / (bias + alpha / size * squares) ** beta


CASES = [
    case("BatchNormalization", f"y = BatchNormalization<epsilon={EPS}>(x, scale, b, mean, variance)",
         lambda x, scale, b, mean, variance: F.batch_norm(x, mean, variance, scale, b, eps=EPS),
         x=(2, 3, 4, 5), scale=constant((3,)), b=constant((3,)), mean=constant((3,)), variance=constant([0.5, 1, 3])),
    case("BatchNormalization", "y = BatchNormalization(x, scale, b, mean, variance)",
         lambda x, scale, b, mean, variance: F.batch_norm(x, mean, variance, scale, b),
         x=(2, 3), scale=constant((3,)), b=constant((3,)), mean=constant((3,)), variance=constant([0.5, 1, 3])),
    case("LayerNormalization", f"y = LayerNormalization<epsilon={EPS}>(x, scale, b)",
         lambda x, scale, b: F.layer_norm(x, (4,), scale, b, EPS), x=(2, 3, 4), scale=(4,), b=(4,)),
    case("LayerNormalization", f"y = LayerNormalization<epsilon={EPS}>(x, scale)",
         lambda x, scale: F.layer_norm(x, (4,), scale, eps=EPS), x=(2, 3, 4), scale=(4,)),
    case("LayerNormalization", f"y = LayerNormalization<axis=1, epsilon={EPS}>(x, scale, b)",
         lambda x, scale, b: F.layer_norm(x, (3, 4), scale, b, EPS), x=(2, 3, 4), scale=(3, 4), b=(3, 4)),
    case("LayerNormalization", f"y = LayerNormalization<axis=-3, epsilon={EPS}>(x, scale)",
         lambda x, scale: F.layer_norm(x, (3, 4, 2), eps=EPS) * scale, x=(2, 3, 4, 2), scale=(3, 1, 1)),
    case("LayerNormalization", f"y, mean, inverse = LayerNormalization<epsilon={EPS}>(x, scale, b)",
         lambda x, scale, b: F.layer_norm(x, (4,), scale, b, EPS), x=(2, 3, 4), scale=(4,), b=(4,)),
    case("InstanceNormalization", f"y = InstanceNormalization<epsilon={EPS}>(x, scale, b)",
         lambda x, scale, b: F.instance_norm(x, weight=scale, bias=b, eps=EPS), x=(2, 3, 4, 5), scale=(3,), b=(3,)),
    case("InstanceNormalization", f"y = InstanceNormalization<epsilon={EPS}>(x, scale, b)",
         lambda x, scale, b: F.instance_norm(x, weight=scale, bias=b, eps=EPS), x=(2, 3, 6), scale=(3,), b=(3,)),
    case("GroupNormalization", f"y = GroupNormalization<num_groups=2, epsilon={EPS}>(x, scale, b)",
         lambda x, scale, b: F.group_norm(x, 2, scale, b, EPS), x=(2, 6, 3, 4), scale=(6,), b=(6,), opset=21),
    case("GroupNormalization", f"y = GroupNormalization<num_groups=1, epsilon={EPS}>(x, scale, b)",
         lambda x, scale, b: F.group_norm(x, 1, scale, b, EPS), x=(2, 4, 5), scale=(4,), b=(4,), opset=21),
    case("GroupNormalization", f"y = GroupNormalization<num_groups=2, epsilon={EPS}>(x, scale, b)",
         lambda x, scale, b: F.group_norm(x, 2, scale.repeat_interleave(3), b.repeat_interleave(3), EPS),
         x=(2, 6, 3, 4), scale=(2,), b=(2,), opset=20),
    case("MeanVarianceNormalization", "y = MeanVarianceNormalization(x)",
         lambda x: (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), correction=0, keepdim=True),
         x=(2, 3, 4, 5), double=1e-8),
    case("MeanVarianceNormalization", "y = MeanVarianceNormalization<axes=[2,3]>(x)",
         lambda x: F.instance_norm(x, eps=0), x=(2, 3, 4, 5), double=1e-8),
    case("LRN", "y = LRN<size=3>(x)", lambda x: neighbours(x, 3, 1e-4, 0.75, 1), x=(2, 5, 3, 4), double=1e-7),
    case("LRN", "y = LRN<size=3, alpha=0.5, beta=0.75, bias=2.0>(x)",
         lambda x: F.local_response_norm(x, 3, 0.5, 0.75, 2), x=(2, 5, 3, 4)),
    case("LRN", "y = LRN<size=4, alpha=0.5, beta=0.5, bias=1.5>(x)",
         lambda x: neighbours(x, 4, 0.5, 0.5, 1.5), x=(2, 6, 3, 4), single=None),
    case("LRN", "y = LRN<size=2, alpha=0.5, beta=0.75, bias=1.0>(x)",
         lambda x: neighbours(x, 2, 0.5, 0.75, 1), x=(2, 3, 2, 2), single=None),
    case("LRN", "y = LRN<size=9, alpha=0.5, beta=0.75, bias=1.0>(x)",
         lambda x: neighbours(x, 9, 0.5, 0.75, 1), x=(2, 3, 2, 2)),
    case("LpNormalization", "y = LpNormalization(x)", lambda x: F.normalize(x, dim=-1), x=(2, 3, 4)),
    case("LpNormalization", "y = LpNormalization<axis=1>(x)", lambda x: F.normalize(x, dim=1), x=(2, 3, 4)),
    case("LpNormalization", "y = LpNormalization<p=1, axis=0>(x)", lambda x: F.normalize(x, p=1, dim=0), x=(2, 3, 4)),
    case("LpNormalization", "y = LpNormalization<p=1>(x)", lambda x: F.normalize(x, p=1, dim=-1), x=positive(2, 4)),
]  # fmt: skip

test_derivative = against_torch(CASES)
