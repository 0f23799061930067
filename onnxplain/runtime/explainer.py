"""Running a compiled graph from Python: arrays in, named arrays out, every request checked before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike

from onnxplain import interface
from onnxplain.errors import OnnxplainError, UsageError, nearest
from onnxplain.interface import Metadata
from onnxplain.ir.layout import Layout
from onnxplain.runtime.bound import running
from onnxplain.runtime.feeds import Array, Port, batched, fitted, ports
from onnxplain.runtime.portions import in_portions
from onnxplain.runtime.session import Providers, open_session, provider_of, reason
from onnxplain.runtime.sizes import layout_of


class Explainer:
    """A compiled graph, ready to run.

    >>> explain = Explainer("explained.onnx")
    >>> result = explain(images)
    >>> result["heatmap"], result["explained_class"]

    model:     what `compile_model` returned, or the path of what `compile_file` wrote.
    providers: "auto" (CUDA where a session really gets it, else the CPU), which None is too; "cuda", "cpu", or ONNX
               Runtime's own names, each alone or as (name, options). One that is named must be there.
    threads:   for one operator on the CPU; ONNX Runtime's choice by default.
    use_tf32:  whether CUDA may round float32 operands to TF32; ONNX Runtime's default, which is yes, if not said.
    cuda:      other options of ONNX Runtime's CUDA provider, such as prefer_nhwc. With enable_cuda_graph the first call
               on a batch of some size is recorded and others replay it, for graphs without loops (`--for cuda`).
    options:   an onnxruntime.SessionOptions to start from; it stays as it is.

    Raises: UsageError if the graph was not compiled by onnxplain; ProviderUnavailable; BadModel.
    """

    def __init__(
        self,
        model: str | Path | onnx.ModelProto,
        providers: Providers = None,
        *,
        threads: int | None = None,
        use_tf32: bool | None = None,
        cuda: Mapping[str, Any] | None = None,
        options: Any = None,
    ) -> None:
        self.session = open_session(model, providers, threads=threads, use_tf32=use_tf32, cuda=cuda, options=options)
        self._running = running(self.session)
        metadata = Metadata.read(dict(self.session.get_modelmeta().custom_metadata_map))
        if metadata is None:
            name = "the ModelProto" if isinstance(model, onnx.ModelProto) else Path(model).name
            raise UsageError(
                f"{name} was not compiled by onnxplain: it returns no explanation.\n"
                f"  Compile it first: onnxplain.compile_model(model, 'gradient'), or `onnxplain compile {name} "
                "--method gradient`."
            )
        self.metadata: Metadata = metadata
        self.inputs: dict[str, Port] = ports(self.session.get_inputs())
        own = [o.name for o in self.session.get_outputs() if o.name not in metadata.outputs.values()]
        # As in the graph, a name that the model itself uses is the model's.
        roles = {role if role not in own else name: name for role, name in metadata.outputs.items()}
        self.outputs: dict[str, str] = {name: name for name in own} | roles
        """What a call returns, and the graph's name of it: the model's own outputs, then the explanation by role."""

    @property
    def input(self) -> Port:
        """The explained input: its name, shape and dtype."""
        return self.inputs[self.metadata.inputs["input"]]

    def key(self, role: str) -> str:
        """Under which name a call returns the output in that role: the role's own, unless the model uses that name."""
        name = self.metadata.outputs[role]
        return role if self.outputs.get(role) == name else name

    @property
    def layout(self) -> Layout:
        """Which axis of the explained input holds channels."""
        return layout_of(len(self.input.shape), self.metadata)

    @property
    def classes(self) -> int | None:
        """How many classes there are; None where only a run can tell."""
        count = self.metadata.parameters.get("classes")
        return count if isinstance(count, int) else None

    @property
    def provider(self) -> str:
        """What it runs on: "cuda", "cpu" or ONNX Runtime's name of another provider."""
        return provider_of(self.session)

    def argument(self, role: str) -> str:
        """Under which name a call takes the input in that role: the role's own, unless the model has such an input."""
        return role if role not in self._further() else self.metadata.inputs[role]

    def __call__(
        self,
        images: ArrayLike,
        /,
        target: ArrayLike | None = None,
        baseline: ArrayLike | None = None,
        noise: ArrayLike | None = None,
        **inputs: ArrayLike,
    ) -> dict[str, Array]:
        """Explain a batch, or one sample without a batch axis.

        images:   in the model's own type and preprocessing; other types are converted where nothing is lost.
        target:   the class of each sample, or one for all; only for graphs compiled with target "input".
        baseline: batch 1 or N; only for graphs compiled with a baseline input.
        noise:    only for graphs compiled with a noise input.
        inputs:   the model's other inputs, by name. Where the model itself has an input target, baseline or noise, that
                  name is the model's, and the explanation's is what `argument` says.

        Returns: the model's own outputs by name, and the explanation by role ("attribution", "heatmap",
                 "explained_class", ...), all with the batch axis.
        Raises:  UsageError for what does not fit; OnnxplainError where ONNX Runtime fails.
        """
        x = batched(self.input, np.asarray(images))
        count = len(x)
        given = {interface.TARGET: target, interface.BASELINE: baseline, interface.NOISE: noise, **inputs}
        feeds = {self.input.name: x}
        for role in (interface.TARGET, interface.BASELINE, interface.NOISE):
            if role in self._further():
                role_given = given.pop(self.metadata.inputs.get(role, ""), None)
            else:
                role_given = given.pop(role)
            name = self._input_for(role, role_given)
            if name is not None:
                feeds[name] = self._extra(role, self.inputs[name], np.asarray(role_given), count)
        others = {name: value for name, value in given.items() if value is not None}
        for name, array in self._others(others).items():
            feeds[name] = fitted(self.inputs[name], array, count)
        missing = [name for name in self.inputs if name not in feeds]
        if missing:
            raise UsageError(f"the graph also needs {', '.join(map(repr, missing))}: pass each by its name.")
        return self._run(feeds, count)

    def _input_for(self, role: str, value: ArrayLike | None) -> str | None:
        """The name of the graph's input in that role, where one is there and was given."""
        name = self.metadata.inputs.get(role)
        if name is None and value is not None:
            raise UsageError(
                f"the graph has no {role!r} input, so it cannot take one: it was compiled for "
                f"target {self.metadata.parameters.get('target')!r}.\n  Compile it with {_compiling(role)}."
            )
        if name is not None and value is None:
            raise UsageError(
                f"the graph was compiled with {_compiling(role)}: pass {self.argument(role)}= with the images."
            )
        return name

    def _extra(self, role: str, port: Port, value: Array, count: int) -> Array:
        if role == interface.TARGET:
            return self._targets(value, count)
        if role == interface.NOISE:
            return self._noise(port, value, count)
        array = batched(port, value)
        if len(array) not in (1, count):
            raise UsageError(
                f"the baseline has {len(array)} samples; 1, or as many as the images ({count}), are needed."
            )
        return array

    def _noise(self, port: Port, value: Array, count: int) -> Array:
        """(samples, N, ...): the axis of the images is the second."""
        if value.ndim > 1 and value.shape[1] == count:
            port = replace(port, shape=(port.shape[0], None, *port.shape[2:]))
        return fitted(port, value)

    def _targets(self, value: Array, count: int) -> Array:
        if value.dtype.kind not in "iu":
            raise UsageError(f"target holds {value.dtype}; class indices are integers.")
        if value.shape not in ((), (1,), (count,)):
            raise UsageError(
                f"target has shape {value.shape}; one class, or one for each of {count} samples, is needed."
            )
        targets = np.broadcast_to(value.astype(np.int64), (count,))
        known = f"the model's classes are 0 to {self.classes - 1}" if self.classes else "classes count from 0"
        for index in targets:
            if index < 0 or (self.classes is not None and index >= self.classes):
                raise UsageError(f"class {index} is out of range: {known}.")
        return np.ascontiguousarray(targets)

    def _further(self) -> list[str]:
        """The model's own inputs beside the explained one."""
        return [name for name in self.inputs if name not in self.metadata.inputs.values()]

    def _others(self, inputs: Mapping[str, ArrayLike]) -> dict[str, Array]:
        own = self._further()
        for name in inputs:
            if name not in own:
                raise UsageError(
                    f"the model has no further input {name!r}. {nearest(name, own, kind='further inputs')}"
                )
        return {name: np.asarray(value) for name, value in inputs.items()}

    def _run(self, feeds: Mapping[str, Array], count: int) -> dict[str, Array]:
        """Run, in portions where the model's batch is fixed."""
        fixed = self.input.shape[0]
        if not isinstance(fixed, int) or fixed == count:
            return self.unchecked(feeds)
        axes = {name: self._batch_axis(name, array, count) for name, array in feeds.items()}
        return in_portions(self.unchecked, feeds, axes, count=count, size=fixed)

    def _batch_axis(self, name: str, array: Array, count: int) -> int | None:
        """The axis along which an input holds the samples; None where it holds one thing for all of them."""
        role = next((role for role, own in self.metadata.inputs.items() if own == name), None)
        axis = 1 if role == interface.NOISE else 0
        if role is None and self.inputs[name].shape[:1] != self.input.shape[:1]:
            return None
        return axis if array.ndim > axis and array.shape[axis] == count else None

    def unchecked(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """What a call returns, for inputs by the graph's own names and of its own sizes and types.

        Raises: OnnxplainError where ONNX Runtime fails; UnsupportedModel for an output in bfloat16.
        """
        try:
            results = self._running.run(list(self.outputs.values()), feeds)
        except OnnxplainError:
            raise
        except Exception as error:  # ONNX Runtime's errors have no common base but this one
            shape = "x".join(map(str, feeds[self.input.name].shape))
            raise OnnxplainError(
                f"ONNX Runtime could not run the graph on {shape} values of {self.input.name!r}: {reason(error)}"
            ) from None
        return dict(zip(self.outputs, results, strict=True))


def _compiling(role: str) -> str:
    return f"{role} 'input' (--{role} input)"
