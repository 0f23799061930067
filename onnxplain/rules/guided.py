"""What comes back through a ReLU: the two rules that make saliency maps out of gradients."""

from __future__ import annotations

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.rules.composite import Composite, Entry, op


def guided(g: Builder, s: Site, dy: Value) -> tuple[Value | None, ...]:
    """Drop what is negative, then differentiate as usual. Source: Springenberg et al. 2015; survey sec. 4.3."""
    return s.vjp(g, g.relu(dy))


def deconvnet(g: Builder, s: Site, dy: Value) -> tuple[Value | None, ...]:
    """Rectify what comes back and ignore what went forward. Source: Zeiler and Fergus 2014; survey sec. 4.1."""
    return (g.relu(dy),)


RECTIFIERS = ("Relu",)

GUIDED = Composite("guided-backprop", (Entry(op(*RECTIFIERS), guided, "guided"),))
DECONVNET = Composite("deconvnet", (Entry(op(*RECTIFIERS), deconvnet, "rectify"),))
