"""Runs with inputs and outputs that stay on the device, at fixed addresses, as CUDA graphs need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import UsageError
from onnxplain.runtime.session import provider_of, runtime

Array = NDArray[Any]


class Bound:
    """A session with its inputs and outputs bound to memory of the device that it runs on.

    With `cuda={"enable_cuda_graph": True}` the first run records a CUDA graph for these addresses, and every other one
    replays it: nothing is launched node by node, and nothing copied.
    """

    def __init__(self, session: Any, feeds: Mapping[str, Array], like: Mapping[str, Array]) -> None:
        """Bind.

        session: an onnxruntime.InferenceSession, such as `Explainer.session`.
        feeds:   every input by name, of the sizes that all runs will have.
        like:    every output that is wanted, as a run on such inputs returned it; from any session.
        """
        self.session = session
        self.device = "cuda" if provider_of(session) == "cuda" else "cpu"
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
        value.update_inplace(np.ascontiguousarray(array))

    def run(self, options: Any = None) -> None:
        """Run on what the inputs hold, and wait until it is done.

        options: an onnxruntime.RunOptions. With the entry gpu_graph_id of -1 a session that may record CUDA graphs runs
                 node by node.
        """
        self.session.run_with_iobinding(self._binding, options)
        self._binding.synchronize_outputs()

    def get(self, name: str) -> Array:
        """An output, copied: what a later run returns is not written into it."""
        found: Array = self._outputs[name].numpy()  # of memory on the CPU, a view that does not keep it alive
        return found.copy()

    def _placed(self, array: Array) -> Any:
        own = np.array(array, order="C")  # on the CPU the runtime's value is this memory, and `set` writes into it
        return runtime().OrtValue.ortvalue_from_numpy(own, self.device, 0)


def _type(array: Array) -> str:
    names = {"float32": "float", "float64": "double"}
    return names.get(array.dtype.name, array.dtype.name)
