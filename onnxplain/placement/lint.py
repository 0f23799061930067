"""Which nodes ONNX Runtime would run on the CPU although CUDA was asked for, and what would be copied to and fro.

A model of ONNX Runtime's partitioner over the graph as it is written. A node is on CUDA if there is a kernel for its
operator, version and types; arithmetic with shapes is deliberately on the CPU, which costs nothing as long as its
results are read there (`Placement.shapes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, TypeProto, helper

from onnxplain.ir.subgraphs import bodies
from onnxplain.ir.weights import WeightStore
from onnxplain.placement.kernels import Kernel, kernels
from onnxplain.placement.limits import HOST_INPUTS, HOST_OUTPUTS, refusal

SMALL = 100
"""Elements. A stored tensor up to this size does not keep arithmetic with shapes on the card."""

HALF = frozenset({"float16", "bfloat16"})
"""What no arithmetic with shapes is done in."""


@dataclass(frozen=True)
class Fallback:
    """A node that has no place on CUDA, and why."""

    node: str
    op: str
    why: str

    def __str__(self) -> str:
        return f"{self.op} {self.node!r}: {self.why}"


@dataclass(frozen=True)
class Placement:
    """Where the nodes of a graph would be.

    nodes:     how many there are, those of branches and bodies included.
    fallbacks: those that are on the CPU because CUDA has nothing for them.
    shapes:    names of those that are there because they compute shapes.
    copies:    tensors that a Memcpy node would take from one to the other.
    """

    nodes: int
    fallbacks: tuple[Fallback, ...]
    shapes: tuple[str, ...]
    copies: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether everything but shapes runs on CUDA, and nothing is copied."""
        return not self.fallbacks and not self.copies


def place(model: onnx.ModelProto) -> Placement:
    """Tell the placement of a graph that is loaded for CUDA. The model is left as it is."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    WeightStore().detach(bare)
    opsets = {entry.domain: entry.version for entry in bare.opset_import}
    found = _Placing(opsets)
    found.visit(onnx.shape_inference.infer_shapes(bare).graph, _Known())
    return Placement(found.nodes, tuple(found.fallbacks), tuple(found.shapes), tuple(dict.fromkeys(found.copies)))


@dataclass
class _Known:
    """What is known of the tensors of a graph, those of the graphs around it included.

    types, stored: by name; of stored tensors how many elements they have.
    given:         inputs of the graph, which the runtime puts where they are read.
    host, sizes:   what lies on the CPU, and what of it follows from shapes.
    """

    types: dict[str, str] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    given: set[str] = field(default_factory=set)
    host: set[str] = field(default_factory=set)
    sizes: set[str] = field(default_factory=set)

    def inside(self) -> _Known:
        return _Known(dict(self.types), dict(self.stored), set(self.given), set(self.host), set(self.sizes))

    def add(self, graph: GraphProto) -> None:
        for value in (*graph.input, *graph.value_info, *graph.output):
            name = _type_name(value.type)
            if name:
                self.types[value.name] = name
        for tensor in graph.initializer:
            self.store(tensor.name, tensor)
        self.given |= {value.name for value in graph.input} - self.stored.keys()

    def store(self, name: str, tensor: TensorProto) -> None:
        self.types[name] = _element(tensor.data_type)
        self.stored[name] = prod(tensor.dims)


@dataclass
class _Placing:
    opsets: Mapping[str, int]
    nodes: int = 0
    fallbacks: list[Fallback] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)

    def visit(self, graph: GraphProto, known: _Known) -> None:
        """Place the nodes of a graph, then see what has to be copied between them."""
        known.add(graph)
        wants: dict[str, set[bool]] = {}
        for node in graph.node:
            if node.op_type == "Constant" and not node.domain:
                self._constant(node, known)
                continue
            self.nodes += 1
            on_host = self._place(node, known)
            for index, name in enumerate(node.input):
                if name and name not in known.stored:
                    wants.setdefault(name, set()).add(on_host or index in HOST_INPUTS.get(node.op_type, ()))
            for body in bodies(node):
                self.visit(body, known.inside())
        for name, places in wants.items():
            made_on_host = name in known.host
            mixed = len(places) == 2 if name in known.given else places != {made_on_host}
            if mixed:
                self.copies.append(name)

    def _constant(self, node: NodeProto, known: _Known) -> None:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                known.store(node.output[0], attribute.t)
                return
        known.stored[node.output[0]] = 1

    def _place(self, node: NodeProto, known: _Known) -> bool:
        """Whether a node is on the CPU. Its outputs are noted to be there."""
        if self._computes_shapes(node, known):
            self.shapes.append(node.name)
            known.sizes.update(node.output)
        elif why := missing(node, self.opsets, known.types):
            self.fallbacks.append(Fallback(node.name, node.op_type, why))
        else:
            if node.op_type in HOST_OUTPUTS:
                known.sizes.update(node.output)
                known.host.update(node.output)
            return False
        known.host.update(node.output)
        return True

    @staticmethod
    def _computes_shapes(node: NodeProto, known: _Known) -> bool:
        """Whether all that a node reads as data lies on the CPU already or is small and stored."""
        given = [(i, name) for i, name in enumerate(node.input) if name]
        if not any(name in known.sizes for _, name in given):
            return False
        for index, name in given:
            if known.types.get(name) in HALF:
                return False
            if name in known.sizes:
                if index in HOST_INPUTS.get(node.op_type, ()):
                    return False
            elif known.stored.get(name, SMALL + 1) > SMALL and name not in known.given:
                return False
        return bool(kernels("cpu").get((node.domain, node.op_type)))


def missing(node: NodeProto, opsets: Mapping[str, int], types: Mapping[str, str]) -> str:
    """Why CUDA cannot run a node, or nothing."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    have = kernels("cuda").get((domain, node.op_type), ())
    schema = _schema(node.op_type, domain, opsets)
    if not have:
        if schema is not None and _is_spelled_out(schema) and (domain, node.op_type) not in kernels("cpu"):
            return ""  # ONNX Runtime puts the operator's definition in its place
        return f"CUDA has no kernel for {node.op_type}"
    if schema is None:
        return ""
    right = [kernel for kernel in have if kernel.has_version(schema.since_version)]
    if not right:
        return f"CUDA has no kernel for {node.op_type} of opset {schema.since_version}, only for {_versions(have)}"
    bound = _bound(node, schema, types)
    if not any(kernel.takes(bound) for kernel in right):
        return f"CUDA's kernels for {node.op_type} do not take {_listed(bound, right)}"
    return refusal(node)


def _schema(op: str, domain: str, opsets: Mapping[str, int]) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, opsets.get(domain, opsets.get("ai.onnx", 1)), domain)
    except onnx.defs.SchemaError:
        return None


def _is_spelled_out(schema: onnx.defs.OpSchema) -> bool:
    """Whether ONNX defines the operator by others."""
    return any(getattr(schema, name) for name in ("has_function", "has_context_dependent_function"))


def _bound(node: NodeProto, schema: onnx.defs.OpSchema, types: Mapping[str, str]) -> dict[str, str]:
    """The type of each operand and result, by its own name and by that of its type's constraint."""
    bound: dict[str, str] = {}
    for names, formal in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for index, name in enumerate(names):
            if name in types and formal:
                parameter = formal[min(index, len(formal) - 1)]
                bound.setdefault(parameter.type_str, types[name])
                bound.setdefault(parameter.name, types[name])
    return bound


def _listed(bound: Mapping[str, str], kernels_: Sequence[Kernel]) -> str:
    refused = {n: t for n, t in bound.items() if any(n in k.types for k in kernels_)}
    return ", ".join(f"{name}={type_}" for name, type_ in sorted(refused.items()))


def _versions(have: Sequence[Kernel]) -> str:
    spans = sorted({(k.first, k.last) for k in have}, key=lambda span: span[0])
    return ", ".join(str(a) if b in (a, None) else f"{a} to {b}" for a, b in spans)


def _type_name(type_: TypeProto) -> str:
    if type_.HasField("sequence_type"):
        inner = _type_name(type_.sequence_type.elem_type)
        return f"seq({inner})" if inner else ""
    return _element(type_.tensor_type.elem_type) if type_.tensor_type.elem_type else ""


def _element(data_type: int) -> str:
    """An element type as ONNX Runtime names it."""
    return str(helper.tensor_dtype_to_string(data_type)).removeprefix("TensorProto.").lower()
