"""Arrays that users keep in files of NumPy's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onnxplain.errors import UsageError
from onnxplain.ir.weights import Array


def read_array(path: Path, what: str = "file") -> Array:
    """The array in a .npy file. Raises: UsageError if there is none; `what` says what the file is to the user."""
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UsageError(f"there is no {what} {path}.") from None
    except (OSError, ValueError, EOFError):
        array = None
    if not isinstance(array, np.ndarray):  # an archive of several is read too
        raise UsageError(f"{what} {path} is not a NumPy array that can be read.")
    return array
