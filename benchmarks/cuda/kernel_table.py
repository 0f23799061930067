"""Writes onnxplain/placement/kernels.tsv, the table of ONNX Runtime's kernels, on a machine without a card.

    pip install --no-deps --target /tmp/ortgpu onnxruntime-gpu==1.31.1
    python -m benchmarks.cuda.kernel_table /tmp/ortgpu

Needs gcc and binutils: CUDA's libraries are pretended (benchmarks/cuda/stubs.py), since the list of kernels cannot be
asked for before the CUDA provider has registered.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.cuda import stubs
from onnxplain.placement.kernels import ONNXRUNTIME

TABLE = Path(__file__).resolve().parents[2] / "onnxplain/placement/kernels.tsv"

LISTING = """
import json, onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def
print(onnxruntime.__version__)
for k in get_all_opkernel_def():
    print(json.dumps([k.provider, k.domain, k.op_name, *k.version_range, k.type_constraints]))
"""

PROVIDERS = {"CPUExecutionProvider": "cpu", "CUDAExecutionProvider": "cuda"}
DOMAINS = frozenset({"", "com.microsoft"})
OPEN = 2**31 - 1

Row = tuple[tuple[str, str, str, str, str], dict[str, frozenset[str]]]


def rows(listing: Iterable[str]) -> list[Row]:
    """What identifies a kernel, and the types that it takes."""
    found: list[Row] = []
    for line in listing:
        provider, domain, op, first, last, types = json.loads(line)
        if provider in PROVIDERS and domain in DOMAINS:
            key = (PROVIDERS[provider], domain, op, str(first), "" if last == OPEN else str(last))
            found.append((key, {name: frozenset(map(short, allowed)) for name, allowed in types.items()}))
    return found


def short(type_name: str) -> str:
    """A type as the table writes it.

    >>> short("seq(tensor(float))")
    'seq(float)'
    """
    inner = type_name.replace("tensor(", "", 1)
    return inner[:-1] if inner != type_name else type_name


def merged(found: list[Row]) -> list[Row]:
    """Kernels that differ in the types of one constraint only, as one row."""
    kept: list[Row] = []
    for key, types in sorted(found, key=lambda row: (row[0], sorted((n, sorted(t)) for n, t in row[1].items()))):
        for i, (other, allowed) in enumerate(kept):
            differing = [name for name in types if types[name] != allowed.get(name)]
            if other == key and types.keys() == allowed.keys() and len(differing) <= 1:
                kept[i] = (key, {name: types[name] | allowed[name] for name in types})
                break
        else:
            kept.append((key, types))
    return kept


def table(found: list[Row]) -> str:
    """The file's text."""
    return "".join(
        "\t".join([*key, ";".join(f"{name}={','.join(sorted(types[name]))}" for name in sorted(types))]) + "\n"
        for key, types in merged(found)
    )


def main(arguments: Sequence[str]) -> int:
    """Write the table. Returns: the exit status."""
    if len(arguments) != 1:
        print(__doc__)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        environment = stubs.make(Path(arguments[0]).resolve(), Path(folder))
        version, *listing = stubs.python(LISTING, environment).splitlines()
    if version != ONNXRUNTIME:
        print(f"onnxplain/placement/kernels.py says {ONNXRUNTIME}, and this is {version}: write {version} there.")
        return 1
    TABLE.write_text(table(rows(listing)), encoding="utf-8")
    print(f"{TABLE.name}: {len(listing)} kernels of ONNX Runtime {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
