"""Runs with inputs and outputs that stay on the device, at fixed addresses, as CUDA graphs need them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from threading import Lock
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnxplain.errors import UnsupportedModel, UsageError
from onnxplain.runtime.session import CUDA, provider_of, runtime

Array = NDArray[Any]

_RECORDING = "gpu_graph_id"
"""ONNX Runtime's option of a run: which recording it makes or replays."""

_NUMBERS = count(1)
"""Of recordings. Two that share one would share the addresses and sizes of the first."""


def records(session: Any) -> bool:
    """Whether a session records CUDA graphs: whether it has CUDA and `enable_cuda_graph`."""
    return _options(session).get("enable_cuda_graph", "0").lower() in ("1", "true")


def running(session: Any) -> Any:
    """What to call `run` of, with names of outputs and arrays by name."""
    return Replays(session) if records(session) else Direct(session)


def node_by_node() -> Any:
    """An onnxruntime.RunOptions with which a session that records CUDA graphs neither records nor replays."""
    return _recording(-1)


class Bound:
    """A session with its inputs and outputs bound to memory of the device that it runs on.

    With `cuda={"enable_cuda_graph": True}` the first run records a CUDA graph for these addresses, and every other one
    replays it: nothing is launched node by node, and nothing copied.
    """

    def __init__(self, session: Any, feeds: Mapping[str, Array], like: Mapping[str, Array] | None = None) -> None:
        """Bind.

        session: an onnxruntime.InferenceSession, such as `Explainer.session`.
        feeds:   every input by name, of the sizes that all runs will have.
        like:    every output that is wanted, as a run on such inputs returned it; by default it is run once and all
                 are.
        Raises:  UsageError for texts, sequences and bfloat16, which cannot be bound.
        """
        self.session = session
        self.recording = _recording(next(_NUMBERS)) if records(session) else None
        wanted = [output for output in session.get_outputs() if like is None or output.name in like]
        for each in (*session.get_inputs(), *wanted):
            if each.type in ("tensor(string)", "tensor(bfloat16)") or not each.type.startswith("tensor("):
                raise UsageError(
                    f"{each.name!r} is of the type {each.type}, which ONNX Runtime cannot bind to memory from Python.\n"
                    "  Run the session unbound: `onnxplain.Explainer` without enable_cuda_graph."
                )
        on_card = provider_of(session) == "cuda"
        self._device = ("cuda", int(_options(session).get("device_id", 0))) if on_card else ("cpu", 0)
        if like is None:
            names = [output.name for output in session.get_outputs()]
            first = session.run(names, dict(feeds), node_by_node() if self.recording else None)
            like = dict(zip(names, first, strict=True))
        self._inputs = {name: self._placed(array) for name, array in feeds.items()}
        self._outputs = {name: self._placed(np.zeros_like(array)) for name, array in like.items()}
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def set(self, name: str, array: Array) -> None:
        """Overwrite an input in place. Raises: UsageError for one that is not there or of other sizes or type."""
        value = self._inputs.get(name)
        if value is None:
            raise UsageError(f"there is no input {name!r} that is bound: there are {', '.join(self._inputs)}.")
        if tuple(value.shape()) != array.shape or value.data_type() != f"tensor({_type(array)})":
            raise UsageError(
                f"input {name!r} is bound as {value.data_type()} of {tuple(value.shape())}, and this is "
                f"{_type(array)} of {array.shape}.\n  Bind the session anew for other sizes."
            )
        value.update_inplace(np.asarray(array, order="C"))

    def run(self, options: Any = None) -> None:
        """Run on what the inputs hold, and wait until it is done.

        options: an onnxruntime.RunOptions instead of that of the recording, such as `node_by_node()`.
        """
        self.session.run_with_iobinding(self._binding, options or self.recording)
        self._binding.synchronize_outputs()

    def get(self, name: str) -> Array:
        """An output, copied: what a later run returns is not written into it."""
        found: Array = self._outputs[name].numpy()  # of memory on the CPU, a view that does not keep it alive
        return found.copy()

    def _placed(self, array: Array) -> Any:
        own = np.array(array, order="C")  # on the CPU the runtime's value is this memory, and `set` writes into it
        return runtime().OrtValue.ortvalue_from_numpy(own, *self._device)


class Direct:
    """A session that is given arrays, those in bfloat16 too, which NumPy does not have of itself."""

    def __init__(self, session: Any) -> None:
        self.session = session

    def run(self, names: list[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
        """Outputs by name, all by default. Raises: UnsupportedModel for one in bfloat16."""
        for output in self.session.get_outputs():
            if output.type == "tensor(bfloat16)" and (names is None or output.name in names):
                raise UnsupportedModel(
                    f"output {output.name!r} is in bfloat16, which ONNX Runtime cannot return to Python as an array.\n"
                    "  Export the model with that output in float32."
                )
        found: list[Array] = self.session.run(names, {name: _handed(array) for name, array in feeds.items()})
        return found


def _handed(array: Array) -> Any:
    if array.dtype != ml_dtypes.bfloat16:
        return array
    return runtime().OrtValue.ortvalue_from_numpy_with_onnx_type(array, TensorProto.BFLOAT16)


class Replays:
    """A session that records CUDA graphs, run like any other: arrays in, arrays out, of whatever sizes.

    Given arrays, ONNX Runtime would copy them to where there is room, and replay a recording that reads another place:
    it would return the explanation of an earlier picture. Here each set of sizes has a recording of its own, whose
    inputs are overwritten. None is forgotten, so sizes should be few.
    """

    def __init__(self, session: Any) -> None:
        self.session = session
        self._bound: dict[tuple[Any, ...], Bound] = {}
        self._one_at_a_time = Lock()

    def run(self, names: list[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Outputs by name, as `onnxruntime.InferenceSession.run` has it."""
        sizes = tuple(sorted((name, array.shape, array.dtype.str) for name, array in feeds.items()))
        with self._one_at_a_time:
            bound = self._bound.get(sizes)
            if bound is None:
                bound = self._bound[sizes] = Bound(self.session, feeds)
            for name, array in feeds.items():
                bound.set(name, array)
            bound.run()
            return [bound.get(name) for name in names]


def _recording(number: int) -> Any:
    options = runtime().RunOptions()
    options.add_run_config_entry(_RECORDING, str(number))
    return options


def _options(session: Any) -> Mapping[str, str]:
    """Of the CUDA provider, as the session got them; none where it has none."""
    found: Mapping[str, str] = session.get_provider_options().get(CUDA, {})
    return found


def _type(array: Array) -> str:
    names = {"float32": "float", "float64": "double"}
    return names.get(array.dtype.name, array.dtype.name)
