"""The derivatives, one file for each kind of operator. Importing this package fills the table."""

from onnxplain.rules.vjp import (  # noqa: F401
    activation,
    elementwise,
    indexing,
    layout,
    linear,
    normalisation,
    pooling,
    quantisation,
    reduction,
    resampling,
    sampling,
)
