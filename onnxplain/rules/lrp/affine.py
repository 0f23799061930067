"""A linear layer as x, w and b, so that a rule can put other numbers in their places.

No operator is implemented again: the layer is rerun, and its derivative taken, on substituted operands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.rules.vjp.normalisation import per_channel

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum"})


def is_linear(site: Site) -> bool:
    """A layer with weights: one operand depends on the input, the other does not."""
    if site.op == "Einsum" and len(site.x) != 2:
        return False
    return site.op in LINEAR and sum(site.varying[:2]) == 1 and not any(site.varying[2:])


@dataclass(frozen=True)
class Affine:
    """y = w x + b at a site with weights.

    Shapes: those of the operator; `back` returns what has the shape of x.
    """

    g: Builder
    site: Site

    @property
    def signal(self) -> int:
        """Which operand is x."""
        return self.site.varying.index(True)

    @property
    def x(self) -> Value:
        """What depends on the input."""
        return self.site[self.signal]

    @property
    def w(self) -> Value:
        """The weights."""
        return self._layer[1 - self.signal]

    @cached_property
    def b(self) -> Value | None:
        """The bias, None where there is none. Where a sum behind the layer adds to it, it adds to y as it is."""
        own, after = self._layer.optional(2), self.site.role.bias
        if after is None:
            return own
        given = after[after.varying.index(False)]
        shift = -given if after.op == "Sub" else given
        return shift if own is None else self._per_output(own, after.y) + shift

    @cached_property
    def w_positive(self) -> Value:
        """max(w, 0)."""
        return self.g.relu(self.w)

    @cached_property
    def w_negative(self) -> Value:
        """min(w, 0)."""
        return self.g.negative_part(self.w)

    @cached_property
    def x_positive(self) -> Value:
        """max(x, 0): x itself where it is known not to be negative."""
        return self.x if self.site.facts.nonnegative else self.g.relu(self.x)

    @cached_property
    def x_negative(self) -> Value | None:
        """min(x, 0): None where it is known to be zero."""
        return None if self.site.facts.nonnegative else self.g.negative_part(self.x)

    @property
    def y(self) -> Value:
        """w x + b, also where b is added behind the layer."""
        return self.site.y if self.site.role.bias is None else self.site.role.bias.y

    @property
    def rectified(self) -> Value:
        """y; max(y, 0) where nothing arrives at what is not positive.

        The rectified output is the tensor that the network computes anyway, so the layer and its ReLU stay fused.
        """
        return self.g.relu(self.y) if self.site.facts.rectified else self.y

    def forward(self, x: Value, w: Value, b: Value | None = None) -> Value:
        """The layer on other operands."""
        if self.site.role.bias is None or b is None:
            return self._with(x, w, b).rerun(self.g)
        return self._with(x, w, None).rerun(self.g) + b

    def back(self, c: Value, w: Value) -> Value:
        """The derivative by x of a layer with weights w: sum over outputs of w c."""
        flow = self._with(self.x, w, self._layer.optional(2)).vjp(self.g, c)[self.signal]
        assert flow is not None, "a linear layer differentiates by its signal"
        return flow

    def ones(self) -> Value:
        """Ones in the shape of x, of batch 1 where its first axis is the batch."""
        batched = self.signal == 0 and self.x.rank > 1 and not self.site.attr("transA", 0)
        return self.g.full_like(self.g.slice(self.x, [0], [1], [0]) if batched else self.x, 1)

    def flows(self, relevance: Value) -> tuple[Value | None, ...]:
        """The relevance of x in its place among the operands."""
        return tuple(relevance if i == self.signal else None for i in self.site.wrt)

    @property
    def bias(self) -> Value | None:
        """b so that it adds to y."""
        return self.b if self.b is None or self.site.role.bias is not None else self._per_output(self.b, self.y)

    @property
    def without_bias(self) -> Value:
        """y - b."""
        return self.y if self.bias is None else self.y - self.bias

    def _per_output(self, b: Value, y: Value) -> Value:
        """The layer's own bias so that it adds to y."""
        return per_channel(self.g, b, y) if self.site.op in ("Conv", "ConvTranspose") else b

    @cached_property
    def _layer(self) -> Site:
        """The site with a Gemm's alpha and beta in weights and bias, whose signs are then those of contributions."""
        s, node = self.site, self.site.node
        if s.attr("alpha", 1.0) == s.attr("beta", 1.0) == 1.0:
            return s
        plain = gs.Node(node.op, node.name, {k: v for k, v in node.attrs.items() if k not in ("alpha", "beta")})
        w, b = s[1 - self.signal] * s.attr("alpha", 1.0), s.optional(2)
        bias = [] if b is None else [b * s.attr("beta", 1.0)]
        return replace(s, node=plain, x=(self.x, w, *bias) if self.signal == 0 else (w, self.x, *bias))

    def _with(self, x: Value, w: Value, b: Value | None) -> Site:
        operands = [x, w] if self.signal == 0 else [w, x]
        return self._layer.with_operands(*operands, *([b] if len(self.site.x) > 2 else []))
