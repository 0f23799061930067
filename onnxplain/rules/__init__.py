"""The rules: a derivative for each operator, and what methods put in its place. Importing this fills the table."""

import onnxplain.rules.vjp  # noqa: F401
