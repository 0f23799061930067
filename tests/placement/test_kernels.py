from __future__ import annotations

from onnxplain.placement.kernels import Kernel, kernels


def test_an_open_ended_kernel_serves_only_the_version_it_was_written_for() -> None:
    """ONNX Runtime's rule, whence MaxPool of opset 22 has no CUDA kernel."""
    open_ended, closed = Kernel(12, None, {}), Kernel(8, 11, {})
    assert [open_ended.has_version(v) for v in (11, 12, 13)] == [False, True, False]
    assert [closed.has_version(v) for v in (7, 8, 9, 11, 12)] == [False, True, True, True, False]


def test_only_constraints_that_are_known_are_asked() -> None:
    kernel = Kernel(1, None, {"T": frozenset({"float", "double"}), "I": frozenset({"int64"})})
    assert kernel.takes({"T": "float", "I": "int64"})
    assert kernel.takes({"T": "double"})
    assert not kernel.takes({"T": "float16"})


def test_the_table_holds_both_providers() -> None:
    assert any(k.types["T"] >= {"float", "float16"} for k in kernels("cuda")[("", "ScatterElements")])
    assert ("", "MaxUnpool") in kernels("cpu")
    assert ("", "MaxUnpool") not in kernels("cuda")
    assert not any("bfloat16" in k.types["T"] for k in kernels("cuda")[("", "ConvTranspose")])
