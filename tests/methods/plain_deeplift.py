"""DeepLIFT once more, slower and plainer, in float64: nothing here knows of the compiler.

Rescale: the oracle runs a sample and its baseline as a batch of two, and torch carries multipliers back where it
carries gradients: each operator that is not linear is replaced by one whose backward pass is a quotient of differences.

RevealCancel: convolutions and pools as matrices and lists of positions, every contribution of every weight by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from tests.catalogue import with_batch
from tests.oracle import Oracle, logits_name
from tests.oracle.registry import HANDLERS, Op

Array = NDArray[Any]


class Quotient(torch.autograd.Function):
    """A function of one number: what comes back is multiplied by Dy/Dx; the derivative where nothing changed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(x)
        return function(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            again = x.detach().requires_grad_()
            y = ctx.function(again)
            (slope,) = torch.autograd.grad(y.sum(), again)
        dx, dy = x[0] - x[1], (y[0] - y[1]).detach()
        near = dx.abs() < 1e-12
        found = torch.where(near, slope[0], dy / torch.where(near, 1.0, dx))
        return torch.stack([gradients[0][0] * found, torch.zeros_like(found)]), None


class Product(torch.autograd.Function):
    """D(ab) = Da (b + b0)/2 + Db (a + a0)/2."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        m = gradients[0][:1]
        both = []
        for own, other in ((a, b), (b, a)):
            flow = m * other.mean(0, keepdim=True)
            while flow.dim() > own.dim():
                flow = flow.sum(1)
            for axis in range(1, own.dim()):
                if own.shape[axis] == 1:
                    flow = flow.sum(axis, keepdim=True)
            both.append(torch.cat([flow, torch.zeros_like(flow)]))
        return both[0], both[1]


class Pool(torch.autograd.Function):
    """Max-pooling over one plane after the other: one window at a time, one winner for each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, op: Op) -> Tensor:
        ctx.op = op
        ctx.save_for_backward(x, y)
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, y = ctx.saved_tensors
        op, flow = ctx.op, torch.zeros_like(x)
        kernel, pads = op.integers("kernel_shape"), op.integers("pads", [0, 0, 0, 0])
        strides = op.integers("strides", [1, 1])
        for c, i, j in itertools.product(*(range(n) for n in y.shape[1:])):
            change = y[0, c, i, j] - y[1, c, i, j]
            taker = x[0, c] if change >= 0 else x[1, c]
            rows, columns = (
                range(max(k * strides[a] - pads[a], 0), min(k * strides[a] - pads[a] + kernel[a], x.shape[2 + a]))
                for a, k in ((0, i), (1, j))
            )
            p, q = max(itertools.product(rows, columns), key=lambda at: taker[at])
            moved = x[0, c, p, q] - x[1, c, p, q]
            share = change / moved if moved != 0 else 1.0
            flow[0, c, p, q] += gradients[0][0, c, i, j] * share
        return flow, None, None


ONE_INPUT = ("Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Clip", "LeakyRelu", "Gelu", "Erf", "Softplus")


@contextmanager
def _replaced() -> Iterator[None]:
    """The oracle's operators with DeepLIFT's backward passes."""
    kept = dict(HANDLERS)

    def one_input(plain: Callable[..., Any]) -> Callable[..., Any]:
        return lambda op, x, *others: Quotient.apply(x, lambda v: plain(op, v, *others))

    def product(op: Op, a: Tensor, b: Tensor) -> Tensor:
        two = a.requires_grad and b.requires_grad
        return Product.apply(a, b) if two else kept["Mul"](op, a, b)  # type: ignore[no-any-return, return-value]

    def pool(op: Op, x: Tensor) -> Tensor:
        return Pool.apply(x, kept["MaxPool"](op, x.detach()), op)  # type: ignore[no-any-return]

    try:
        HANDLERS.update({name: one_input(kept[name]) for name in ONE_INPUT} | {"Mul": product, "MaxPool": pool})
        yield
    finally:
        HANDLERS.update(kept)


def rescale(model: onnx.ModelProto, x: Array, baseline: Array, target: int) -> Array:
    """The attribution of one sample (1, ...) for one class."""
    oracle, scores = Oracle(with_batch(model, 2)), logits_name(model)
    pair = torch.from_numpy(np.concatenate([x, baseline]).astype(np.float64)).requires_grad_()
    with _replaced():
        found = oracle.run({oracle.inputs[0]: pair}, outputs=[scores], relu=lambda v: Quotient.apply(v, torch.relu))[
            scores
        ]
        (m,) = torch.autograd.grad(found.flatten(1)[0, target], pair)
    return (m[:1] * (pair[:1] - pair[1:])).detach().numpy()


# RevealCancel


def _matrix(apply: Callable[[Array], Array], size: int) -> Array:
    """The matrix (out, in) of a linear function, one unit vector after the other."""
    return np.stack([apply(unit) for unit in np.eye(size)], axis=1)


class Dense:
    """A chain of convolutions, max-pools, ReLUs and linear layers, each as a matrix or a list of windows."""

    def __init__(self, model: onnx.ModelProto, shape: tuple[int, ...]) -> None:
        weights = {i.name: numpy_helper.to_array(i).astype(np.float64) for i in model.graph.initializer}
        self.layers: list[tuple[str, Any, Any]] = []
        for node in model.graph.node:
            attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Conv":
                w, b = (torch.from_numpy(weights[name]) for name in node.input[1:3])
                how = {"stride": tuple(attrs.get("strides", [1, 1])), "padding": tuple(attrs["pads"][:2])}
                like = torch.nn.functional.conv2d(torch.zeros(1, *shape, dtype=torch.float64), w, b, **how)

                def conv(v: Array, shape=shape, w=w, how=how) -> Array:  # type: ignore[no-untyped-def]
                    return (
                        torch.nn.functional.conv2d(torch.from_numpy(v).reshape(1, *shape), w, None, **how)
                        .numpy()
                        .ravel()
                    )

                self.layers.append(("linear", _matrix(conv, int(np.prod(shape))), like.numpy().ravel()))
                shape = tuple(like.shape[1:])
            elif node.op_type == "Gemm":
                w = weights[node.input[1]]
                self.layers.append(("linear", w if attrs.get("transB") else w.T, weights[node.input[2]]))
                shape = (len(weights[node.input[2]]),)
            elif node.op_type == "Relu":
                self.layers.append(("relu", None, None))
            elif node.op_type == "MaxPool":
                k, s = attrs["kernel_shape"][0], attrs["strides"][0]
                positions = np.arange(np.prod(shape)).reshape(shape)
                pooled = (shape[0], (shape[1] - k) // s + 1, (shape[2] - k) // s + 1)
                windows = [
                    positions[c, i * s : i * s + k, j * s : j * s + k].ravel()
                    for c, i, j in itertools.product(*map(range, pooled))
                ]
                self.layers.append(("pool", windows, None))
                shape = pooled
            elif node.op_type != "Flatten":
                raise NotImplementedError(node.op_type)

    def activations(self, x: Array) -> list[Array]:
        """The input of every layer, then the scores."""
        values = [x.ravel().astype(np.float64)]
        for kind, what, bias in self.layers:
            v = values[-1]
            if kind == "linear":
                values.append(what @ v + bias)
            elif kind == "relu":
                values.append(np.maximum(v, 0))
            else:
                values.append(np.array([v[window].max() for window in what]))
        return values

    def attribution(self, x: Array, baseline: Array, target: int, reveal: Callable[[int], bool]) -> Array:
        """RevealCancel at the ReLUs for whose layer `reveal` says so, Rescale at the others."""
        now, before = self.activations(x), self.activations(baseline)
        m = np.eye(len(now[-1]))[target]
        k = len(self.layers) - 1
        while k >= 0:
            kind, what, _ = self.layers[k]
            dx = now[k] - before[k]
            if kind == "linear":
                m = m @ what
            elif kind == "pool":
                m = self._pooled(m, what, now, before, k)
            elif reveal(k):
                m = self._revealed(m, k, now, before)
                k -= 1
            else:
                dy = now[k + 1] - before[k + 1]
                m = m * np.where(dx == 0, now[k] > 0, dy / np.where(dx == 0, 1, dx))
            k -= 1
        return np.asarray(m * (now[0] - before[0])).reshape(x.shape)

    def _pooled(self, m: Array, windows: list[Array], now: list[Array], before: list[Array], k: int) -> Array:
        flow = np.zeros(len(now[k]))
        for i, window in enumerate(windows):
            change = now[k + 1][i] - before[k + 1][i]
            taker = now[k] if change >= 0 else before[k]
            winner = window[taker[window].argmax()]
            moved = now[k][winner] - before[k][winner]
            flow[winner] += m[i] * (change / moved if moved else 1.0)
        return flow

    def _revealed(self, m: Array, k: int, now: list[Array], before: list[Array]) -> Array:
        """Eq. 22 to 25 at the ReLU k and the layer before it, weight by weight."""
        w, dx = self.layers[k - 1][1], now[k - 1] - before[k - 1]
        contributions = w * dx
        up, down = (np.where(sign * contributions > 0, contributions, 0).sum(1) for sign in (1, -1))
        z0 = before[k]

        def f(z: Array) -> Array:
            return np.maximum(z, 0)

        of_up = 0.5 * (f(z0 + up) - f(z0)) + 0.5 * (f(z0 + up + down) - f(z0 + down))
        of_down = 0.5 * (f(z0 + down) - f(z0)) + 0.5 * (f(z0 + up + down) - f(z0 + up))
        m_up, m_down = (
            m * np.where(part == 0, now[k] > 0, effect / np.where(part == 0, 1, part))
            for effect, part in ((of_up, up), (of_down, down))
        )
        half = 0.5 * (m_up + m_down)
        shares = np.where(contributions > 0, m_up[:, None], np.where(contributions < 0, m_down[:, None], half[:, None]))
        return np.asarray((shares * w).sum(0))
