"""The scores of the classes in a model's output, as they were looked at when the graph was compiled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxplain.runtime.feeds import Array


def class_scores(output: Array, parameters: Mapping[str, Any]) -> Array | None:
    """(N, classes), at the place that was explained; None where the output does not tell them.

    parameters: of the metadata.
    """
    rows = output.reshape(len(output), -1)
    if "at" not in parameters:
        return rows
    axis, at = parameters.get("class_axis"), parameters["at"]
    if axis is None:
        return None
    places = np.moveaxis(output, axis, -1)
    if isinstance(at, list):
        return np.asarray(places[(slice(None), *at)])
    return np.asarray(places.reshape(len(output), -1, places.shape[-1]).mean(axis=1))
