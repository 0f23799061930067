"""RevealCancel: what raises and what lowers the input of a non-linearity have multipliers of their own.

For y = f(z) behind a layer z = sum w_i x_i + b, Dz splits into Dz+, the sum of the contributions w_i Dx_i that are
positive, and Dz-, the sum of the negative ones (eq. 22). Their effects on y are averaged over the two orders in which
they can be added (eq. 23, 24), which gives the multipliers m+ and m- of Dz+ and Dz- (eq. 25). A positive contribution
takes m+, a negative one m-, and at Dx_i = 0 it is half of each.

Written with magnitudes, everything about the layer becomes one sum more and one derivative more:

    Dz+ = (T + Dz)/2,   Dz- = (Dz - T)/2,   T = sum |w_i| |Dx_i|
    m_i = 1/2 sum w_i (m+ + m-)  +  sign(Dx_i) 1/2 sum |w_i| (m+ - m-)

The first half of m_i is what the layer's own derivative makes of (m+ + m-)/2; the second goes to x past the layer. What
lies between the layer and f, batch norm of either sign too, obeys the same: T and the second half see |scale|.

Source: Shrikumar et al. 2017, sec. 3.5.3; survey eq. 22-25.
"""

from __future__ import annotations

from dataclasses import replace

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Flows, Rule, Site
from onnxplain.ir.value import Value
from onnxplain.rules.deeplift.differences import at_baseline, change, only
from onnxplain.rules.deeplift.slopes import secant_of
from onnxplain.rules.lrp.affine import LINEAR
from onnxplain.rules.table import BROADCASTING, fixed_axes


def follows_layer(s: Site) -> bool:
    """Whether the function is applied to a layer with weights, by its first operand."""
    return bool(s.role.layer) and s.varying[:1] == (True,)


def follows_dense_layer(s: Site) -> bool:
    """The same for layers that are not convolutions."""
    return follows_layer(s) and s.role.layer[0].op in ("Gemm", "MatMul", "Einsum")


def reveal_cancel(threshold: float) -> Rule:
    """The rule of a function and the layer before it, at the function.

    An effect over the sum that has it is a mean slope of f: m+ is the mean of those from z0 to z0 + Dz+ and from
    z0 + Dz- to z, and m- likewise.
    threshold: as for Rescale.
    """

    def rule(g: Builder, s: Site, m: Value) -> Flows:
        layer, ref = s.role.layer[0], at_baseline(s)
        if s.aside is None:
            raise ValueError("RevealCancel needs the walk to send what goes past the layer")
        signal, secant = layer.varying.index(True), secant_of(s.op, threshold)
        dx, dz = layer[signal] - ref.role.layer[0][signal], change(s, 0)
        size = _forward(g, s, abs(dx))
        raised, lowered = (_at(g, s, ref[0] + 0.5 * part) for part in (size + dz, dz - size))
        m_up = 0.5 * (secant(g, raised, ref, m) + secant(g, s, lowered, m))
        m_down = 0.5 * (secant(g, lowered, ref, m) + secant(g, s, raised, m))
        s.aside(layer[signal], g.sign(dx) * _backward(g, s, 0.5 * (m_up - m_down)))
        return only(s, 0, 0.5 * (m_up + m_down))

    return rule


def _at(g: Builder, s: Site, z: Value) -> Site:
    """The function at another input."""
    moved = s.with_operands(z, *s.x[1:])
    return replace(moved, ys=(moved.rerun(g),))


def _forward(g: Builder, s: Site, v: Value) -> Value:
    """T: the layer, and what lies between it and the function, with magnitudes for weights and without bias."""
    for each in s.role.layer:
        if each.op not in _SHIFTS:
            v = _with_magnitudes(g, each, v).rerun(g)
    return v


def _backward(g: Builder, s: Site, m: Value) -> Value:
    """The derivative of the same."""
    m = g.named(m, s.y.shape)
    for each in reversed(s.role.layer):
        if each.op in _SHIFTS:
            continue
        signal = each.varying.index(True)
        flow = _with_magnitudes(g, each, each[signal]).vjp(g, m)[each.wrt.index(signal)]
        if flow is None:
            raise each.refused("by the operand that depends on the input")
        if each.op in BROADCASTING:
            flow = g.unbroadcast(flow, each[signal], fixed=fixed_axes(each.op, signal))
        m = g.named(flow, each[signal].shape)
    return m


_SHIFTS = ("Add", "Sub", "Neg", "Identity", "Dropout")


def _with_magnitudes(g: Builder, s: Site, v: Value) -> Site:
    """The operator on v with |w| for w; every operand that is added is left out, or is zero where it must be there."""
    signal = s.varying.index(True)
    operands = [v if i == signal else x for i, x in enumerate(s.x)]
    if s.op == "BatchNormalization":
        scale, shift = abs(s[1]), g.full_like(s[1], 0)
        return s.with_operands(v, scale, shift, shift, s[4])
    if s.op in (*LINEAR, "Mul", "Div"):
        operands[1 - signal] = abs(s[1 - signal]) * (-1 if s.attr("alpha", 1.0) < 0 else 1)
        operands = [*operands[:2], *(None for _ in operands[2:])]
    return s.with_operands(*operands)
