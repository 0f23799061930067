"""Every kind of bad input, with the exit status, the whole message, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto

from tests.cli.program import listing, program
from tests.runtime.tiny import classifier, saved, text, with_external_data

METHODS = "gradient, gradient-x-input"


def compiling(*more: str) -> list[str]:
    return ["compile", "{folder}/model.onnx", "--method", "gradient", *more]


def put(graph: str | ModelProto | bytes | None) -> Callable[[Path], None]:
    """Makes model.onnx: of a text, a model, or bytes; nothing of None."""

    def make(folder: Path) -> None:
        if isinstance(graph, bytes):
            (folder / "model.onnx").write_bytes(graph)
        elif graph is not None:
            saved(text(graph) if isinstance(graph, str) else graph, folder / "model.onnx")

    return make


def as_folder(folder: Path) -> None:
    (folder / "model.onnx").mkdir()


def truncated(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(classifier().SerializeToString()[:618])


def missing_data(folder: Path) -> None:
    with_external_data(folder, "weights.bin")
    (folder / "weights.bin").unlink()


def short_data(folder: Path) -> None:
    with_external_data(folder, "weights.bin")
    (folder / "weights.bin").write_bytes(b"too short")


def data_above(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    with_external_data(inner, "../secret.bin")
    (inner / "weights.bin").rename(folder / "secret.bin")


def data_behind_a_link(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    with_external_data(inner, "link.bin")
    (inner / "weights.bin").rename(folder / "secret.bin")
    (inner / "link.bin").symlink_to(folder / "secret.bin")


TWO_OUTPUTS = """g (float[N,4] x) => (float[N,4] first, float[N,8] second)
{ first = Relu(x) second = Concat<axis=1>(x, first) }"""

CASES: dict[str, tuple[Callable[[Path], None], list[str], int, str]] = {
    "missing": (
        put(None),
        compiling(),
        1,
        "BadModel: there is no file {folder}/model.onnx.\n  Check the path of the model.",
    ),
    "folder": (
        as_folder,
        compiling(),
        1,
        "BadModel: {folder}/model.onnx is a folder, not a model file.\n  Name the .onnx file inside it.",
    ),
    "no model": (
        put(b"<html>404 Not Found</html>"),
        compiling(),
        1,
        "BadModel: model.onnx is not an ONNX model, or it is truncated: its 26 bytes do not parse.\n"
        "  Check that the download is complete and that the file is an .onnx export.",
    ),
    "empty": (
        put(b""),
        compiling(),
        1,
        "BadModel: model.onnx is not an ONNX model: it has no graph with nodes, outputs and an opset.\n"
        "  Check that the file is an .onnx export and not weights or a checkpoint.",
    ),
    "truncated": (
        truncated,
        compiling(),
        1,
        "BadModel: model.onnx is not an ONNX model, or it is truncated: its 618 bytes do not parse.\n"
        "  Check that the download is complete and that the file is an .onnx export.",
    ),
    "dangling": (
        put("g (float[N,4] x) => (float[N,4] y) { y = Add(x, w) }"),
        compiling(),
        1,
        "BadModel: model.onnx is broken: node 'y' (Add) uses a tensor 'w', which no input, weight or earlier node "
        "provides.\n  Check the model with onnx.checker, or export it again.",
    ),
    "external data missing": (
        missing_data,
        compiling(),
        1,
        "BadModel: external data of weight 'kernel' is missing: there is no file 'weights.bin' beside the model.\n"
        "  Copy it into the model's folder; the .onnx file alone holds no weights.",
    ),
    "external data too short": (
        short_data,
        compiling(),
        1,
        "BadModel: external data 'weights.bin' is too short for weight 'kernel': 648 bytes are needed at offset 0, the "
        "file has 9.\n  The file is truncated or belongs to another model.",
    ),
    "external data above the folder": (
        data_above,
        ["compile", "{folder}/inner/model.onnx", "--method", "gradient"],
        1,
        "BadModel: weight 'kernel' names external data outside the model's folder: '../secret.bin'.\n"
        "  Such a file is not read. Move the data beside the model and save the model again.",
    ),
    "external data behind a link": (
        data_behind_a_link,
        ["compile", "{folder}/inner/model.onnx", "--method", "gradient"],
        1,
        "BadModel: weight 'kernel' names external data outside the model's folder: 'link.bin'.\n"
        "  Such a file is not read. Move the data beside the model and save the model again.",
    ),
    "several outputs": (
        put(TWO_OUTPUTS),
        compiling(),
        2,
        "UsageError: model.onnx has 2 outputs: first (N, 4), second (N, 8).\n  Say which to explain: --output NAME.",
    ),
    "no such output": (
        put(TWO_OUTPUTS),
        compiling("--output", "frist"),
        2,
        "UsageError: model.onnx has no output 'frist'. Did you mean 'first'? The outputs are: first, second.",
    ),
    "several inputs": (
        put("g (float[N,4] a, float[N,4] b) => (float[N,4] y) { y = Add(a, b) }"),
        compiling(),
        2,
        "UsageError: model.onnx has 2 inputs: a float32, b float32.\n  Say which to explain: --input NAME.",
    ),
    "no such input": (
        put("g (float[N,4] a, float[N,4] b) => (float[N,4] y) { y = Add(a, b) }"),
        compiling("--input", "c"),
        2,
        "UsageError: model.onnx has no input 'c'. The inputs are: a, b.",
    ),
    "no classes": (
        put("g (float[N,3,8,8] x) => (float[N,3,8,8] mask) { mask = Relu(x) }"),
        compiling(),
        2,
        "UsageError: the scores 'mask' have shape (N, 3, 8, 8): classes along axis 1, and a score each for every "
        "place along axes 2, 3.\n  Say which place to explain: --at 0,0 or the like, or --at mean for the mean over "
        "all. If another axis holds the classes, say --class-axis.",
    ),
    "unsupported operator": (
        put("g (float[N,4] pixels) => (float[N,4] logits) { [noise] b = Bernoulli(pixels) logits = Relu(b) }"),
        compiling(),
        1,
        "UnsupportedOp: gradient has no rule for 'Bernoulli' (node 'noise').\n"
        "  It lies between 'pixels' and the score 'logits', so a rule is needed.\n"
        "  Run `onnxplain plan` to see every node and its rule.",
    ),
    "unknown operator": (
        put("g (float[N,4] pixels) => (float[N,4] logits) { [foo] f = lab.Foo(pixels) logits = Relu(f) }"),
        compiling(),
        1,
        "UnsupportedOp: there is no rule for 'Foo' of domain 'lab' (node 'foo').\n"
        "  It lies before output 'logits'; neither its derivative nor what it returns is known.\n"
        "  Export the model with standard ONNX operators.",
    ),
    "integer input": (
        put("g (int64[N,4] tokens) => (float[N,4] y) { y = Cast<to=1>(tokens) }"),
        compiling(),
        1,
        "UnsupportedModel: input 'tokens' holds int64, and an attribution needs real numbers.\n"
        "  Export the model with a float input: do the conversion from integers before the graph, or choose a map of a "
        "layer, such as grad-cam.",
    ),
    "string input": (
        put("g (string[N,4] words) => (float[N,4] y) { y = lab.Embed(words) }"),
        compiling(),
        1,
        "UnsupportedModel: input 'words' holds strings, and an attribution needs real numbers.\n"
        "  Export the model with a float input: do the conversion from integers before the graph.",
    ),
    "class out of range": (
        put(classifier()),
        compiling("--target", "4"),
        2,
        "UsageError: class 4 is out of range: the model's classes are 0 to 3.",
    ),
    "no such target": (
        put(classifier()),
        compiling("--target", "best"),
        2,
        "UsageError: target 'best' is none of: top1, topk:K, input, or a class index from 0.",
    ),
    "more than there are": (
        put(classifier()),
        compiling("--target", "topk:5"),
        2,
        "UsageError: topk:5 asks for more classes than there are: the model has 4.",
    ),
    "unknown parameter": (
        put(classifier()),
        ["compile", "{folder}/model.onnx", "--method", "integrated-gradients", "--set", "step=3"],
        2,
        "UsageError: integrated-gradients has no parameter 'step'. Did you mean 'steps'? The parameters are: steps, "
        "quadrature, baseline, blur_sigma, chunk, construction.",
    ),
    "malformed parameter": (
        put(classifier()),
        compiling("--set", "steps"),
        2,
        "UsageError: --set takes NAME=VALUE, not 'steps'.",
    ),
    "parameter given twice": (
        put(classifier()),
        ["compile", "{folder}/model.onnx", "--method", "grad-cam", "--layer", "relu", "--set", "layer=conv"],
        2,
        "UsageError: parameter 'layer' is given twice.",
    ),
    "mean of another number of channels": (
        put(classifier()),
        compiling("--mean", "1,2"),
        2,
        "UsageError: preprocess: mean has 2 numbers, and the input has 3 channels: one, or one for each, is needed.",
    ),
    "deviation of another number of channels": (
        put(classifier(channels=1)),
        ["plan", "{folder}/model.onnx", "--method", "gradient", "--preprocess", "imagenet"],
        2,
        "UsageError: preprocess: mean has 3 numbers, and the input has 1 channels: one, or one for each, is needed.",
    ),
    "already compiled": (
        lambda folder: put_compiled(folder),
        compiling(),
        2,
        "UsageError: model.onnx is already compiled: it explains by gradient.\n"
        "  Compile the model that it was made from.",
    ),
    "over the model itself": (
        put(classifier()),
        compiling("-o", "{folder}/./model.onnx"),
        2,
        "UsageError: {folder}/model.onnx is the model itself, which would be overwritten.\n"
        "  Name another file with -o.",
    ),
    "into no folder": (
        put(classifier()),
        compiling("-o", "{folder}/none/out.onnx"),
        2,
        "UsageError: cannot write {folder}/none/out.onnx: there is no folder {folder}/none.\n  Make it first.",
    ),
}


def put_compiled(folder: Path) -> None:
    from onnxplain import compile_file

    compile_file(classifier(), folder / "model.onnx", "gradient")


@pytest.mark.parametrize("name", CASES)
def test_the_message_is_whole_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    make, arguments, status, message = CASES[name]
    make(tmp_path)
    before = listing(tmp_path)
    result = program(*(argument.format(folder=tmp_path) for argument in arguments))
    assert result.stderr == message.format(folder=tmp_path) + "\n"
    assert result.stdout == ""
    assert result.exit_code == status
    assert listing(tmp_path) == before


def test_an_unknown_method_is_named_with_the_nearest(tmp_path: Path) -> None:
    path = saved(classifier(), tmp_path / "model.onnx")
    result = program("compile", path, "--method", "guidedbackprop")
    assert result.exit_code == 2
    assert result.stderr.startswith("UsageError: there is no method 'guidedbackprop'. Did you mean 'guided-backprop'")
    assert f"The methods are: {METHODS}" in result.stderr


def test_the_output_that_is_named_is_explained(tmp_path: Path) -> None:
    path = saved(text(TWO_OUTPUTS), tmp_path / "model.onnx")
    result = program("compile", path, "--method", "gradient", "--output", "second")
    assert result.exit_code == 0, result.stderr
    compiled = onnx.load(tmp_path / "model.gradient.onnx")
    assert [o.name for o in compiled.graph.output][:2] == ["first", "second"]
    assert "explains  output 'second' by input 'x', target top1" in result.stdout


@pytest.mark.parametrize("command", ["compile", "plan"])
def test_no_name_is_no_model(command: str) -> None:
    result = program(command, "", "--method", "gradient")
    told = "BadModel: . is a folder, not a model file.\n  Name the .onnx file inside it.\n"
    assert (result.exit_code, result.stderr) == (1, told)


@pytest.mark.parametrize("command", ["compile", "plan"])
def test_options_that_do_not_exist_are_bad_usage(command: str) -> None:
    assert program(command, "model.onnx", "--no-such-option").exit_code == 2
    assert program(command).exit_code == 2
    assert program("no-such-command").exit_code == 2
