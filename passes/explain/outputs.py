"""Outputs: what was emitted gets the names that the interface promises."""

from __future__ import annotations

from onnxplain.interface import Names
from onnxplain.ir.builder import Builder
from onnxplain.ir.value import Value


def attach(g: Builder, names: Names, outputs: dict[str, Value]) -> dict[str, str]:
    """Make values outputs of the graph. Returns what each became: {role: name}."""
    given = {}
    for role, value in outputs.items():
        given[role] = names.pick(role)
        output = g.publish(value, given[role])
        g.graph.outputs.append(output.tensor)
    return given
