"""Any ONNX classifier as a torch module that other libraries can hook: its ReLUs and one tap are modules."""

from __future__ import annotations

from onnx import ModelProto
from torch import Tensor, nn

from tests.catalogue import with_batch
from tests.oracle import Oracle, logits_name


class OracleModule(nn.Module):
    """The scores before any softmax, (N, classes), of inputs of any batch, in float64.

    tap: a tensor that passes through the module `self.tap`.
    """

    def __init__(self, model: ModelProto, tap: str | None = None) -> None:
        super().__init__()
        model = with_batch(model, "N")
        self.oracle, self.score, self.tapped = Oracle(model), logits_name(model), tap
        relus = [k for k, node in enumerate(self.oracle.nodes) if node.op_type == "Relu"]
        self.relus = nn.ModuleDict({str(k): nn.ReLU() for k in relus})
        self.tap = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        oracle = self.oracle
        values = oracle.start({oracle.inputs[0]: x})
        for k, node in enumerate(oracle.nodes):
            if str(k) in self.relus:
                values[node.output[0]] = self.relus[str(k)](values[node.input[0]])
            else:
                oracle.step(k, values)
            if node.output[0] == self.tapped:
                values[node.output[0]] = self.tap(values[node.output[0]])
            if self.score in node.output:
                break
        return values[self.score].flatten(1)
