from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import onnx
import pytest

import onnxplain
from benchmarks.cuda.machine import why_no_cuda
from onnxplain.errors import OnnxplainError
from onnxplain.runtime.measure import Job, forward_of, measure
from onnxplain.runtime.profile import Node, Spent
from tests.cli.program import listing, program
from tests.running import net, run
from tests.runtime.tiny import classifier, pictures, saved


@pytest.fixture
def explained(tmp_path: Path) -> Path:
    saved(classifier(), tmp_path / "model.onnx")
    onnxplain.compile_file(tmp_path / "model.onnx", tmp_path / "explained.onnx", "gradient")
    return tmp_path / "explained.onnx"


def test_bench_sets_the_explained_model_beside_its_forward_pass(explained: Path) -> None:
    result = program("bench", explained, "--runs", 2, "--turns", 2, "--batch", 1, "--batch", 3, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [each["batch"] for each in found] == [1, 3]
    for each in found:
        assert len(each["ratios"]) == len(each["forward"]) == len(each["explained"]) == 2
        before, after = each["forward"][0]["nodes"], each["explained"][0]["nodes"]
        assert sum(after.values()) > sum(before.values()), "the explanation has nodes that the forward pass has not"
        assert all(ms > 0 for cost in each["explained"] for ms in cost["milliseconds"])


def test_bench_against_the_model_itself_counts_the_same_forward_nodes(explained: Path) -> None:
    given = program(
        "bench", explained, "--against", explained.with_name("model.onnx"), "--runs", 1, "--turns", 1, "--json"
    )
    cut = program("bench", explained, "--runs", 1, "--turns", 1, "--json")
    nodes = [json.loads(r.stdout)[0]["forward"][0]["nodes"] for r in (given, cut)]
    assert nodes[0] == nodes[1]


@pytest.fixture
def with_data(tmp_path: Path) -> Path:
    """An explained model whose weights are too large to be kept in the graph."""
    model = classifier(classes=400)
    saved(model, tmp_path / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    onnxplain.compile_file(tmp_path / "model.onnx", tmp_path / "explained.onnx", "gradient")
    return tmp_path / "explained.onnx"


def test_bench_cuts_the_forward_pass_out_of_a_model_with_a_data_file(with_data: Path) -> None:
    before = listing(with_data.parent)
    result = program("bench", with_data, "--runs", 1, "--turns", 1, "--json")
    assert result.exit_code == 0, result.stderr
    assert listing(with_data.parent) == before, "the forward pass is gone"


def test_bench_of_a_data_file_in_a_folder_that_cannot_be_written(
    with_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**where: Any) -> None:
        assert where["dir"] == with_data.parent
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    result = program("bench", with_data)
    assert result.exit_code == 2
    assert result.stderr == (
        "UsageError: the forward pass of explained.onnx has its weights in a data file and must lie beside it, where "
        "nothing can be written: Permission denied.\n"
        "  Give the model that it was compiled from with --against.\n"
    )


def test_the_forward_pass_keeps_what_branches_read(tmp_path: Path) -> None:
    """`h` is read inside the branches alone."""
    model = net(
        """g (float[N,4] x, bool c) => (float[N,4] y, float[N,4] z) {
            y = Sigmoid(x)
            h = Tanh(x)
            z = If(c) <then_branch = t () => (float[N,4] a) { a = Exp(h) },
                       else_branch = f () => (float[N,4] b) { b = Neg(h) }>
        }"""
    )
    path = tmp_path / "explained.onnx"
    onnxplain.compile_file(model, path, input="x", output="y")
    feeds = {"x": pictures(1, 1, 2).reshape(1, 4), "c": True}
    with forward_of(path) as forward:
        assert run(forward, feeds)["z"] == pytest.approx(run(model, feeds)["z"])
    assert not forward.exists()


def test_what_cannot_be_measured_is_said_in_whole(explained: Path) -> None:
    explained.write_bytes(b"no model")
    told = r"^measuring explained.onnx failed: ONNX Runtime \S+ cannot load explained.onnx: .*\n  Check the model with"
    with pytest.raises(OnnxplainError, match=told):
        measure(Job(str(explained), "cpu", {}, 1))
    explained.unlink()
    told = f"measuring explained.onnx failed: there is no file {explained}.\n  Check the path of the model."
    with pytest.raises(OnnxplainError, match=f"^{re.escape(told)}$"):
        measure(Job(str(explained), "cpu", {}, 1))


def test_bench_of_a_model_that_explains_nothing_says_so(explained: Path) -> None:
    result = program("bench", explained.with_name("model.onnx"))
    assert result.exit_code == 2
    assert "was not compiled by onnxplain" in result.stderr


SHAPES = Path(__file__).parents[2] / "models/shapes/shapes.onnx"
FEW = {"integrated-gradients": {"steps": 2}}


@pytest.mark.parametrize("runtime", ["portable", "cpu"])
@pytest.mark.parametrize("method", ["lrp-eps", "deeplift-rescale", "integrated-gradients"])
def test_profile_counts_what_was_inserted_for_its_layer(tmp_path: Path, method: str, runtime: str) -> None:
    """Whatever it was replaced by, and whether it belongs to a baseline or to a path."""
    onnxplain.compile_file(SHAPES, tmp_path / "explained.onnx", method, runtime=runtime, **FEW.get(method, {}))
    result = program("profile", tmp_path / "explained.onnx", "--runs", 1, "--top", 200)
    assert result.exit_code == 0, result.stderr
    rows = {row.split("  ")[0].strip() for row in result.stdout.partition("layer")[2].splitlines()[2:] if row.strip()}
    named = {node.name for node in onnx.load(tmp_path / "explained.onnx").graph.node}
    own = {name for name in named if not name.startswith("onnxplain/")}
    assert {"node_Conv_132", "node_max_pool2d"} <= rows
    assert rows - own == {"what serves no layer", "changes of layout"}


NOISY = {"noise": "input", "samples": 3}


@pytest.mark.parametrize("size", ["8", "?", "h"])
@pytest.mark.parametrize(
    ("method", "options"), [("smoothgrad", NOISY), ("integrated-gradients", {"baseline": "input", "steps": 2})]
)
def test_inputs_that_the_explanation_takes_are_made_up(
    tmp_path: Path, method: str, options: dict[str, Any], size: str
) -> None:
    """Also where the model leaves everything open: three colours then, as `verify` has it."""
    model = classifier(side=8 if size == "8" else "h")
    if size == "?":
        for dim in model.graph.input[0].type.tensor_type.shape.dim:
            dim.Clear()
    source, path = saved(model, tmp_path / "model.onnx"), tmp_path / "explained.onnx"
    onnxplain.compile_file(source, path, method, target="input", **options)
    profiled = program("profile", path, "--runs", 1, "--batch", 2)
    assert profiled.exit_code == 0, profiled.stderr
    for more in ([], ["--against", source]):
        measured = program("bench", path, "--runs", 1, "--turns", 1, "--batch", 2, "--json", *more)
        assert measured.exit_code == 0, measured.stderr
        assert json.loads(measured.stdout)[0]["batch"] == 2


@pytest.mark.parametrize("command", ["bench", "profile"])
def test_a_fixed_batch_is_the_models_own(tmp_path: Path, command: str) -> None:
    source, path = saved(classifier(batch=2), tmp_path / "model.onnx"), tmp_path / "explained.onnx"
    onnxplain.compile_file(source, path, "gradient")
    short = ["--runs", 1, *(["--turns", 1] if command == "bench" else [])]
    for more in ([], ["--batch", 2]):
        result = program(command, path, *short, *more)
        assert result.exit_code == 0, result.stderr
        assert command == "profile" or "on cpu" in result.stdout
        assert command == "profile" or any(line.split()[:1] == ["2"] for line in result.stdout.splitlines())
    result = program(command, path, *short, "--batch", 64)
    assert (result.exit_code, result.stderr) == (
        2,
        "UsageError: explained.onnx takes 2 samples at a time, (2, 3, 8, 8), and cannot be measured with 64.\n"
        "  Leave --batch out, or export the model with a batch that is chosen at run time.\n",
    )
    for wrong in (0, -1):
        refused = program(command, path, *short, "--batch", wrong)
        assert refused.exit_code == 2
        assert "--batch" in refused.stderr


def test_what_the_runtime_cannot_run_is_said(tmp_path: Path) -> None:
    """Sixteen numbers are no rows of five."""
    model = net("g (float[N,h] x) => (float[N,5] y) <int64[2] s = {-1, 5}> { r = Relu(x) y = Reshape(r, s) }")
    source, path = saved(model, tmp_path / "model.onnx"), tmp_path / "explained.onnx"
    onnxplain.compile_file(source, path, "gradient")
    result = program("profile", path, "--runs", 1)
    assert result.exit_code == 1
    assert result.stderr.startswith("OnnxplainError: explained.onnx cannot be run on random numbers: ")


def test_another_model_is_no_forward_pass(explained: Path) -> None:
    other = saved(net("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"), explained.with_name("other.onnx"))
    result = program("bench", explained, "--against", other, "--runs", 1, "--turns", 1)
    assert (result.exit_code, result.stderr) == (
        1,
        "OnnxplainError: measuring other.onnx failed: input 'x' takes float32 (N, 4), which the explained model does "
        "not have: it was not compiled from this one.\n  Name the model that it was compiled from with --against.\n",
    )


def test_time_is_summed_by_operator_and_by_layer() -> None:
    spent = Spent((Node("a", "Conv", False, 2.0), Node("a", "Conv", True, 3.0), Node("b", "Mul", True, 1.0)))
    assert spent.total() == (2.0, 4.0)
    assert spent.operators() == [("Conv", (2.0, 3.0, 2)), ("Mul", (0.0, 1.0, 1))]
    assert spent.layers() == [("a", (2.0, 3.0)), ("b", (0.0, 1.0))]


def test_kernels_of_a_card_are_waited_for(explained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else their launches are timed, which are over at once."""
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "")  # gone again when the test is over
    monkeypatch.delenv("CUDA_LAUNCH_BLOCKING")
    assert program("profile", explained, "--runs", 1).exit_code == 0
    assert "CUDA_LAUNCH_BLOCKING" not in os.environ
    assert program("profile", explained, "--runs", 1, "--provider", "auto").exit_code == 0
    assert os.environ["CUDA_LAUNCH_BLOCKING"] == "1"


def test_cuda_graphs_are_not_profiled(explained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxplain.runtime.profile.records", lambda _: True)
    result = program("profile", explained)
    assert (result.exit_code, result.stderr) == (
        2, "UsageError: a CUDA graph is one launch, without nodes to time.\n  Leave enable_cuda_graph out.\n"
    )  # fmt: skip


@pytest.mark.parametrize("command", ["bench", "profile"])
def test_options_of_cuda_are_names_and_values(explained: Path, command: str) -> None:
    result = program(command, explained, "--cuda", "prefer_nhwc")
    assert result.exit_code == 2
    assert result.stderr.startswith("UsageError: --cuda takes NAME=VALUE")


@pytest.mark.gpu
def test_bench_and_profile_on_a_card(explained: Path) -> None:
    lacking = why_no_cuda()
    if lacking:
        pytest.skip(lacking.splitlines()[0])
    onnxplain.compile_file(explained.with_name("model.onnx"), explained, "gradient", runtime="cuda")
    given = (explained, "--provider", "cuda", "--cuda", "use_tf32=0")
    for graph in (0, 1):
        result = program("bench", *given, "--cuda", f"enable_cuda_graph={graph}", "--turns", 1, "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)[0]["ratios"][0] > 0
    result = program("profile", *given)
    assert result.exit_code == 0, result.stderr
