"""Three small networks, quantised or in half precision, and a picture for them."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from tests.running import Array


class Residual(nn.Module):
    """Two branches, a shortcut, global average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.one, self.two = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = (x + self.two(self.one(x).relu())).relu()
        y: Tensor = self.head(x.mean((2, 3)))
        return y


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(12 * 16, 16), nn.ReLU(), nn.Linear(16, 5),
    )  # fmt: skip


def separable() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU6(), nn.Conv2d(8, 12, 1),
        nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


NETWORKS = {"plain": plain, "residual": Residual, "separable": separable}


def made(name: str) -> nn.Module:
    torch.manual_seed(3)
    net: nn.Module = NETWORKS[name]().eval()  # type: ignore[operator]
    return net


def pictures(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 3, 16, 16)).astype(np.float32)


def exported(name: str) -> onnx.ModelProto:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"pixels": {0: "N"}, "scores": {0: "N"}}
        torch.onnx.export(
            made(name), (torch.from_numpy(pictures(2)),), file, dynamo=False, input_names=["pixels"],
            output_names=["scores"], dynamic_axes=axes, opset_version=17,
        )  # fmt: skip
    return onnx.load_model_from_string(file.getvalue())


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.rows: Iterator[dict[str, Array]] = iter([{"pixels": pictures(16, seed=9)}])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.rows, None)


def quantised(name: str, folder: Path, form: str, *, per_channel: bool = True) -> onnx.ModelProto:
    """The network in int8, calibrated on sixteen pictures. form: "QDQ" or "QOperator"."""
    source, result = folder / "float.onnx", folder / "int8.onnx"
    onnx.save(exported(name), source)
    logging.getLogger().setLevel(logging.ERROR)
    quantize_static(
        source, result, _Reader(), quant_format=QuantFormat[form], per_channel=per_channel,
        activation_type=QuantType.QUInt8 if form == "QOperator" else QuantType.QInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return onnx.load(result)
