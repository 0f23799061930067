"""What can go wrong, in words that a user can act on.

Every message says what happened, where (node, operator, file), why, and what to do next. The command line prints the
message and nothing else; a traceback from this package is a bug.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class OnnxplainError(Exception):
    """Base of every error that this package raises on purpose."""


class UsageError(OnnxplainError):
    """The request cannot be carried out as stated: an unknown method, a class out of range, a wrong shape."""


class BadModel(OnnxplainError):
    """The file is not an ONNX model that can be read whole."""


class BadImage(OnnxplainError):
    """A picture cannot be read or does not fit the model's input."""


class UnsupportedModel(OnnxplainError):
    """The model is valid but is not a classifier of a form that can be explained."""


class UnsupportedOp(UnsupportedModel):
    """An operator between the explained input and the score has no rule."""


class ProviderUnavailable(OnnxplainError):
    """An execution provider was asked for and is not there."""


class VerificationFailed(OnnxplainError):
    """A compiled graph does not do what it promises."""


def nearest(wanted: str, known: Iterable[str], *, kind: str) -> str:
    """The sentence that names what exists, the likeliest first.

    >>> nearest("guidedbackprop", ["gradient", "guided-backprop"], kind="methods")
    "Did you mean 'guided-backprop'? The methods are: gradient, guided-backprop."
    """
    names = list(known)
    if not names:
        return f"There are no {kind}."
    folded = {name.lower(): name for name in names}
    close = [folded[match] for match in get_close_matches(wanted.lower(), folded, n=3, cutoff=0.5)]
    hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}The {kind} are: {enumerated(names)}."


def enumerated(names: Sequence[str], *, most: int = 12) -> str:
    """Names in one line, cut after `most` so that a message stays on one screen."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
