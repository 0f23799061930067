"""Export of a network by either of torch's exporters, with a batch that is fixed or free."""

from __future__ import annotations

import io
import logging
import warnings
from contextlib import redirect_stdout
from functools import cache

import onnx
import torch
from torch import nn

from tests.zoo.architectures import Architecture, samples, trained, unbiased

EXPORTERS = ("torchscript", "dynamo")
BATCHES = ("static", "dynamic")


@cache
def exported(each: Architecture, exporter: str, batch: str, opset: int | None = None, *, biased: bool = True) -> bytes:
    """The network as an ONNX file: for a batch of two, or for any.

    opset:  as asked of the exporter; its own choice by default.
    biased: with its additive constants, or without a single one.
    """
    return export(trained(each) if biased else unbiased(each), each, exporter, batch, opset).SerializeToString()


def export(module: nn.Module, each: Architecture, exporter: str, batch: str, opset: int | None) -> onnx.ModelProto:
    inputs, names = samples(each, 2, 0), list(each.inputs)
    free = batch == "dynamic"
    quiet, file = io.StringIO(), io.BytesIO()
    chosen = {} if opset is None else {"opset_version": opset}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(quiet):
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            axes = {name: {0: "batch"} for name in (*names, "scores")} if free else None
            torch.onnx.export(
                module, inputs, file, dynamo=False, input_names=names, output_names=["scores"],
                dynamic_axes=axes, **chosen,
            )  # fmt: skip
            return onnx.load_model_from_string(file.getvalue())
        shapes = tuple({0: torch.export.Dim("batch", min=1, max=64)} for _ in names) if free else None
        program = torch.onnx.export(
            module, inputs, dynamo=True, input_names=names, output_names=["scores"], dynamic_shapes=shapes,
            verbose=False, **chosen,
        )  # fmt: skip
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model
