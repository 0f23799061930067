"""The sign that a layer's output gets behind it, taken into the layer's weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import onnx_graphsurgeon as gs

from onnxplain.errors import UsageError
from onnxplain.ir.model import Model
from onnxplain.passes.base import Pass, Refusal, Report

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")
_PASSING = ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
_AFFINE = ("Add", "Sub", "Mul", "Div")


@dataclass(frozen=True)
class NegateLayers(Pass[Model]):
    """Neg(layer), a - layer and a negative constant times a layer become -a layer of negated weights and bias.

    So rules that tell contributions by their sign see them as they enter the score. Between the layer and its sign may
    stand what shapes, shifts or scales, batch norm included. What is read elsewhere too stays, and a layer of negated
    weights stands beside it.

    apart:  names of nodes and tensors, and patterns, that are asked for: what they hold must still be there.
    needed: a method that must have all signs in the layers.

    Precondition: what is added in a Gemm is constant. Exact, since rounding is the same for both signs.
    """

    apart: frozenset[str] = frozenset()
    needed: str = ""

    def run(self, model: Model) -> Report:
        turning = _Turning(model)
        changed, refusals = 0, []
        for node in list(model.graph.nodes):
            at = _negated_operand(model, node)
            chain = None if at is None else turning.chain(node.inputs[at])
            if at is None or chain is None:
                continue
            if found := self._asked_for(node, turning, chain):
                refusals.append(Refusal(node.name, f"{found!r} is asked for"))
                continue
            turning.turn(node, at, chain)
            changed += 1
        turning.finish()
        return Report(changed, tuple(refusals))

    def _asked_for(self, node: gs.Node, turning: _Turning, chain: list[gs.Node]) -> str | None:
        """A name that is asked for, and would hold something else."""
        changing = [*chain[turning.shared(chain) :], *([node] if node.op == "Neg" else [])]
        names = {name for each in changing for name in (each.name, *(t.name for t in each.outputs))}
        found = sorted(name for name in names if any(fnmatchcase(name, pattern) for pattern in self.apart))
        if found and self.needed:
            raise UsageError(
                f"layer {found[0]!r} has a sign behind it that {self.needed} takes into its weights, and then it holds "
                "something else.\n  Compile the two methods one by one."
            )
        return found[0] if found else None


@dataclass
class _Turning:
    """Layers being negated.

    copies: what stands beside a node, by the node's identity.
    known:  the identities of all nodes that are not in branches.
    """

    model: Model
    copies: dict[int, gs.Node] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.known.update(id(node) for node in self.model.graph.nodes)

    def chain(self, tensor: gs.Tensor) -> list[gs.Node] | None:
        """The layer that a tensor comes from and what lies between, None where there is no such layer."""
        found: list[gs.Node] = []
        while tensor.inputs:
            node = tensor.inputs[0]
            if node.domain or len(node.outputs) != 1:
                return None
            found.insert(0, node)
            if node.op in _LAYERS:
                return found if _has_weights(node) and _is_real(tensor) else None
            if not _passes(node):
                return None
            tensor = _signal(node)
        return None

    def shared(self, chain: list[gs.Node]) -> int:
        """How many nodes of a chain, from the layer on, something else reads: they stay, and copies are negated.

        Copies count, since whoever needs them later reads them too.
        """
        kept = {t.name for t in self.model.graph.outputs}
        copies = {id(copy) for copy in self.copies.values()}
        outputs = [n.outputs[0] for n in chain]
        read = [len(t.outputs) > 1 or t.name in kept or id(n) in copies for n, t in zip(chain, outputs, strict=True)]
        return max((i + 1 for i, is_read in enumerate(read) if is_read), default=0)

    def turn(self, node: gs.Node, at: int, chain: list[gs.Node]) -> None:
        """Let a node read minus the end of the chain as operand `at`, and be what it then is."""
        shared, x = self.shared(chain), None
        for i, link in enumerate(chain):
            turned = link
            if i < shared:
                if id(link) in self.copies:
                    x = self.copies[id(link)].outputs[0]
                    continue
                turned = self.copies[id(link)] = _copy(self.model, link)
                self.known.add(id(turned))
            if x is not None:
                place = next(i for i, t in enumerate(turned.inputs) if t is _signal(turned))
                turned.inputs[place] = x
            self._negate(turned)
            x = turned.outputs[0]
        node.inputs[at] = x
        if node.op in ("Mul", "Div"):
            self._negate_constants(node, (1 - at,))
        else:
            node.op = {"Neg": "Identity", "Sub": "Add"}[node.op]
        if node.op == "Identity":
            self._bypass(node)

    def finish(self) -> None:
        """Put the copies behind what they are of, and drop what is bypassed."""
        nodes: list[gs.Node] = []
        for node in self.model.graph.nodes:
            each: gs.Node | None = node
            while each is not None:
                nodes.append(each)
                each = self.copies.get(id(each))
        self.model.graph.nodes[:] = [node for node in nodes if node.outputs]

    def _negate(self, link: gs.Node) -> None:
        """Change the constants of a node so that it makes minus what it made."""
        if link.op in _LAYERS:
            weights = next(i for i in (0, 1) if isinstance(link.inputs[i], gs.Constant))
            self._negate_constants(link, (weights, *range(2, len(link.inputs))))
        elif link.op == "BatchNormalization":
            self._negate_constants(link, (2, 3))
        elif link.op in ("Add", "Sub"):
            self._negate_constants(link, (0, 1))

    def _negate_constants(self, node: gs.Node, places: tuple[int, ...]) -> None:
        for place in places:
            given = node.inputs[place]
            if isinstance(given, gs.Constant):
                name = self.model.fresh(f"{node.name}/negated {place}")
                node.inputs[place] = gs.Constant(name, np.asarray(-self.model.weights.array(given)))

    def _bypass(self, node: gs.Node) -> None:
        """Let whoever reads a node's output read its operand, but for the model's own outputs and branches."""
        x, y = node.inputs[0], node.outputs[0]
        if y.name in {t.name for t in self.model.graph.outputs} or any(id(n) not in self.known for n in y.outputs):
            return
        for reader in list(y.outputs):
            reader.inputs = [x if t is y else t for t in reader.inputs]
        node.inputs.clear()
        node.outputs.clear()


def _negated_operand(model: Model, node: gs.Node) -> int | None:
    """Which operand enters a node's output with a minus, None if there is none."""
    if node.domain:
        return None
    match node.op:
        case "Neg":
            return 0
        case "Sub":
            return 1
        case "Mul" | "Div":
            places = [i for i, t in enumerate(node.inputs) if isinstance(t, gs.Constant)]
            if len(places) == 1 and (node.op == "Mul" or places == [1]) and _is_real(node.inputs[places[0]]):
                return 1 - places[0] if np.all(model.weights.array(node.inputs[places[0]]) < 0) else None
    return None


def _passes(node: gs.Node) -> bool:
    """Whether a node makes minus its output of minus its operand, its constants negated where they are added."""
    if node.op in _PASSING:
        return _is_real(node.outputs[0])
    if node.op == "BatchNormalization":
        return not node.attrs.get("training_mode", 0) and all(isinstance(t, gs.Constant) for t in node.inputs[1:5])
    constants = [i for i, t in enumerate(node.inputs) if isinstance(t, gs.Constant)]
    return node.op in _AFFINE and len(constants) == 1 and (node.op in ("Add", "Mul") or constants == [1])


def _signal(node: gs.Node) -> gs.Tensor:
    """The operand that a chain goes through."""
    return next(t for t in node.inputs if not isinstance(t, gs.Constant))


def _has_weights(layer: gs.Node) -> bool:
    """Whether one factor is constant, and so is what is added."""
    fixed = [isinstance(t, gs.Constant) for t in layer.inputs[:2]]
    return sum(fixed) == 1 and all(isinstance(t, gs.Constant) or t.is_empty() for t in layer.inputs[2:])


def _is_real(tensor: gs.Tensor) -> bool:
    return isinstance(tensor.dtype, int) or (tensor.dtype is not None and np.issubdtype(tensor.dtype, np.floating))


def _copy(model: Model, node: gs.Node) -> gs.Node:
    y = node.outputs[0]
    twin = gs.Variable(model.fresh(f"{y.name}/negated"), y.dtype, y.shape)
    return gs.Node(node.op, model.fresh(f"{node.name}/negated"), dict(node.attrs), list(node.inputs), [twin])
