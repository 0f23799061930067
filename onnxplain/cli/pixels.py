"""How pictures become the input of an opened graph: what is recorded or assumed, and what the options change in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxplain.errors import UsageError

if TYPE_CHECKING:
    from onnxplain.interface import Metadata
    from onnxplain.runtime.explainer import Explainer
    from onnxplain.runtime.preprocess import Preprocess, Said


def preprocess_for(explain: Explainer, said: Said) -> Preprocess:
    """What was said, laid over what the graph records, or over what is assumed where it records nothing.

    Raises: UsageError if it contradicts a record that the graph's explanation was built on.
    """
    from onnxplain.runtime.preprocess import Preprocess

    entries = explain.metadata.preprocess
    if entries is None:
        return said.over(Preprocess.assumed(explain.input.dtype))
    recorded = Preprocess.from_dict(entries)
    how = said.over(recorded)
    wanting = _built_on(explain.metadata, recorded, how)
    if wanting:
        raise UsageError(
            f"{wanting}, by the preprocessing that was recorded when it was compiled: {_numbers_of(recorded)}.\n"
            f"  Now it would be {_numbers_of(how)}. Leave --preprocess, --scale, --mean and --std out, or compile the "
            "model again with them."
        )
    return how


def _built_on(metadata: Metadata, recorded: Preprocess, how: Preprocess) -> str:
    """Which part of the explanation holds numbers of the record that are others now, or nothing."""
    if all(map(np.array_equal, recorded.range, how.range)):
        return ""
    for method in metadata.method.split(","):
        settings = metadata.parameters.get(method, {})
        if settings.get("baseline") == "black":
            return f"{method} compares with black"
        if "auto" in (settings.get("low"), settings.get("high")):
            return f"{method} goes by the lowest and the highest input"
        never_negative, negative = np.min(recorded.range) >= 0, np.min(how.range) < 0
        if settings.get("sign_analysis") and never_negative and negative:
            return f"{method} leaves out what an input that is never negative lacks"
    return ""


def _numbers_of(how: Preprocess) -> str:
    mean, std = (",".join(f"{value:g}" for value in values) for values in (how.mean, how.std))
    return f"scale {how.scale:.6g}, mean {mean}, std {std}"
