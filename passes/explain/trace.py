"""The forward nodes between a source and the score, as sites in the order of computation."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.errors import UnsupportedModel
from onnxplain.ir.builder import Builder
from onnxplain.ir.site import Site
from onnxplain.ir.value import Value
from onnxplain.passes.explain.roles import roles
from onnxplain.rules.sites import site_of
from onnxplain.rules.table import NONDIFFERENTIABLE


@dataclass(frozen=True)
class Trace:
    """What a walk goes back over.

    source:  the tensor that is explained: the input, or a tap.
    score:   the tensor the walk starts from, before any softmax.
    sites:   the nodes through which `score` depends on `source`, in topological order.
    nodes:   every node between them, those included through which no derivative flows (shapes, indices).
    varying: names of the tensors that depend on `source` by a derivative, not only through shapes or indices.
    """

    source: Value
    score: Value
    sites: tuple[Site, ...]
    varying: frozenset[str]
    nodes: tuple[gs.Node, ...]

    def since(self, tap: Value) -> Trace:
        """The part of the trace after a tensor. Raises: UnsupportedModel if the score does not depend on it."""
        return trace(tap.g, [site.node for site in self.sites], tap, self.score)

    def stepping(self, steps: Container[str]) -> Trace:
        """The trace with what goes through these operators, which have no derivative."""
        if not any(node.op in steps for node in self.nodes):
            return self
        return trace(self.source.g, self.nodes, self.source, self.score, steps)


def trace(g: Builder, nodes: Sequence[gs.Node], source: Value, score: Value, steps: Container[str] = ()) -> Trace:
    """Find the nodes through which `score` depends on `source`.

    steps: operators without a derivative through which it is said to depend all the same.
    Raises: UnsupportedModel if it does not depend on it.
    """
    varying = _varying(nodes, source.name, steps)
    if score.name not in varying:
        raise UnsupportedModel(
            f"the score {score.name!r} does not depend on {source.name!r} by anything that has a derivative.\n"
            "  There is nothing to explain with respect to it: choose another input, layer or output."
        )
    needed = {score.name}
    path: list[Site] = []
    for node in reversed(nodes):
        if any(t.name in needed and t.name in varying for t in node.outputs) and source.name not in (
            t.name for t in node.outputs
        ):
            needed.update(t.name for t in node.inputs)
            path.append(site_of(g, node, varying))
    path.reverse()
    found = roles(path)
    sites = tuple(replace(site, role=found[site.name]) for site in path)
    return Trace(source, score, sites, frozenset(varying), _between(nodes, source.name, score.name))


def _between(nodes: Sequence[gs.Node], source: str, score: str) -> tuple[gs.Node, ...]:
    """Nodes that depend on the source in any way and on which the score depends in any way."""
    after, before = {source}, {score}
    for node in nodes:
        if any(t.name in after for t in node.inputs):
            after.update(t.name for t in node.outputs)
    kept = []
    for node in reversed(nodes):
        if any(t.name in before for t in node.outputs) and any(t.name in after for t in node.inputs):
            before.update(t.name for t in node.inputs)
            kept.append(node)
    return tuple(reversed(kept))


def _varying(nodes: Sequence[gs.Node], source: str, steps: Container[str]) -> set[str]:
    varying = {source}
    for node in nodes:
        if (node.op in NONDIFFERENTIABLE and node.op not in steps) or varying.isdisjoint(_read(node)):
            continue
        # A quantiser's own scale counts as given: its derivative and that of the integers by it cancel.
        outputs = node.outputs[:1] if node.op == "DynamicQuantizeLinear" else node.outputs
        varying.update(t.name for t in outputs if not t.is_empty() and (_is_real(t) or _is_step(node, t, varying)))
    return varying


def _read(node: gs.Node) -> set[str]:
    """The tensors that a node takes, those that its branches take from outside among them."""
    inside = (name for graph in node.subgraphs(recursive=True) for name in graph.tensors())
    return {*(t.name for t in node.inputs), *inside}


def _is_step(node: gs.Node, tensor: gs.Tensor, varying: set[str]) -> bool:
    """Whether a tensor holds a quantiser's integers, be they moved."""
    if node.op in _STEPPING:
        return True
    return any(t.name in varying and not _is_real(t) and t.dtype == tensor.dtype for t in node.inputs)


_STEPPING = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"})


def _is_real(tensor: gs.Tensor) -> bool:
    if tensor.dtype is None or isinstance(tensor.dtype, int):
        return True
    return bool(np.issubdtype(np.dtype(tensor.dtype), np.floating))
