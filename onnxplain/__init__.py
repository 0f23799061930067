"""onnxplain: a compiler from trained ONNX classifiers to graphs that explain themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxplain.compiler import compile_file, compile_model
from onnxplain.errors import (
    BadImage,
    BadModel,
    OnnxplainError,
    ProviderUnavailable,
    UnsupportedModel,
    UnsupportedOp,
    UsageError,
    VerificationFailed,
)
from onnxplain.methods import methods
from onnxplain.version import __version__

if TYPE_CHECKING:
    from onnxplain.runtime.explainer import Explainer

__all__ = [
    "BadImage",
    "BadModel",
    "Explainer",
    "OnnxplainError",
    "ProviderUnavailable",
    "UnsupportedModel",
    "UnsupportedOp",
    "UsageError",
    "VerificationFailed",
    "__version__",
    "compile_file",
    "compile_model",
    "methods",
]


def __getattr__(name: str) -> object:
    # What runs a model is read when it is first asked for: compiling is quicker without it.
    if name == "Explainer":
        from onnxplain.runtime.explainer import Explainer

        return Explainer
    raise AttributeError(f"module 'onnxplain' has no attribute {name!r}")
