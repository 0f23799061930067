"""What comes back through a ReLU: the two rules that make saliency maps out of gradients."""

from __future__ import annotations

import numpy as np

from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.rules.composite import FLOOR, Composite, Entry
from onnxplain.rules.vjp.quantisation import folds_relu


def guided(g: Builder, s: Site, dy: Value) -> tuple[Value | None, ...]:
    """Drop what is negative, then differentiate as usual. Source: Springenberg et al. 2015; survey sec. 4.3."""
    return s.vjp(g, g.relu(dy))


def deconvnet(g: Builder, s: Site, dy: Value) -> tuple[Value | None, ...]:
    """Rectify what comes back and ignore what went forward. Source: Zeiler and Fergus 2014; survey sec. 4.1."""
    return (g.relu(dy),)


def rectifies(site: Site) -> bool:
    """ReLU, and a Clip from zero (ReLU6, which exporters write so): what they let through is what is positive.

    A quantiser into which a ReLU was folded is one too.
    """
    if site.op == "Clip":
        low = site.optional(1)
        return low is not None and low.is_constant and not np.any(site.y.g.values(low))
    return site.op == "Relu" or folds_relu(site)


GUIDED = Composite("guided-backprop", (Entry(rectifies, guided, "guided"),), FLOOR)
DECONVNET = Composite("deconvnet", (Entry(rectifies, deconvnet, "rectify"),), FLOOR)
