"""Sessions: a graph loaded into ONNX Runtime, on the execution provider that was asked for and no other.

ONNX Runtime lists CUDA when it was compiled with it, not when the machine has it, and a session that cannot have CUDA
silently runs on the CPU. So what a session really got is looked up afterwards.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import EncodeError

from onnxplain.errors import BadModel, OnnxplainError, ProviderUnavailable, UsageError, nearest
from onnxplain.ir.load import model_path, refuse_no_file

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
CHOICES = {"cuda": CUDA, "cpu": CPU}
"""Short names; "auto" is CUDA where a session really gets it, else the CPU."""

Providers = str | Sequence[str | tuple[str, Mapping[str, Any]]] | None

_PROVIDERS = "providers must be a name, or a list of names or of (name, options)"

_GPU = '"onnxruntime-gpu[cuda,cudnn]"'
"""What to install for CUDA: the wheel and the libraries that it needs."""

_FATAL, _ERROR, _WARNING = 4, 3, 2
"""ONNX Runtime's severities of what it logs."""


def runtime() -> Any:
    """The onnxruntime module. Raises: OnnxplainError where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise OnnxplainError(
            f"running a graph needs ONNX Runtime, which cannot be imported ({error}).\n"
            f"  pip install onnxruntime, or {_GPU} for CUDA."
        ) from None
    return onnxruntime


def open_session(
    model: str | Path | onnx.ModelProto,
    providers: Providers = None,
    *,
    threads: int | None = None,
    use_tf32: bool | None = None,
    cuda: Mapping[str, Any] | None = None,
    options: Any = None,
) -> Any:
    """Load a model into ONNX Runtime.

    providers: "auto" (also None), "cuda", "cpu", or ONNX Runtime's own names in order of preference, each alone or as
               (name, options). Every one that is named must be there.
    threads:   for one operator on the CPU; ONNX Runtime's choice by default.
    use_tf32:  whether CUDA may round float32 operands to TF32; ONNX Runtime's default, which is yes, if not said.
    cuda:      other options of ONNX Runtime's CUDA provider, such as prefer_nhwc, cudnn_conv_algo_search or
               enable_cuda_graph (for which see `onnxplain.runtime.bound`).
    options:   an onnxruntime.SessionOptions to start from; it stays as it is.

    Returns: onnxruntime.InferenceSession.
    Raises:  ProviderUnavailable, BadModel, or OnnxplainError without ONNX Runtime.
    """
    ort = runtime()
    if options is None:
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL  # errors are raised; logging them too says everything twice
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}.")
    optional = providers is None or providers == "auto"
    listed = _wanted(ort, providers)
    wanted = list(listed)
    asked = dict(cuda or {}) | ({} if use_tf32 is None else {"use_tf32": use_tf32})
    settings = [
        {k: _option(v) for k, v in {**given, **(asked if name == CUDA else {})}.items()}
        for name, given in listed.items()
    ]
    with _probing(ort, wanted, silent=optional), _threads(options, threads):
        session = _create(ort, _source(model), options, wanted, settings)
    got = session.get_providers()
    missing = [name for name in wanted if name not in got]
    if missing and not optional:
        raise ProviderUnavailable(_fell_back(missing[0], got))
    return session


@contextlib.contextmanager
def _threads(options: Any, count: int | None) -> Iterator[None]:
    """So many threads in options that may be the caller's and cannot be copied."""
    before = options.intra_op_num_threads
    try:
        if count is not None:
            options.intra_op_num_threads = count
        yield
    finally:
        options.intra_op_num_threads = before


def _option(value: Any) -> str:
    """A provider's option as ONNX Runtime takes it."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def lowered_for(provider: str) -> str:
    """What to compile a graph for that is run here and now on `provider`: a name of `compile --for`.

    Where CUDA may be had and may not, the graph must suit both.
    """
    if provider == "auto":
        return "portable" if CUDA in runtime().get_available_providers() else "cpu"
    return provider if provider in CHOICES else "portable"


def provider_of(session: Any) -> str:
    """The provider that comes first in a session, by its short name where it has one."""
    first = str(session.get_providers()[0])
    return next((short for short, name in CHOICES.items() if name == first), first)


def _wanted(ort: Any, providers: Providers) -> dict[str, Mapping[str, Any]]:
    """ONNX Runtime's names of what to ask for, with options. Raises: UsageError or ProviderUnavailable."""
    available = list(ort.get_available_providers())
    if providers is None or providers == "auto":
        return {name: {} for name in (CUDA, CPU) if name in available}
    wanted: dict[str, Mapping[str, Any]] = {}
    for name, given in _pairs(providers):
        known = CHOICES.get(name, name)
        if known not in ort.get_all_providers():
            raise UsageError(
                f"there is no execution provider {name!r}. {nearest(name, ['auto', *CHOICES], kind='providers')}"
            )
        if known not in available:
            hint = f"\n  pip uninstall onnxruntime, then pip install {_GPU}." if known == CUDA else ""
            raise ProviderUnavailable(
                f"{known} was asked for, and the installed ONNX Runtime {ort.__version__} was built without it: "
                f"it has {', '.join(available)}.{hint}"
            )
        wanted[known] = given
    return wanted if CPU in wanted else {**wanted, CPU: {}}


def _pairs(providers: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Each provider with its options. Raises: UsageError for what names none."""
    names = [providers] if isinstance(providers, str) else providers
    if not isinstance(names, Sequence):
        raise UsageError(f"{_PROVIDERS}, not {providers!r}.")
    if not names:
        raise UsageError(f"no execution provider is named. {nearest('', ['auto', *CHOICES], kind='providers')}")
    pairs: list[tuple[str, Mapping[str, Any]]] = []
    for each in names:
        match each:
            case str():
                pairs.append((each, {}))
            case (str() as name, Mapping() as given):
                pairs.append((name, given))
            case _:
                raise UsageError(f"{_PROVIDERS}, not {each!r}.")
    return pairs


@contextlib.contextmanager
def _probing(ort: Any, wanted: Sequence[str], *, silent: bool) -> Iterator[None]:
    """Ask for a provider without noise: ONNX Runtime prints and logs at length where it cannot be had.

    silent: not even errors, which name the library that is missing.
    """
    if wanted == [CPU]:
        yield
        return
    ort.set_default_logger_severity(_FATAL if silent else _ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            if CUDA in wanted and hasattr(ort, "preload_dlls"):
                ort.preload_dlls()  # finds the CUDA libraries that pip installed
            yield
    finally:
        ort.set_default_logger_severity(_WARNING)


def _create(ort: Any, source: str | bytes, options: Any, providers: list[str], settings: list[dict[str, str]]) -> Any:
    try:
        return ort.InferenceSession(source, sess_options=options, providers=providers, provider_options=settings)
    except Exception as error:  # ONNX Runtime's errors have no common base but this one
        name = Path(source).name if isinstance(source, str) else "the given ModelProto"
        why = reason(error).rstrip(".")
        hint = "Check the model with onnx.checker; it may need a newer ONNX Runtime."
        if "graph capture" in why:
            hint = (
                "CUDA graphs take no loops and no copies to the CPU: compile with --for cuda and look what "
                "`onnxplain verify --for cuda` says, or leave enable_cuda_graph out."
            )
        raise BadModel(f"ONNX Runtime {ort.__version__} cannot load {name}: {why}.\n  {hint}") from None


def _source(model: str | Path | onnx.ModelProto) -> str | bytes:
    if isinstance(model, onnx.ModelProto):
        try:
            return bytes(model.SerializeToString())
        except (EncodeError, ValueError):
            raise BadModel(
                "the ModelProto is larger than 2 GB, which cannot be serialised.\n"
                "  Save it with external data and pass the path instead."
            ) from None
    path = model_path(model)
    refuse_no_file(path)
    return str(path)


def _fell_back(missing: str, got: Sequence[str]) -> str:
    """What to say of a session that did not get the provider that was asked for."""
    said = f"{missing} was asked for, and ONNX Runtime fell back to {', '.join(got)}"
    if missing != CUDA:
        return f"{said}.\n  What it logged above says which library is missing."
    return (
        f"{said}: there is no CUDA device, or its driver, CUDA or cuDNN cannot be loaded.\n"
        f'  pip install {_GPU} brings the libraries; without such a device use the provider "cpu" or "auto".'
    )


def reason(error: Exception) -> str:
    """What ONNX Runtime says, without its error code and source positions, in one line."""
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^Load model from .*? failed:", "", text)
    text = re.sub(r"/\S+\.(?:cc|h):\d+ [^(]*\(.*?\) ", "", text)
    return text or type(error).__name__
