"""Run an ONNX model with torch operators, so that torch.autograd can differentiate it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import onnx
import torch
from onnx import inliner
from torch import Tensor

from . import (  # noqa: F401  imported because each registers its operators
    activation,
    constant,
    elementwise,
    indexing,
    layout,
    linear,
    normalisation,
    pooling,
    quantisation,
    reduction,
    resample,
)
from .registry import HANDLERS, Op, UnknownOperator, to_tensor

Relu = Callable[[Tensor], Tensor]


class _Pin(torch.autograd.Function):
    """`computed + (observed - computed).detach()`, without the rounding of that sum."""

    @staticmethod
    def forward(ctx: Any, computed: Tensor, observed: Tensor) -> Tensor:
        return observed.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def pin(computed: Tensor, observed: Tensor) -> Tensor:
    """The observed value forward; backward, as if it had been computed."""
    if computed.shape != observed.shape:
        raise ValueError(f"computed {tuple(computed.shape)}, but the value to pin is {tuple(observed.shape)}")
    if not computed.is_floating_point():
        return observed.to(computed.dtype)
    apply: Callable[..., Tensor] = _Pin.apply
    return apply(computed, observed.to(computed.dtype))


class Oracle:
    """One model, ready to run any number of times.

    Floating weights and inputs, and casts to a floating type, all take `dtype`; integers and booleans keep their own.
    In float64 the result is therefore the model's mathematics, free of its rounding.
    """

    def __init__(self, model: onnx.ModelProto, dtype: torch.dtype = torch.float64) -> None:
        if model.functions:
            model = inliner.inline_local_functions(model)
        self.dtype = dtype
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        self.nodes = list(model.graph.node)
        self.weights = {i.name: to_tensor(i, dtype) for i in model.graph.initializer}
        self.inputs = input_names(model)
        self.outputs = [o.name for o in model.graph.output]
        self._ops = [Op.of(node, self.opset, dtype) for node in self.nodes]
        self._known = {*self.weights, *self.inputs, *(name for node in self.nodes for name in node.output)}

    def run(
        self,
        inputs: Mapping[str, Tensor],
        *,
        outputs: Sequence[str] | None = None,
        relu: Relu | None = None,
        pinned: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The tensors named by `outputs` (any in the graph), or else the model's own outputs.

        relu: takes the place of every Relu.
        pinned: values observed elsewhere, by tensor name. They stand in for the computed ones; the gradient goes
            through to what would have computed them. A Relu whose output is pinned is open where the pinned value
            is positive.
        """
        wanted = list(self.outputs if outputs is None else outputs)
        if unknown := {*wanted, *inputs, *(pinned or {})} - self._known:
            raise KeyError(f"the model has no tensor named {sorted(unknown)}")
        values = self.start(inputs, pinned)
        for k in self._needed(wanted, values):
            self.step(k, values, relu=relu, pinned=pinned)
        return {name: values[name] for name in wanted}

    def start(self, inputs: Mapping[str, Tensor], pinned: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The values known before the first node runs."""
        if missing := set(self.inputs) - set(inputs):
            raise KeyError(f"no value given for the inputs {sorted(missing)}")
        given = {name: x.to(self.dtype) if x.is_floating_point() else x for name, x in inputs.items()}
        return self.weights | {n: pin(x, pinned[n]) if pinned and n in pinned else x for n, x in given.items()}

    def step(
        self,
        k: int,
        values: dict[str, Tensor],
        *,
        relu: Relu | None = None,
        pinned: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Run node k: read its operands from `values` and put its results there."""
        node, op, pinned = self.nodes[k], self._ops[k], pinned or {}
        operands = [values[name] if name else None for name in node.input]
        try:
            if node.op_type == "Relu" and operands[0] is not None:
                # pinning the operand to the observed output sets the mask, and changes nothing else
                observed = pinned.get(node.output[0])
                x = operands[0] if observed is None else pin(operands[0], observed)
                results: Tensor | Sequence[Tensor] = (relu or torch.relu)(x)
            else:
                results = self._handler(node)(op, *operands)
        except Exception as error:
            error.add_note(f"at node {node.name or node.output[0]!r} ({node.op_type}, opset {self.opset})")
            raise
        for name, result in zip(node.output, [results] if isinstance(results, Tensor) else results, strict=False):
            values[name] = pin(result, pinned[name]) if name in pinned else result

    def _handler(self, node: onnx.NodeProto) -> Callable[..., Tensor | Sequence[Tensor]]:
        if node.domain not in ("", "ai.onnx") or node.op_type not in HANDLERS:
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise UnknownOperator(f"the oracle has no function for the operator {name}")
        return HANDLERS[node.op_type]

    def _needed(self, wanted: Iterable[str], known: Mapping[str, Tensor]) -> list[int]:
        """The nodes that the wanted tensors depend on, in the model's (topological) order."""
        missing, chosen = set(wanted) - set(known), []
        for k in reversed(range(len(self.nodes))):
            if missing.intersection(self.nodes[k].output):
                missing.difference_update(self.nodes[k].output)
                missing.update(name for name in self.nodes[k].input if name and name not in known)
                chosen.append(k)
        return chosen[::-1]


def input_names(model: onnx.ModelProto) -> list[str]:
    """The inputs that a caller must give: before IR version 4, weights are listed as inputs too."""
    stored = {i.name for i in model.graph.initializer}
    return [i.name for i in model.graph.input if i.name not in stored]
