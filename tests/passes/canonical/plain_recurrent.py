"""LSTM, GRU and RNN as their definition in ONNX says, in torch, so that autograd can differentiate them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
BY_NAME = {
    "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Relu": torch.relu,
    "HardSigmoid": lambda v: (0.2 * v + 0.5).clamp(0, 1),
    "Softsign": torch.nn.functional.softsign, "Softplus": torch.nn.functional.softplus,
}  # fmt: skip


def recurrent(op: str, x: Tensor, given: Mapping[str, Tensor], attributes: Mapping[str, Any]) -> list[Tensor]:
    """Y, Y_h and for an LSTM Y_c. x and what is given (W, R, B, h, c, P) are laid out as ONNX has them."""
    batch_first = bool(attributes.get("layout", 0))
    sequence = x.transpose(0, 1) if batch_first else x
    direction = attributes.get("direction", "forward")
    ways = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    runs = [_one_way(op, sequence, given, attributes, d, back, batch_first) for d, back in enumerate(ways)]
    y = torch.stack([run[0] for run in runs], 1)
    ends = [torch.stack([run[1][k] for run in runs]) for k in range(2 if op == "LSTM" else 1)]
    return [y.permute(2, 0, 1, 3), *(e.transpose(0, 1) for e in ends)] if batch_first else [y, *ends]


def _one_way(
    op: str,
    x: Tensor,
    given: Mapping[str, Tensor],
    attributes: Mapping[str, Any],
    d: int,
    back: bool,
    batch_first: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    size = given["R"].shape[2]
    zero = x.new_zeros(x.shape[1], size)

    def initial(name: str) -> Tensor:
        return zero if name not in given else given[name][:, d] if batch_first else given[name][d]

    count = len(FUNCTIONS[op])
    names = attributes.get("activations", [*FUNCTIONS[op]] * 2)[d * count : (d + 1) * count]
    bound = attributes.get("clip", float("inf"))
    act = [lambda v, f=BY_NAME[name]: f(v.clamp(-bound, bound)) for name in names]
    w, r = (given[key][d].chunk(GATES[op]) for key in "WR")
    b = given["B"][d] if "B" in given else x.new_zeros(2 * GATES[op] * size)
    wb, rb = (part.chunk(GATES[op]) for part in b.chunk(2))
    p = given["P"][d].chunk(3) if "P" in given else [x.new_zeros(size)] * 3
    h, c = initial("h"), initial("c")
    outputs: dict[int, Tensor] = {}
    for t in reversed(range(len(x))) if back else range(len(x)):
        a = [x[t] @ w[k].T + wb[k] for k in range(GATES[op])]
        s = [h @ r[k].T + rb[k] for k in range(GATES[op])]
        if op == "LSTM":
            i = act[0](a[0] + s[0] + p[0] * c)
            f = 1 - i if attributes.get("input_forget", 0) else act[0](a[2] + s[2] + p[2] * c)
            c = f * c + i * act[1](a[3] + s[3])
            h = act[0](a[1] + s[1] + p[1] * c) * BY_NAME[names[2]](c)
        elif op == "GRU":
            z, reset = act[0](a[0] + s[0]), act[0](a[1] + s[1])
            if attributes.get("linear_before_reset", 0):
                n = act[1](a[2] + reset * s[2])
            else:
                n = act[1](a[2] + (reset * h) @ r[2].T + rb[2])
            h = (1 - z) * n + z * h
        else:
            h = act[0](a[0] + s[0])
        outputs[t] = h
    return torch.stack([outputs[t] for t in range(len(x))]), (h, c)
