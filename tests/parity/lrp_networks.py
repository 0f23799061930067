"""Networks for parity tests of relevance, in torch and as ONNX: with seeded weights, and the project's own."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from models.networks import DigitsNet, Residual, SceneNet, SeparableResidual

Join = Callable[[], nn.Module]


class Plus(nn.Module):
    """The sum of a residual block, as a module so that a library can put its own in this place."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Block(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))), with a 1x1 convolution on the shortcut where the size changes."""

    def __init__(self, before: int, after: int, stride: int, join: Join, norm: bool) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *conv(before, after, 3, stride, norm), nn.ReLU(), *conv(after, after, 3, 1, norm)
        )  # fmt: skip
        same = before == after and stride == 1
        self.skip = None if same else nn.Sequential(*conv(before, after, 1, stride, norm))
        self.join = join()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.relu(self.join(self.branch(x), x if self.skip is None else self.skip(x)))
        return joined


def conv(before: int, after: int, kernel: int, stride: int, norm: bool) -> list[nn.Module]:
    """A convolution with its bias, or with a batch norm behind it in the bias's place."""
    layer = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=not norm)
    return [layer, nn.BatchNorm2d(after)] if norm else [layer]


def resnet_like(join: Join = Plus, *, norm: bool = True) -> nn.Module:
    """A stem with an overlapping max-pool, three blocks, a mean and one linear layer: (N, 3, 32, 32) -> (N, 7)."""
    return nn.Sequential(
        *conv(3, 8, 7, 2, norm),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        Block(8, 8, 1, join, norm),
        Block(8, 16, 2, join, norm),
        Block(16, 16, 1, join, norm),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 7),
    )


def vgg_like(*, norm: bool = False) -> nn.Module:
    """Convolutions with bias, max-pools without overlap, three dense layers: (N, 3, 32, 32) -> (N, 7)."""
    features: list[nn.Module] = []
    for before, after in ((3, 8), (8, 12), (12, 16)):
        features += [nn.Conv2d(before, after, 3, padding=1), *([nn.BatchNorm2d(after)] if norm else []), nn.ReLU()]
        features += [nn.Conv2d(after, after, 3, padding=1), *([nn.BatchNorm2d(after)] if norm else []), nn.ReLU()]
        features += [nn.MaxPool2d(2)]
    head = [
        nn.Flatten(),
        nn.Linear(16 * 16, 32),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(32, 24),
        nn.ReLU(),
        nn.Linear(24, 7),
    ]
    return nn.Sequential(*features, *head)


def settled(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network in float64 for inference: He-normal weights, some bias, and batch norms as if trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                fan_in = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
                if module.bias is not None:
                    module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
            elif isinstance(module, nn.BatchNorm2d):
                module.eps = 2**-17
                shifts, scales = (module.bias, module.running_mean), (module.weight, module.running_var)
                for values, low, high in (*((v, -0.3, 0.3) for v in shifts), *((v, 0.5, 1.5) for v in scales)):
                    assert values is not None
                    values.copy_(low + (high - low) * torch.rand(values.shape, generator=generator))
    return net.float().double().eval()


def exported(net: nn.Module, shape: Sequence[int], *, double: bool = False) -> onnx.ModelProto:
    """As ONNX for any batch, by the older exporter, with batch norms left as they are."""
    buffer = io.BytesIO()
    net.to(torch.float64 if double else torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            torch.zeros(1, *shape, dtype=torch.float64 if double else torch.float32),
            buffer,
            dynamo=False,
            opset_version=17,
            training=torch.onnx.TrainingMode.PRESERVE,  # the exporter would fold batch norms itself
            do_constant_folding=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "N"}, "y": {0: "N"}},
        )
    net.double()
    return onnx.load_from_string(buffer.getvalue())


def pictures(n: int, shape: Sequence[int], seed: int = 0) -> NDArray[np.float32]:
    """Smooth noise of both signs."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, *shape)) + 0.7 * rng.standard_normal((n, shape[0], 1, 1))).astype(np.float32)


# The project's own


class WithPlus(nn.Module):
    """A residual block of models/networks.py as its exporter left it: the sum a module, what can be folded folded."""

    def __init__(self, block: Residual | SeparableResidual, join: Join) -> None:
        super().__init__()
        skip = block.skip if isinstance(block, Residual) else None
        self.skip = None if isinstance(skip, nn.Identity) else skip
        norm, relu, first, _, *rest = block.branch  # the norm behind the first convolution was folded
        self.branch = nn.Sequential(norm, relu, first, *rest)
        self.join = join()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.skip is None else self.skip(x)
        total: Tensor = self.join(shortcut, self.branch(x))
        return total


def own(name: str, model: onnx.ModelProto, join: Join = Plus) -> nn.Module:
    """The torch module behind one of the project's models, with the weights of its ONNX file.

    Batch norms that the exporter folded are taken out, as they are in the file.
    """
    if name == "digits":
        net: nn.Module = DigitsNet()
        return read_back(net, model, (1, 8, 8))
    scene = SceneNet(6, {"shapes": 16, "cleverhans": 12}[name])
    stem, _, *features = scene.features
    layers = [stem, *(WithPlus(m, join) if isinstance(m, (Residual, SeparableResidual)) else m for m in features)]
    return read_back(nn.Sequential(*layers, scene.pool, nn.Flatten(), scene.linear), model, (3, 64, 64))


def read_back(net: nn.Module, model: onnx.ModelProto, shape: Sequence[int]) -> nn.Module:
    """Give the modules with weights, in the order in which they run, those of the nodes in the order of the graph."""
    ran: list[nn.Module] = []
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(lambda m, *_: ran.append(m)) for m in net.modules() if isinstance(m, kinds)]
    net.eval()(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    weights = {i.name: torch.tensor(numpy_helper.to_array(i)) for i in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm", "BatchNormalization")]
    for module, node in zip(ran, nodes, strict=True):
        given = [weights[name] for name in node.input[1:]]
        module.weight = nn.Parameter(given[0])
        module.bias = nn.Parameter(given[1]) if len(given) > 1 else None
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean, module.running_var = given[2:]
            module.eps = helper.get_node_attr_value(node, "epsilon")  # which float32 has rounded
    return net.double().eval()


def doubled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in float64: its weights as they are, and stabilisers that float32 does not round."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    del wide.graph.value_info[:]
    for value in (*wide.graph.input, *wide.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for weight in wide.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float64), weight.name))
    return wide
