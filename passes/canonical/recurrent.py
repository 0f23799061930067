"""Recurrent layers unrolled: one step after the other, in operators that have rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.ir.builder import Builder
from onnxplain.ir.emitter import PREFIX
from onnxplain.ir.model import Model
from onnxplain.ir.value import Value
from onnxplain.ir.weights import Array
from onnxplain.passes.base import Pass, Refusal, Report
from onnxplain.passes.canonical.cells import FUNCTIONS, KINDS, Cell, State
from onnxplain.passes.canonical.known import is_zero, numbers_of

_DIRECTIONS = {"forward": ("forward",), "reverse": ("reverse",), "bidirectional": ("forward", "reverse")}
_SPELLED = {name.lower(): name for name in FUNCTIONS}


class UnrollRecurrent(Pass[Model]):
    """LSTM, GRU and RNN become the operators of their steps, by ONNX's own definition of them.

    Precondition:  shapes are known as far as they follow.
    Postcondition: what is left says why, in the log and in `model.left`.
    Exact. Each step multiplies input and state by one matrix, so that rules of relevance see one layer with one bias.
    """

    def run(self, model: Model) -> Report:
        changed, refusals = 0, []
        for node in [n for n in model.graph.nodes if n.op in KINDS and not n.domain]:
            layer = _layer_of(model, node)
            if isinstance(layer, str):
                model.left[node.name] = layer
                refusals.append(Refusal(node.name, layer))
                continue
            _unroll(model, layer)
            changed += 1
        return Report(changed, tuple(refusals))


@dataclass(frozen=True)
class _Layer:
    """A recurrent node in numbers.

    cells: one for each direction.
    steps: how long the sequences are.
    first: the axis of X (N, S, I) or (S, N, I) that is the sequence's.
    """

    node: gs.Node
    cells: tuple[Cell, ...]
    steps: int
    first: int


def _layer_of(model: Model, node: gs.Node) -> _Layer | str:
    """The node in numbers, or why it cannot be unrolled and what to do."""
    first = 1 if node.attrs.get("layout", 0) else 0
    steps = (node.inputs[0].shape or [None, None])[first]
    if not isinstance(steps, int):
        return (
            "how long its sequences are is known only at run time, and its derivative is taken step by step.\n"
            "  Export the model with a sequence length that is fixed."
        )
    lengths = _operand(node, 4)
    if lengths is not None and not _all_equal(numbers_of(model, lengths), steps):
        return (
            "its sequences may differ in length (operand sequence_lens).\n"
            "  Export the model for sequences of one length, without lengths or packing."
        )
    functions = [_SPELLED.get(str(f).lower(), "") for f in node.attrs.get("activations", [])]
    if "" in functions or {"activation_alpha", "activation_beta"} & set(node.attrs):
        return f"its activations are not among {', '.join(FUNCTIONS)}, or have parameters."
    given = {i: t for i in (1, 2, 3, 7) if (t := _operand(node, i)) is not None}
    known = {i: a for i, t in given.items() if (a := numbers_of(model, t)) is not None}
    if len(known) < len(given):
        return "its weights are computed at run time.\n  Export the model with weights that are stored."
    names = _DIRECTIONS.get(node.attrs.get("direction", "forward"), ())
    if (wrong := _misfit(node, known, len(names), len(functions))) is not None:
        return f"{wrong}.\n  The model is broken: export it again."
    cells = tuple(_cell(node, name, d, known, functions) for d, name in enumerate(names))
    return _Layer(node, cells, steps, first)


def _misfit(node: gs.Node, weights: dict[int, Array], ways: int, functions: int) -> str | None:
    """What ONNX does not allow, though its checker does not look; None where all fits."""
    kind = KINDS[node.op]
    given = node.inputs[0].shape or []
    if not ways or len(given) != 3 or 0 in given or not {1, 2} <= set(weights):
        return "it lacks a direction, a sequence or weights"
    rows, size = kind.gates * weights[2].shape[-1], weights[2].shape[-1]
    inputs = given[2] if isinstance(given[2], int) else weights[1].shape[-1]
    wanted = {1: (ways, rows, inputs), 2: (ways, rows, size), 3: (ways, 2 * rows), 7: (ways, 3 * size)}
    for i, array in weights.items():
        if array.shape != wanted[i]:
            return f"its operand {node.inputs[i].name!r} has the sizes {list(array.shape)} and not {list(wanted[i])}"
    if functions not in (0, ways * len(kind.functions)):
        return f"it names {functions} activations and not {ways * len(kind.functions)}"
    if any(len(t.shape or ()) != 3 for i in kind.states if (t := _operand(node, i)) is not None):
        return "its first state has not three axes"
    return None


def _cell(node: gs.Node, name: str, d: int, weights: dict[int, Array], functions: Sequence[str]) -> Cell:
    """Direction number d. weights: by operand, the directions along their first axis."""
    kind = KINDS[node.op]
    w, r = weights[1][d], weights[2][d]
    b = weights[3][d] if 3 in weights else np.zeros(2 * len(w), w.dtype)
    count = len(kind.functions)
    return Cell(
        name=f"{node.name}/{name}",
        backward=name == "reverse",
        w=w,
        r=r,
        wb=b[: len(w)],
        rb=b[len(w) :],
        p=weights[7][d].reshape(3, -1) if 7 in weights else None,
        functions=tuple(functions[d * count : (d + 1) * count]) or kind.functions,
        clip=node.attrs.get("clip"),
        coupled=bool(node.attrs.get("input_forget", 0)),
        reset_after=bool(node.attrs.get("linear_before_reset", 0)),
    )


def _unroll(model: Model, layer: _Layer) -> None:
    """Put the steps in the node's place. What is emitted may share what comes before, and nothing that comes behind."""
    node, nodes = layer.node, model.graph.nodes
    at = model.place_of(node)
    before, behind = nodes[:at], nodes[at + 1 :]
    nodes[:] = before
    g = Builder(model)
    results = _results(g, model, layer)
    names: dict[str, str] = {}
    for made in nodes[at:]:
        for each in (made, *made.outputs):
            if each.name not in names:
                names[each.name] = model.fresh(each.name.removeprefix(f"{PREFIX}/"))
            each.name = names[each.name]
    outputs = list(node.outputs)
    node.inputs.clear()
    node.outputs.clear()
    for i, (output, result) in enumerate(zip(outputs, results, strict=False)):
        if not output.is_empty():
            nodes.append(gs.Node("Identity", model.fresh(f"{node.name}/{i}"), {}, [result.tensor], [output]))
    nodes.extend(behind)


def _results(g: Builder, model: Model, layer: _Layer) -> list[Value]:
    """What the operator returns: the output of every step, then the last states."""
    first = layer.first
    with g.scope(layer.node.name):
        parts = g.ops("Split", g.wrap(layer.node.inputs[0]), outputs=layer.steps, axis=first, num_outputs=layer.steps)
        inputs = [g.squeeze(part, [first]) for part in parts]
    runs = [_run(g, model, layer, d, inputs) for d in range(len(layer.cells))]
    with g.scope(layer.node.name):
        rows = [g.concat([g.unsqueeze(state[0], [first, first + 1]) for state in run.states], first) for run in runs]
        lasts = zip(*(run.last for run in runs), strict=True)
        ends = [g.concat([g.unsqueeze(value, [first]) for value in last], first) for last in lasts]
        return [g.concat(rows, first + 1), *ends]


@dataclass(frozen=True)
class _Run:
    """One direction's states, in the order of the sequence, and the one that was computed last."""

    states: list[tuple[Value, ...]]
    last: tuple[Value, ...]


def _run(g: Builder, model: Model, layer: _Layer, d: int, inputs: Sequence[Value]) -> _Run:
    node, cell = layer.node, layer.cells[d]
    with g.scope(cell.name):
        state: State = tuple(_initial(g, model, _operand(node, i), d, layer.first) for i in KINDS[node.op].states)
        step = KINDS[node.op].step(g, cell)
    order = range(layer.steps - 1, -1, -1) if cell.backward else range(layer.steps)
    found = {}
    for t in order:
        with g.scope(f"{cell.name}/{t}"):
            found[t] = state = step(inputs[t], state)
    return _Run([found[t] for t in range(layer.steps)], found[order[-1]])


def _initial(g: Builder, model: Model, tensor: gs.Tensor | None, d: int, axis: int) -> Value | None:
    """The first state of a direction, None where it is zero."""
    if tensor is None or is_zero(model, tensor):
        return None
    return g.gather(g.wrap(tensor), g.constant(np.int64(d)), axis)


def _all_equal(lengths: Array | None, steps: int) -> bool:
    return lengths is not None and bool(np.all(lengths == steps))


def _operand(node: gs.Node, index: int) -> gs.Tensor | None:
    """Operand `index`, None where it is left out."""
    tensor = node.inputs[index] if index < len(node.inputs) else None
    return None if tensor is None or tensor.is_empty() else tensor
