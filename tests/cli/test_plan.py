from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from onnx import numpy_helper

from tests.cli.program import listing, program
from tests.runtime.tiny import classifier, saved, text


def test_every_node_and_its_rule(tmp_path: Path) -> None:
    model = saved(classifier(), tmp_path / "model.onnx")
    before = listing(tmp_path)
    result = program("plan", model, "--method", "guided-backprop")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split() for line in result.stdout.splitlines()]
    for row in (
        ["conv", "Conv", "derivative"],
        ["relu", "Relu", "guided"],
        ["pool", "GlobalAveragePool", "derivative"],
        ["linear", "Gemm", "derivative"],
    ):
        assert row in rows
    assert "model.onnx: 'logits' by 'pixels'" in result.stdout
    assert listing(tmp_path) == before


def test_a_method_of_activations_names_its_layer_and_walks_no_further(tmp_path: Path) -> None:
    model = saved(classifier(), tmp_path / "model.onnx")
    found = json.loads(program("plan", model, "--method", "grad-cam", "--json").stdout)
    (plan,) = found["plans"]
    assert [layer["node"] for layer in plan["layers"] if layer["chosen"]] == ["relu"]
    assert "conv" in [layer["node"] for layer in plan["layers"]]
    assert plan["steps"][0]["node"] == "pool"
    other = json.loads(program("plan", model, "--method", "grad-cam", "--layer", "conv", "--json").stdout)["plans"][0]
    assert [layer["node"] for layer in other["layers"] if layer["chosen"]] == ["conv"]
    assert other["steps"][0]["node"] == "relu"


def test_where_nothing_is_propagated_it_says_so(tmp_path: Path) -> None:
    result = program("plan", saved(classifier(), tmp_path / "model.onnx"), "--method", "fem")
    assert result.exit_code == 0
    assert "nothing is propagated back" in result.stdout


def test_what_is_unsupported_is_marked_and_the_status_says_so(tmp_path: Path) -> None:
    graph = "g (float[N,4] x) => (float[N,4] y) { [noise] b = Bernoulli(x) [relu] r = Relu(b) [more] y = Bernoulli(r) }"
    model = saved(text(graph), tmp_path / "model.onnx")
    result = program("plan", model, "--method", "gradient")
    assert result.exit_code == 1
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["noise", "Bernoulli", "no", "rule"] in rows
    assert ["more", "Bernoulli", "no", "rule"] in rows
    assert ["relu", "Relu", "derivative"] in rows
    assert result.stderr == (
        "UnsupportedOp: gradient has no rule for 'Bernoulli' (node 'more').\n"
        "  It lies between 'x' and the score 'y', so a rule is needed.\n"
        "  The same holds for Bernoulli (noise).\n"
        "  Run `onnxplain plan` to see every node and its rule.\n"
    )
    steps = json.loads(program("plan", model, "--method", "gradient", "--json").stdout)["plans"][0]["steps"]
    assert [step["blocked"] for step in steps] == ["no rule", "", "no rule"]


def test_what_the_passes_did_is_listed(tmp_path: Path) -> None:
    model = classifier()
    model.opset_import[0].version = 13
    found = json.loads(program("plan", saved(model, tmp_path / "m.onnx"), "--method", "gradient", "--json").stdout)
    assert ("ConvertOpset", 1) in [(done["name"], done["changed"]) for done in found["passes"]]


HALF_KNOWN = """g (float[N,3,8,8] x) => (float[N,6] y) <float[6,3,3,3] w> {
    [conv] c = Conv<pads = [1,1,1,1]>(x, w) [relu] r = Relu(c) [pool] p = GlobalAveragePool(r)
    [flat] f = Flatten(p) [odd] y = Bernoulli(f) }"""


def test_where_a_method_is_refused_those_that_would_work_are_named(tmp_path: Path) -> None:
    half = text(HALF_KNOWN)
    weights = np.random.default_rng(0).standard_normal((6, 3, 3, 3)).astype(np.float32)
    half.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    model = saved(half, tmp_path / "model.onnx")
    result = program("plan", model, "--method", "gradient")
    assert result.exit_code == 1
    assert "\nwould work: fem\n" in result.stdout
    found = json.loads(program("plan", model, "--method", "gradient", "--json").stdout)
    assert found["would_work"] == ["fem"]


def test_where_nothing_works_it_says_so_and_where_all_is_well_it_says_nothing(tmp_path: Path) -> None:
    graph = "g (float[N,4] x) => (float[N,4] y) { [a] b = Bernoulli(x) [c] y = Bernoulli(b) }"
    result = program("plan", saved(text(graph), tmp_path / "odd.onnx"), "--method", "gradient")
    assert "would work: no method" in result.stdout
    fine = program("plan", saved(classifier(), tmp_path / "fine.onnx"), "--method", "gradient", "--json")
    assert "would_work" not in json.loads(fine.stdout)


def test_every_unknown_operator_is_named_at_once(tmp_path: Path) -> None:
    graph = "g (float[N,4] x) => (float[N,4] y) { [a] b = lab.Odd(x) [r] c = Relu(b) [d] y = lab.Odder(c) }"
    result = program("plan", saved(text(graph), tmp_path / "model.onnx"), "--method", "gradient")
    assert result.exit_code == 1
    assert "no rule for 'Odd' of domain 'lab' (node 'a')" in result.stderr
    assert "The same holds for Odder (d)." in result.stderr


def test_why_a_node_could_not_be_spelled_out_is_said(tmp_path: Path) -> None:
    """A GRU over a sequence whose length nobody knows."""
    graph = """g (float[N,S,3] x) => (float[N,4] y) <float[1,12,3] w, float[1,12,4] r> {
        [first] t = Transpose<perm = [1,0,2]>(x) [cell] a, e = GRU<hidden_size = 4>(t, w, r)
        [last] y = ReduceSum<keepdims = 0>(e, axis) }"""
    model = text(graph)
    for name, value in (("w", np.ones((1, 12, 3))), ("r", np.ones((1, 12, 4)))):
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray([0]), "axis"))
    result = program("plan", saved(model, tmp_path / "model.onnx"), "--method", "gradient", "--json")
    assert result.stdout, result.stderr
    steps = {step["node"]: step["blocked"] for step in json.loads(result.stdout)["plans"][0]["steps"]}
    why = "how long its sequences are is known only at run time, and its derivative is taken step by step."
    assert steps == {"first": "", "cell": f"no rule: {why}", "last": ""}
    assert result.stderr == (
        f"UnsupportedOp: gradient has no rule for 'GRU' (node 'cell'): {why}\n"
        "  Export the model with a sequence length that is fixed.\n"
        "  It lies between 'x' and the score 'y', so a rule is needed.\n"
        "  Run `onnxplain plan` to see every node and its rule.\n"
    )


FREE_SIZES = """g (float[N,3,H,W] x) => (float[N,3] y) <float[6,3,3,3] w> {
    [conv] c = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w) [relu] r = Relu(c)
    [larger] u = ConvTranspose<output_shape = [9, 9]>(r, w) [pool] p = GlobalAveragePool(u) [flat] y = Flatten(p) }"""


def test_forms_that_a_rule_does_not_take_are_all_named(tmp_path: Path) -> None:
    free = text(FREE_SIZES)
    weights = np.random.default_rng(0).standard_normal((6, 3, 3, 3)).astype(np.float32)
    free.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    result = program("plan", saved(free, tmp_path / "model.onnx"), "--method", "lrp-eps", "--json")
    found = json.loads(result.stdout)
    assert {step["node"]: step["blocked"] for step in found["plans"][0]["steps"]} == {
        "conv": "with auto_pad=SAME_UPPER and sizes known only at run time.",
        "relu": "",
        "larger": "with output_shape and sizes known only at run time.",
        "pool": "",
        "flat": "",
    }
    assert "fem" in found["would_work"]
    assert result.stderr.endswith("\n  Export the model with fixed sizes for all axes but the batch.\n")


def test_where_a_method_finds_no_layer_others_are_named(tmp_path: Path) -> None:
    graph = "g (float[N,4] x) => (float[N,4] y) { [a] b = Tanh(x) [c] y = Softplus(b) }"
    result = program("plan", saved(text(graph), tmp_path / "model.onnx"), "--method", "grad-cam")
    assert result.exit_code == 1
    assert "\ngrad-cam\n  refused\n\nwould work: gradient, gradient-x-input," in result.stdout
    assert result.stderr.startswith("UnsupportedModel: between 'x' and 'y' no layer with spatial extent")


def test_where_a_method_finds_no_layer_those_that_may_be_named_are_listed(tmp_path: Path) -> None:
    """Every pixel is computed by itself, so that none counts more than the one that is asked for."""
    graph = """g (float[N,3,4,4] x) => (float[N,2,4,4] y) <float[2,3,1,1] w = {1,2,3,4,5,6}>
        { [first] a = Tanh(x) [conv] y = Conv(a, w) }"""
    model = saved(text(graph), tmp_path / "model.onnx")
    result = program("plan", model, "--method", "grad-cam", "--at", "1,1")
    assert result.exit_code == 1
    assert [line.split()[:2] for line in result.stdout.splitlines() if "(N, " in line] == [
        ["first", "Tanh"],
        ["conv", "Conv"],
    ]
    assert "  refused\n" in result.stdout
    assert "Name the layer to tap with --layer; `onnxplain plan` lists what there is." in result.stderr
    assert program("plan", model, "--method", "grad-cam", "--at", "1,1", "--layer", "conv").exit_code == 0


def test_a_node_is_named_as_the_model_names_it_on_paths_too(tmp_path: Path) -> None:
    graph = "g (float[N,4] x) => (float[N,4] y) { [noise] b = Bernoulli(x) [relu] y = Softplus(b) }"
    result = program("plan", saved(text(graph), tmp_path / "model.onnx"), "--method", "smoothgrad")
    assert "has no rule for 'Bernoulli' (node 'noise').\n  It lies between 'x' and the score 'y'" in result.stderr


def test_preprocessing_tells_the_box_rule_its_bounds(tmp_path: Path) -> None:
    model = saved(classifier(), tmp_path / "model.onnx")
    unsaid = program("plan", model, "--method", "lrp-composite")
    assert unsaid.exit_code == 2
    assert "--preprocess" in unsaid.stderr
    own = ("--scale", 1, "--mean", "120,115,100", "--std", "60,58,57", "--order", "bgr")
    for how in (("--preprocess", "unit"), own):
        planned = program("plan", model, "--method", "lrp-composite", *how)
        assert planned.exit_code == 0, planned.stderr
        assert "box" in planned.stdout
