"""The table of ONNX Runtime's kernels: which operators, of which versions and types, its providers have.

`kernels.tsv` is written by benchmarks/cuda/kernel_table.py: provider, domain, operator, first and last version (empty
where the kernel is open-ended), and the types that each constraint allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

ONNXRUNTIME = "1.31.1"
"""The version that the table was read from."""


@dataclass(frozen=True)
class Kernel:
    """One registration: versions `first` to `last` (None: open-ended) and the types each constraint allows."""

    first: int
    last: int | None
    types: Mapping[str, frozenset[str]]

    def has_version(self, since: int) -> bool:
        """Whether it serves the operator that came with opset `since`.

        An open-ended kernel serves only the version that it was written for: the next one might mean something else.
        """
        return since == self.first or (self.last is not None and self.first <= since <= self.last)

    def takes(self, types: Mapping[str, str]) -> bool:
        """Whether it takes operands of these types, by the name of their constraint or of the operand itself."""
        return all(types[name] in allowed for name, allowed in self.types.items() if name in types)


@cache
def kernels(provider: str) -> Mapping[tuple[str, str], tuple[Kernel, ...]]:
    """The kernels of "cpu" or "cuda", by domain and operator."""
    found: dict[tuple[str, str], list[Kernel]] = {}
    text = files("onnxplain.placement").joinpath("kernels.tsv").read_text(encoding="utf-8")
    for line in text.splitlines():
        whose, domain, op, first, last, constraints = line.split("\t")
        if whose == provider:
            kernel = Kernel(int(first), int(last) if last else None, _types(constraints))
            found.setdefault((domain, op), []).append(kernel)
    return {key: tuple(each) for key, each in found.items()}


def _types(constraints: str) -> dict[str, frozenset[str]]:
    parts = (part.split("=") for part in constraints.split(";") if part)
    return {name: frozenset(types.split(",")) for name, types in parts}
