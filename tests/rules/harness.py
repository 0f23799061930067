"""One line per case: an ONNX node, its operands, and the same function in torch.

Each case's derivative graph is made by the project's own walk, with a random cotangent as an extra input, and is held
against torch.autograd in float64 twice: run by ONNX Runtime in float32, which is what users run, and run in float64 by
the oracle, where hardly any rounding can hide a wrong formula.
"""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from onnxplain.ir.builder import Builder
from onnxplain.ir.load import load
from onnxplain.ir.save import to_proto
from onnxplain.passes.base import run_passes
from onnxplain.passes.canonical import canonicalise
from onnxplain.passes.explain.backward import walk
from onnxplain.passes.explain.trace import trace
from onnxplain.passes.optimise import LOWERING
from onnxplain.passes.optimise.dead_code import DropDeadCode
from onnxplain.rules.composite import DERIVATIVE
from onnxplain.rules.table import VJP
from tests.oracle import Oracle

Array = NDArray[Any]
Torch = Callable[..., torch.Tensor]

STATIC, BATCH, DYNAMIC = "static", "batch", "dynamic"
"""What is known of the inputs' sizes when compiling: all, all but the first, none."""

ALWAYS, SIZED = (STATIC, BATCH, DYNAMIC), (STATIC, BATCH)


@dataclass(frozen=True)
class Operand:
    """Numbers given to a node: an input of the graph, or a constant of it."""

    array: Array
    constant: bool = False
    single: bool = False
    """Whether it stays in float32 when the model is in float64."""

    @property
    def real(self) -> bool:
        return self.array.dtype.kind == "f"

    def typed(self, dtype: type) -> Array:
        return self.array.astype(dtype) if self.real and not self.single else self.array


Given = Operand | tuple[int, ...] | Sequence[int] | Sequence[bool]
"""An operand as a case writes it: a tuple is a shape to fill with normal draws, a list a constant of whole numbers."""


@dataclass(frozen=True)
class Case:
    """A node, or a few separated by semicolons, of which one gives `y`, and what that is.

    function: in torch, of the operands that it names; None where torch has no such function, and differences serve.
    single:   relative error allowed in float32, None where ONNX Runtime cannot run the operator.
    double:   relative error allowed in float64 (attributes that are not sums of powers of two are rounded to float32),
              None where ONNX does not have the operator in float64.
    """

    op: str
    text: str
    function: Torch | None
    operands: Mapping[str, Operand]
    single: float | None = 1e-5
    double: float | None = 1e-9
    opset: int = 20
    shapes: tuple[str, ...] = ALWAYS
    nodes: tuple[onnx.NodeProto, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        shapes = ", ".join(f"{k}{list(v.array.shape)}".replace(" ", "") for k, v in self.operands.items() if v.real)
        return f"{self.text} {shapes}".replace("::", ":")

    @property
    def inputs(self) -> list[str]:
        """The operands that the graph takes when it runs; weights and other constants are stored in it."""
        return [name for name, operand in self.operands.items() if not operand.constant and name not in self.others]

    @property
    def sources(self) -> list[str]:
        """The operands to differentiate by: those inputs for which a node's rule returns a value."""
        return [name for name, operand in self.operands.items() if not operand.constant and self._varies(name)]

    @property
    def others(self) -> list[str]:
        """Real operands that no rule returns a value for."""
        return [name for name, operand in self.operands.items() if operand.real and not self._varies(name)]

    def _varies(self, name: str) -> bool:
        """Whether an operand is real and its operator is differentiated by it."""
        entries = ((node, VJP.get(node.op_type)) for node in self.nodes)
        found = {node.input[i] for node, entry in entries if entry for i in entry.operands(len(node.input))}
        return self.operands[name].real and name in found


def case(op: str, text: str, function: Torch | None, **given: Any) -> Case:
    """A line of a table of cases: operands by name, and `single`, `double`, `opset` or `shapes` where they matter."""
    settings = {name: given.pop(name) for name in ("single", "double", "opset", "shapes") if name in given}
    rng = np.random.default_rng(zlib.crc32(f"{text}{list(given)}".encode()))
    operands = {name: _operand(value, rng) for name, value in given.items()}
    nodes = tuple(parser.parse_node(line) for line in text.split(";"))
    assert op in {node.op_type for node in nodes}, text
    return Case(op, text, function, operands, nodes=nodes, **settings)


def _operand(value: Given | Callable[[np.random.Generator], Operand], rng: np.random.Generator) -> Operand:
    if isinstance(value, Operand):
        return value
    if callable(value):
        return value(rng)
    if isinstance(value, tuple):
        return Operand(rng.standard_normal(value).astype(np.float32))
    array = np.asarray(value)
    return Operand(array if array.dtype.kind == "b" else array.astype(np.int64), constant=True)


Draw = Callable[[np.random.Generator], Operand]


def between(low: float, high: float, *shape: int) -> Draw:
    """Uniform draws."""
    return lambda rng: Operand(rng.uniform(low, high, shape).astype(np.float32))


def positive(*shape: int) -> Draw:
    return between(0.5, 2, *shape)


def ties(*shape: int) -> Draw:
    """Draws from so few values that many are equal."""
    return lambda rng: Operand(rng.integers(-1, 2, shape).astype(np.float32))


def real(values: Any) -> Operand:
    """These numbers, as an input."""
    return Operand(np.asarray(values, np.float32))


def bits(*shape: int) -> Draw:
    """Random truth values, as an input."""
    return lambda rng: Operand(rng.integers(0, 2, shape).astype(bool))


def runtime(values: Any, dtype: type = np.int64) -> Operand:
    """Whole numbers that are known only when the graph runs."""
    return Operand(np.asarray(values, dtype))


def constant(value: Any, dtype: type = np.float32) -> Draw:
    """A constant of the graph: these numbers, or normal draws of a shape."""
    if isinstance(value, tuple):
        return lambda rng: Operand(rng.standard_normal(value).astype(dtype), constant=True)
    return lambda rng: Operand(np.asarray(value, dtype), constant=True)


def factors(values: Sequence[float]) -> Operand:
    """Constant factors, which the operator takes in float32 only."""
    return Operand(np.asarray(values, np.float32), constant=True, single=True)


# The model and its derivative


def model_of(case: Case, shape: str, dtype: type, inputs: Iterable[str]) -> onnx.ModelProto:
    """The case's nodes as a model: `inputs` are its inputs, every other operand is stored in it."""
    stored = {name: o.typed(dtype) for name, o in case.operands.items()}
    asked = list(inputs)
    listed = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(stored[name].dtype),
            _sizes(name, case.operands[name], shape),
        )
        for name in asked
    ]
    weights = [numpy_helper.from_array(a, name) for name, a in stored.items() if name not in asked]
    graph = helper.make_graph(list(case.nodes), "case", listed, [onnx.ValueInfoProto(name="y")], initializer=weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=10)


def _sizes(name: str, operand: Operand, shape: str) -> list[int | str]:
    unknown = {STATIC: 0, BATCH: 1, DYNAMIC: operand.array.ndim}[shape] if operand.real else 0
    return [f"{name}{axis}" if axis < unknown else size for axis, size in enumerate(operand.array.shape)]


def differentiated(
    case: Case, shape: str, dtype: type, sources: Sequence[str], runtime: str | None = None
) -> onnx.ModelProto:
    """The model with the derivative by each source as an output `d_<source>`, for a cotangent that is an input `dy`.

    runtime: what the graph is lowered for; as the rules emit it by default.
    """
    model, _ = canonicalise(load(model_of(case, shape, dtype, [*dict.fromkeys([*case.inputs, *sources])])))
    g = Builder(model)
    y = g.wrap(model.graph.outputs[0])
    forward = list(model.graph.nodes)
    inputs = {t.name: g.wrap(t) for t in model.graph.inputs}
    seed = g.input("dy", y.dtype, y.shape)
    for name in sources:
        flow = walk(g, trace(g, forward, inputs[name], y), DERIVATIVE, seed)
        g.graph.outputs.append(g.publish(flow, f"d_{name}").tensor)
    run_passes(model, [DropDeadCode()] if runtime is None else LOWERING[runtime])
    return to_proto(model)


def fed(case: Case, model: onnx.ModelProto, dtype: type, dy: Array) -> dict[str, Array]:
    values = {name: operand.typed(dtype) for name, operand in case.operands.items()} | {"dy": dy}
    return {i.name: values[i.name] for i in model.graph.input}


def run_single(case: Case, model: onnx.ModelProto, dy: Array) -> dict[str, Array]:
    """In float32, by ONNX Runtime as users have it."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    cotangent = {i.name: i.type for i in session.get_inputs()}.get("dy", "tensor(float)")
    dy = dy.astype(np.float64 if cotangent == "tensor(double)" else np.float32)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, fed(case, model, np.float32, dy)), strict=True))


def run_double(case: Case, model: onnx.ModelProto, dy: Array, names: Sequence[str]) -> dict[str, Array]:
    """In float64, by the oracle."""
    inputs = {name: torch.tensor(value) for name, value in fed(case, model, np.float64, dy).items()}
    with torch.no_grad():
        return {name: value.numpy() for name, value in Oracle(model).run(inputs, outputs=list(names)).items()}


# What is expected


def expected(case: Case) -> tuple[Array, Array, dict[str, Array]]:
    """The output, a cotangent of its shape, and the derivative by each source, in float64."""
    rng = np.random.default_rng(1)
    if case.function is None:
        return _by_differences(case, rng)
    tensors = {name: torch.tensor(operand.typed(np.float64)) for name, operand in case.operands.items()}
    sources = [tensors[name].requires_grad_() for name in case.sources]
    y = case.function(*[tensors[name] for name in _named(case)])
    dy = rng.standard_normal(tuple(y.shape)).astype(np.float32).astype(np.float64)
    found = torch.autograd.grad(y, sources, torch.tensor(dy))
    return y.detach().numpy(), dy, {n: d.numpy() for n, d in zip(case.sources, found, strict=True)}


def _named(case: Case) -> list[str]:
    """The operands that a case's function takes: those that it names, or else all, in order."""
    wanted = list(inspect.signature(case.function).parameters) if inspect.isfunction(case.function) else []
    named = [name for name in wanted if name in case.operands]
    return named if named and named == wanted[: len(named)] else list(case.operands)


def _by_differences(case: Case, rng: np.random.Generator, step: float = 1e-4) -> tuple[Array, Array, dict[str, Array]]:
    """Central differences of ONNX's own reference implementation."""
    model = model_of(case, STATIC, np.float64, case.inputs)
    evaluator = ReferenceEvaluator(model)
    point = {i.name: case.operands[i.name].typed(np.float64) for i in model.graph.input}

    def at(values: Mapping[str, Array]) -> Array:
        return np.asarray(next(iter(evaluator.run(None, dict(values)))))

    y = at(point)
    dy = rng.standard_normal(y.shape).astype(np.float32).astype(np.float64)
    found = {}
    for name in case.sources:
        derivative = np.zeros(point[name].size)
        for k in range(derivative.size):
            moved = np.zeros(derivative.size)
            moved[k] = step
            by = moved.reshape(point[name].shape)
            higher, lower = (at({**point, name: point[name] + sign * by}) for sign in (1, -1))
            derivative[k] = ((higher - lower) * dy).sum() / (2 * step)
        found[name] = derivative.reshape(point[name].shape)
    return y, dy, found


def assert_near(have: Array, want: Array, tolerance: float, what: str) -> None:
    """The same shape, and an error small against the whole: ||a - b|| / ||b||."""
    assert have.shape == want.shape, f"{what}: shape {have.shape}, wanted {want.shape}"
    error = np.linalg.norm((have - want).ravel()) / max(float(np.linalg.norm(want.ravel())), 1e-30)
    assert error <= tolerance, f"{what}: relative error {error:.2g}\nhave {have}\nwant {want}"


def check_lowered(case: Case, shape: str, runtime: str) -> onnx.ModelProto:
    """The case's derivative graph, lowered for a runtime, against torch. Returns: the graph."""
    y, dy, gradients = expected(case)
    model = differentiated(case, shape, np.float32, case.sources, runtime)
    got = run_single(case, model, dy)
    assert_near(got["y"], y, case.single or 1e-5, "y")
    for name, want in gradients.items():
        assert_near(got[f"d_{name}"], want, case.single or 1e-5, f"d_{name} for {runtime}")
    return model


def check(case: Case, shape: str) -> None:
    """Both runs of the case's derivative graph against torch."""
    y, dy, gradients = expected(case)
    assert all(np.any(want) for want in gradients.values()), "a case whose derivative is zero shows nothing"
    model = differentiated(case, shape, np.float32, case.sources)
    if case.single is not None:
        got = run_single(case, model, dy)
        assert_near(got["y"], y, case.single, "y")
        for name, want in gradients.items():
            assert got[f"d_{name}"].dtype == np.float32
            assert_near(got[f"d_{name}"], want, case.single, f"d_{name} in float32")
    if case.double is not None:
        model = differentiated(case, shape, np.float64, case.sources)
        exact = run_double(case, model, dy, [f"d_{name}" for name in gradients])
        for name, want in gradients.items():
            assert_near(exact[f"d_{name}"], want, case.double, f"d_{name} in float64")


def against_torch(cases: Sequence[Case]) -> Callable[..., None]:
    """The test of a table of cases."""

    @pytest.mark.parametrize(
        ("case", "shape"), [pytest.param(c, shape, id=f"{c}-{shape}") for c in cases for shape in c.shapes]
    )
    def test(case: Case, shape: str) -> None:
        check(case, shape)

    return test
