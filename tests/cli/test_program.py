"""The program as a whole: version, help, exit status of a real process, and what it does without its companions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import onnxplain
from tests.cli.program import program
from tests.runtime.tiny import classifier, saved

WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ImportError(f"{{name}} is not to be had")

sys.meta_path.insert(0, Absent())
"""
ONLY_LIBRARY = ("onnxruntime", "torch", "typer", "rich", "matplotlib", "PIL")


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONWARNINGS": "error,ignore::DeprecationWarning"}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).resolve().parents[2],
        timeout=120,
    )


def test_version() -> None:
    result = program("--version")
    assert (result.exit_code, result.stdout) == (0, f"onnxplain {onnxplain.__version__}\n")


@pytest.mark.parametrize("command", ["compile", "explain", "plan", "verify", "methods"])
def test_every_command_has_help(command: str) -> None:
    assert command in program("--help").stdout
    assert program(command, "--help").exit_code == 0


def test_every_method_is_listed_with_its_parameters_and_source() -> None:
    shown = program("methods").stdout
    entries = {entry["name"]: entry for entry in json.loads(program("methods", "--json").stdout)}
    assert set(entries) == {method.name for method in onnxplain.methods()}
    for method in onnxplain.methods():
        assert method.name in shown
        assert entries[method.name]["source"] == method.source
        assert [p["name"] for p in entries[method.name]["parameters"]] == [p.name for p in method.parameters]
    (steps,) = (p for p in entries["integrated-gradients"]["parameters"] if p["name"] == "steps")
    assert (steps["kind"], steps["default"], steps["range"]) == ("int", 50, "at least 1")
    assert "steps=50" in shown
    assert "(int, at least 1)" in shown
    assert "k=1, or 2 for the variant" in shown


def test_a_process_ends_with_the_status(tmp_path: Path) -> None:
    run = "import sys; sys.argv[0] = 'onnxplain'; from onnxplain.cli import main; main()"
    model = saved(classifier(), tmp_path / "model.onnx")
    done = python(run, "compile", model, "--method", "gradient")
    assert (done.returncode, done.stderr) == (0, "")
    failed = python(run, "compile", tmp_path / "none.onnx", "--method", "gradient")
    assert failed.returncode == 1
    assert failed.stderr == f"BadModel: there is no file {tmp_path}/none.onnx.\n  Check the path of the model.\n"
    assert python(run, "compile", model, "--method", "nothing").returncode == 2
    assert python(run, "compile", model).returncode == 2


def test_a_bug_shows_its_traceback_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr("onnxplain.cli.compile.explained", bug)
    model = saved(classifier(), tmp_path / "model.onnx")
    result = program("compile", model, "--method", "gradient")
    assert (result.exit_code, "Traceback" in result.stderr) == (1, False)
    assert result.stderr.startswith("InternalError: RuntimeError: odd\n  This is a bug in onnxplain")
    result = program("--debug", "compile", model, "--method", "gradient")
    assert (result.exit_code, "Traceback" in result.stderr) == (1, True)
    monkeypatch.setenv("ONNXPLAIN_DEBUG", "1")
    assert "Traceback" in program("compile", model, "--method", "gradient").stderr


def test_compiling_needs_no_runtime_and_no_framework(tmp_path: Path) -> None:
    model = saved(classifier(), tmp_path / "model.onnx")
    blocked = WITHOUT.format(names=("onnxruntime", "torch"))
    run = f"{blocked}\nsys.argv[0] = 'onnxplain'\nfrom onnxplain.cli import main\nmain()"
    result = python(run, "compile", model, "--method", "gradient,grad-cam", "--preprocess", "imagenet")
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "model.gradient+grad-cam.onnx").exists()
    assert python(run, "plan", model, "--method", "gradient").returncode == 0
    explained = python(run, "explain", tmp_path / "model.gradient+grad-cam.onnx", tmp_path / "any.png")
    assert explained.returncode == 1
    assert explained.stderr == (
        "OnnxplainError: running a graph needs ONNX Runtime, which cannot be imported (onnxruntime is not to be had).\n"
        '  pip install onnxruntime, or "onnxruntime-gpu[cuda,cudnn]" for CUDA.\n'
    )


def test_the_library_compiles_with_onnx_alone(tmp_path: Path) -> None:
    model, out = saved(classifier(), tmp_path / "model.onnx"), tmp_path / "out.onnx"
    code = f"""{WITHOUT.format(names=ONLY_LIBRARY)}
import onnxplain
onnxplain.compile_file(sys.argv[1], sys.argv[2], "integrated-gradients", target="input")
assert onnxplain.compile_model(sys.argv[1], "guided-backprop").graph.node
assert not [name for name in sys.modules if name.split(".")[0] in {ONLY_LIBRARY!r}]
assert "passes" not in sys.modules
"""
    result = python(code, model, out)
    assert (result.returncode, result.stderr) == (0, "")
    assert out.exists()


def test_the_program_starts_without_what_it_may_not_need() -> None:
    companions = ("onnxruntime", "torch", "matplotlib", "PIL")
    code = f"import sys, onnxplain.cli.app; print([name for name in {companions} if name in sys.modules])"
    assert python(code).stdout == "[]\n"
