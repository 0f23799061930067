from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from onnxplain.errors import BadModel, OnnxplainError, ProviderUnavailable, UsageError
from onnxplain.runtime.session import CPU, CUDA, lowered_for, open_session, provider_of
from tests.runtime.tiny import classifier, saved

HAS_CUDA = CUDA in onnxruntime.get_available_providers()


class Machine:
    """A stand-in for ONNX Runtime's GPU wheel: CUDA is listed, and a session gets it or does not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, works: bool) -> None:
        self.asked: list[tuple[list[str], list[dict[str, str]]]] = []
        machine = self

        class Session:
            def __init__(self, source: bytes, sess_options: Any, providers: list[str], provider_options: Any) -> None:
                print("*************** EP Error ***************")
                machine.asked.append((providers, provider_options))
                self.threads = sess_options.intra_op_num_threads
                self.got = [name for name in providers if works or name == CPU]

            def get_providers(self) -> list[str]:
                return self.got

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudart"))
        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)


def test_the_cpu_is_there() -> None:
    assert provider_of(open_session(classifier(), "cpu")) == "cpu"
    assert provider_of(open_session(classifier(), CPU)) == "cpu"
    assert provider_of(open_session(classifier(), [CPU])) == "cpu"


@pytest.mark.skipif(HAS_CUDA, reason="this ONNX Runtime has CUDA")
def test_auto_is_the_cpu_where_there_is_no_cuda() -> None:
    assert provider_of(open_session(classifier())) == "cpu"
    assert provider_of(open_session(classifier(), "auto")) == "cpu"


@pytest.mark.parametrize(
    ("provider", "built_in", "runtime"),
    [
        ("cpu", [CUDA, CPU], "cpu"),
        ("cuda", [CUDA, CPU], "cuda"),
        ("auto", [CPU], "cpu"),
        ("auto", [CUDA, CPU], "portable"),
        ("DmlExecutionProvider", [CPU], "portable"),
    ],
)
def test_what_runs_at_once_is_compiled_for_where_it_runs(
    monkeypatch: pytest.MonkeyPatch, provider: str, built_in: list[str], runtime: str
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: built_in)
    assert lowered_for(provider) == runtime


@pytest.mark.skipif(HAS_CUDA, reason="this ONNX Runtime has CUDA")
def test_cuda_that_was_not_built_in_is_refused() -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        open_session(classifier(), "cuda")
    assert str(caught.value) == (
        f"CUDAExecutionProvider was asked for, and the installed ONNX Runtime {onnxruntime.__version__} was built "
        f"without it: it has {', '.join(onnxruntime.get_available_providers())}.\n"
        '  pip uninstall onnxruntime, then pip install "onnxruntime-gpu[cuda,cudnn]".'
    )


def test_a_silent_fall_back_to_the_cpu_is_refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Machine(monkeypatch, works=False)
    for asked in ("cuda", [CUDA, CPU]):
        with pytest.raises(ProviderUnavailable) as caught:
            open_session(classifier(), asked)
        assert str(caught.value) == (
            "CUDAExecutionProvider was asked for, and ONNX Runtime fell back to CPUExecutionProvider: there is no CUDA "
            "device, or its driver, CUDA or cuDNN cannot be loaded.\n"
            '  pip install "onnxruntime-gpu[cuda,cudnn]" brings the libraries; without such a device use the provider '
            '"cpu" or "auto".'
        )
    assert capfd.readouterr() == ("", "")


def test_auto_takes_what_the_session_gets(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    Machine(monkeypatch, works=False)
    assert provider_of(open_session(classifier(), "auto")) == "cpu"
    machine = Machine(monkeypatch, works=True)
    assert provider_of(open_session(classifier(), "auto")) == "cuda"
    assert machine.asked == [([CUDA, CPU], [{}, {}])]
    assert capfd.readouterr() == ("", "")


def test_tf32_and_threads_are_passed_on_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, works=True)
    session = open_session(classifier(), "cuda", use_tf32=False, threads=3)
    assert machine.asked == [([CUDA, CPU], [{"use_tf32": "0"}, {}])]
    assert session.threads == 3
    with pytest.raises(UsageError, match="threads must be at least 1, not 0"):
        open_session(classifier(), threads=0)


def test_other_options_of_cuda_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, works=True)
    open_session(classifier(), "cuda", use_tf32=True, cuda={"prefer_nhwc": True, "cudnn_conv_algo_search": "HEURISTIC"})
    (_, (settings, none)) = machine.asked[0]
    assert settings == {"prefer_nhwc": "1", "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "1"}
    assert none == {}


def test_a_provider_may_come_with_options(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, works=True)
    given = [("cuda", {"prefer_nhwc": True, "device_id": 1}), CPU]
    open_session(classifier(), given, cuda={"device_id": 2})
    assert machine.asked == [([CUDA, CPU], [{"prefer_nhwc": "1", "device_id": "2"}, {}])]


@pytest.mark.parametrize("wrong", [5, [5], [("cpu",)], [("cpu", 5)], {"cpu": {}}])
def test_what_names_no_provider_is_refused(wrong: Any) -> None:
    with pytest.raises(
        UsageError, match=r"^providers must be a name, or a list of names or of \(name, options\), not "
    ):
        open_session(classifier(), wrong)


def test_options_that_were_given_stay_as_they_are() -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = open_session(classifier(), "cpu", threads=1, options=options)
    assert session.get_session_options().intra_op_num_threads == 1
    assert options.intra_op_num_threads == 2


def test_an_unknown_provider_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"there is no execution provider 'cdua'\. Did you mean 'cuda'"):
        open_session(classifier(), "cdua")
    with pytest.raises(UsageError, match="no execution provider is named"):
        open_session(classifier(), [])


def test_without_onnx_runtime_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(OnnxplainError) as caught:
        open_session(classifier())
    assert "running a graph needs ONNX Runtime" in str(caught.value)
    assert 'pip install onnxruntime, or "onnxruntime-gpu[cuda,cudnn]" for CUDA.' in str(caught.value)


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"there is no file .*nothing\.onnx"):
        open_session(tmp_path / "nothing.onnx")
    with pytest.raises(BadModel, match="is a folder, not a model file"):
        open_session(tmp_path)
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(BadModel, match=r"cannot load text\.onnx: Protobuf parsing failed\."):
        open_session(tmp_path / "text.onnx")
    newer = classifier()
    newer.ir_version = 99
    with pytest.raises(BadModel, match=r"cannot load newer\.onnx: Unsupported model IR version: 99, max supported"):
        open_session(saved(newer, tmp_path / "newer.onnx"))


def test_a_graph_that_cannot_be_recorded_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "This session cannot use the graph capture feature as requested by the user as the model has control flow"

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(f"[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : {said}")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(BadModel) as caught:
        open_session(classifier(), "cpu")
    assert str(caught.value) == (
        f"ONNX Runtime {onnxruntime.__version__} cannot load the given ModelProto: {said}.\n"
        "  CUDA graphs take no loops and no copies to the CPU: compile with --for cuda and look what "
        "`onnxplain verify --for cuda` says, or leave enable_cuda_graph out."
    )
