"""A composite from a TOML file: what it means, and what is said when it means nothing."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnxplain.compiler import compile_model
from onnxplain.errors import UsageError
from onnxplain.methods import named
from tests.catalogue import REPOSITORY, pixels
from tests.rules.lrp.small import opened, small
from tests.running import run

Floats = NDArray[np.float32]
X = pixels(2, 0, (1, 8, 8))
BOUNDS = {"low": "0", "high": "1"}


@cache
def model() -> onnx.ModelProto:
    """Three convolutions, two of them into a sum, pools of both kinds, two dense layers; named as exporters do."""
    body = """<int64[2] flat = {-1, 16}>
        a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1) b = Relu(a) c = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(b)
        d = Conv<pads = [1, 1, 1, 1]>(c, w2, b2) e = Conv(c, w3) f = Add(d, e) g = Relu(f)
        h = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(g) i = Reshape(h, flat)
        j = Gemm(i, w4, b4) k = Relu(j) y = Gemm(k, w5, b5)"""
    rng = np.random.default_rng(0)
    shapes = {"w1": (4, 1, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "b2": (4,), "w3": (4, 4, 1, 1), "w4": (16, 5),
              "b4": (5,), "w5": (5, 3), "b5": (3,)}  # fmt: skip
    made = small(" ".join(body.split()), (2, 1, 8, 8), {k: 0.5 * rng.standard_normal(s) for k, s in shapes.items()})
    names = {"a": "stem", "d": "block/main", "e": "block/shortcut", "j": "head/hidden", "y": "head/scores"}
    for node in made.graph.node:
        node.name = names.get(node.output[0], node.output[0])
    return made


def explained(path: Path, text: str, **how: Any) -> Floats:
    file = path / "mine.toml"
    file.write_text(text)
    return run(compile_model(model(), "lrp", composite=str(file), **how), X)["attribution"]


SAME = {
    "lrp-epsilon-plus": """
        [[rule]]
        layer = "conv"
        rule = "z-plus"
        [[rule]]
        layer = "dense"
        rule = "epsilon"
        """,
    "lrp-epsilon-alpha2-beta1-flat": """
        [[rule]]
        layer = "any"
        first = true
        rule = "flat"
        [[rule]]
        op = ["Conv", "ConvTranspose"]
        rule = "alpha-beta"
        [[rule]]
        op = "Gemm"
        rule = "epsilon"
        eps = 1e-6
        """,
    "lrp-epsilon-gamma-box": """
        [[rule]]
        name = "st?m"
        rule = "box"
        [[rule]]
        name = "block/*"
        rule = "gamma"
        gamma = 0.25
        [[rule]]
        name = "head/*"
        rule = "epsilon"
        """,
    "lrp-composite": """
        [[rule]]
        layer = "conv"
        first = true
        rule = "box"
        [[rule]]
        name = "block/main"
        rule = "gamma"
        [[rule]]
        name = "block/shortcut"
        rule = "relative-epsilon"
        share = 0.25
        [[rule]]
        layer = "any"
        rule = "zero"
        """,
    "lrp-alphabeta": """
        [[rule]]
        layer = "any"
        rule = "alpha-beta"
        alpha = 2
        beta = 1.0
        """,
    "excitation-backprop": """
        [[rule]]
        layer = "any"
        rule = "z-plus"
        bias = false
        """,
}


@pytest.mark.parametrize("method", SAME)
def test_the_same_as_built_in(method: str, tmp_path: Path) -> None:
    bounds = BOUNDS if "box" in SAME[method] else {}
    want = run(compile_model(model(), method, **bounds), X)["attribution"]
    assert np.array_equal(explained(tmp_path, SAME[method], **bounds), want)


def test_the_first_line_that_matches_counts(tmp_path: Path) -> None:
    text = """
        [[rule]]
        name = "block/*"
        op = "Conv"
        rule = "w-square"
        [[rule]]
        layer = "any"
        rule = "epsilon"
        eps = 0.25
        bias = false
        [[rule]]
        layer = "any"
        rule = "flat"
        """
    file = tmp_path / "mine.toml"
    file.write_text(f'name = "my own"\n{text}')
    method = named("lrp")
    assert method.composite is not None
    table = method.composite(method.settings({"composite": str(file)}))
    _, seen = opened(model())
    assert table.name == "my own"
    assert {site.name: table.label_for(site) for site in seen.sites} == {
        "stem": "epsilon eps=0.25 bias=false",
        "b": "pass",
        "c": "winner",
        "block/main": "w-square",
        "block/shortcut": "w-square",
        "f": "share (eps 1e-06)",
        "g": "pass",
        "h": "share (eps 1e-06)",
        "i": "route",
        "head/hidden": "epsilon eps=0.25 bias=false",
        "k": "pass",
        "head/scores": "epsilon eps=0.25 bias=false",
    }


def test_sums_and_activations_can_be_named_too(tmp_path: Path) -> None:
    """Here as they are by default, but for the sum, which absorbs."""
    text = """
        [[rule]]
        op = ["Relu", "MaxPool", "AveragePool"]
        rule = "epsilon"
        [[rule]]
        op = "Add"
        rule = "epsilon"
        eps = EPS
        [[rule]]
        layer = "any"
        rule = "zero"
        """
    want = run(compile_model(model(), "lrp-0"), X)["attribution"]
    same, absorbed = (explained(tmp_path, text.replace("EPS", eps)) for eps in ("1e-6", "2.0"))
    assert np.linalg.norm(same - want) <= 1e-4 * np.linalg.norm(want)
    assert np.linalg.norm(absorbed) < 0.9 * np.linalg.norm(want)


@pytest.mark.parametrize("rule", ["zero", "epsilon"])
def test_each_part_of_a_split_shares_by_itself(rule: str, tmp_path: Path) -> None:
    """x r / (x + eps sign x) at every element, by numpy in float64; the third part leads nowhere."""
    rng = np.random.default_rng(1)
    w, x = rng.standard_normal((2, 3)), rng.standard_normal((2, 6)).astype(np.float32)
    proto = small(
        "<int64[3] parts = {2, 2, 2}> a, b, c = Split<axis = 1>(x, parts) d = Relu(a) e = Tanh(b) f = Add(d, e) "
        "y = MatMul(f, w)",
        (2, 6),
        {"w": w},
    )
    eps = 0.5 if rule == "epsilon" else 0
    (tmp_path / "mine.toml").write_text(
        f'[[rule]]\nop = "Split"\nrule = "{rule}"\n{"eps = 0.5" if eps else ""}\n[[rule]]\nlayer="any"\nrule="zero"'
    )
    have = run(compile_model(proto, "lrp", composite=str(tmp_path / "mine.toml"), target=1), x)["attribution"]
    a, b, _ = np.split(x.astype(np.float64), 3, axis=1)
    d, e = np.maximum(a, 0), np.tanh(b)
    arrived = np.concatenate([d * w[:, 1], e * w[:, 1], 0 * a], axis=1)
    want = x * arrived / (x + eps * np.where(x < 0, -1, 1))
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=2e-6)


def test_what_no_line_names_is_refused_where_it_needs_a_rule(tmp_path: Path) -> None:
    """A layer with weights has no default. In particular no matrix product passes for one of two signals."""
    with pytest.raises(Exception, match="mine has no rule for 'Gemm' \\(node 'head/scores'\\)"):
        explained(tmp_path, '[[rule]]\nlayer = "conv"\nrule = "z-plus"')
    product = small("y = MatMul(x, w)", (2, 4), {"w": np.ones((4, 3))})
    (tmp_path / "conv.toml").write_text('[[rule]]\nlayer = "conv"\nrule = "z-plus"')
    with pytest.raises(Exception, match="conv has no rule for 'MatMul'"):
        compile_model(product, "lrp", composite=str(tmp_path / "conv.toml"))


RULES = (
    "The rules are: zero, epsilon, relative-epsilon, gamma, alpha-beta, z-plus, box, w-square, flat, pass."
)  # fmt: skip
WRONG = {
    "a rule that there is not": (
        '[[rule]]\nlayer = "any"\nrule = "epsilom"',
        "mine.toml, line 3, column 8: there is no rule 'epsilom'. Did you mean 'epsilon' or 'relative-epsilon'? "
        f"{RULES}"),
    "in the second table": (
        '# mine\n\n[[rule]]\nop = "Conv"\nrule = "flat"\n\n[[ rule ]]\nop = "Gemm"\n   rule   =   "sum"',
        f"mine.toml, line 9, column 15: there is no rule 'sum'. {RULES}"),
    "no rule": ('[[rule]]\nlayer = "any"', f"mine.toml, line 1, column 1: this table names no rule. {RULES}"),
    "a rule that is no text": (
        '[[rule]]\nlayer = "any"\nrule = ["flat"]',
        f"mine.toml, line 3, column 8: there is no rule \"['flat']\". Did you mean 'flat'? {RULES}"),
    "a parameter that the rule has not": (
        '[[rule]]\nlayer = "any"\nrule = "gamma"\nalpha = 2',
        "mine.toml, line 4, column 9: rule 'gamma' has no parameter 'alpha'. The parameters are: gamma, eps."),
    "a parameter of a rule without": (
        '[[rule]]\nlayer = "any"\nrule = "zero"\neps = 2',
        "mine.toml, line 4, column 7: rule 'zero' has no parameter 'eps'. There are no parameters."),
    "a parameter that is no number": (
        '[[rule]]\nlayer = "any"\nrule = "gamma"\ngamma = "much"',
        "mine.toml, line 4, column 9: gamma must be a number, not 'much'."),
    "a truth value that is a number": (
        '[[rule]]\nlayer = "any"\nrule = "z-plus"\nbias = 0',
        "mine.toml, line 4, column 8: bias must be true or false, not 0."),
    "a number that is a truth value": (
        '[[rule]]\nlayer = "any"\nrule = "z-plus"\neps = true',
        "mine.toml, line 4, column 7: eps must be a number, not True."),
    "a negative parameter": (
        '[[rule]]\nlayer = "any"\nrule = "gamma"\ngamma = -0.5',
        "mine.toml, line 4, column 9: gamma must be at least 0, not -0.5."),
    "an infinite parameter": (
        '[[rule]]\nlayer = "any"\nrule = "gamma"\ngamma = inf',
        "mine.toml, line 4, column 9: gamma must be finite, not inf."),
    "alpha and beta that do not conserve": (
        '[[rule]]\nlayer = "any"\nrule = "alpha-beta"\nalpha = 3',
        "mine.toml, line 3, column 8: alpha=3, beta=1: relevance is conserved only for alpha = beta + 1."),
    "no place": ('[[rule]]\nrule = "flat"', "mine.toml, line 2, column 8: a rule needs a place: op, name or layer."),
    "an operator that there is not": (
        '[[rule]]\nop = ["Conv", "Conv2d"]\nrule = "flat"',
        "mine.toml, line 2, column 6: there is no operator 'Conv2d'."),
    "an operator that no relevance arrives at": (
        '[[rule]]\nop = "Sign"\nrule = "flat"',
        "mine.toml, line 2, column 6: no relevance arrives at 'Sign', which has no derivative."),
    "an operator that is no text": (
        '[[rule]]\nop = 3\nrule = "flat"', "mine.toml, line 2, column 6: op cannot be 3."),
    "a layer that there is not": (
        '[[rule]]\nlayer = "linear"\nrule = "flat"',
        "mine.toml, line 2, column 9: there is no layer 'linear'. The layers are: conv, dense, any."),
    "first that is no truth value": (
        '[[rule]]\nlayer = "any"\nfirst = "yes"\nrule = "flat"', "mine.toml, line 3, column 9: first cannot be 'yes'."),
    "a rule for layers with weights elsewhere": (
        '[[rule]]\nop = "MaxPool"\nrule = "gamma"',
        "mine.toml, line 3, column 8: rule 'gamma' is for layers with weights, not for MaxPool 'c'."),
    "a box that is not first": (
        '[[rule]]\nname = "block/*"\nrule = "box"',
        "mine.toml, line 3, column 8: rule 'box' is for layers with weights that have no other before them, "
        "not for Conv 'block/main'."),
    "pass where the shape changes": (
        '[[rule]]\nop = "Gemm"\nrule = "pass"',
        "mine.toml, line 3, column 8: rule 'pass' is for operators with one signal that keep its shape and every "
        "element's place, not for Gemm 'head/hidden'."),
    "pass where there are two signals": (
        '[[rule]]\nop = "Add"\nrule = "pass"',
        "mine.toml, line 3, column 8: rule 'pass' is for operators with one signal that keep its shape and every "
        "element's place, not for Add 'f'."),
    "a name that no node has": (
        '[[rule]]\nlayer = "dense"\nrule = "zero"\n[[rule]]\nname = "haed/*"\nop = "Gemm"\nrule = "gamma"',
        "mine.toml, line 5, column 8: no node between the input and the score has op = 'Gemm', name = 'haed/*'.\n"
        "  `onnxplain plan` lists their names; what became part of a layer, such as a batch norm, is not among them."),
    "no TOML": ("[[rule]\n", "composite file mine.toml is not TOML: "),
    "no tables": ('name = "empty"', "composite file mine.toml has no [[rule]] tables; each names a place and a rule."),
    "one table instead of several": (
        '[rule]\nop = "Conv"', "composite file mine.toml has no [[rule]] tables; each names a place and a rule."),
}  # fmt: skip


PRODUCTS = """<int64[2] rows = {-1, 4}> s = Reshape(x, rows) a = MatMul(s, w) b = Add(a, c) d = Relu(b)
    e = MatMul(d, v) f = Relu(e) y = Gemm(f, u, c)"""


@pytest.mark.parametrize(
    "place", ['op = "MatMul"', 'op = "Gemm"', 'op = ["Conv", "MatMul"]', 'name = "hidden"\nop = "MatMul"']
)
def test_a_product_keeps_its_operator_and_its_name_where_a_bias_joined_it(place: str, tmp_path: Path) -> None:
    """In the user's file the first layer is a MatMul, here a Gemm: either word means it."""
    rng = np.random.default_rng(2)
    proto = small(
        " ".join(PRODUCTS.split()), (2, 4), {k: rng.standard_normal((4, 4)) for k in "wvu"} | {"c": np.ones(4)}
    )
    proto.graph.node[1].name = "hidden"
    x = rng.standard_normal((2, 4)).astype(np.float32)

    def compiled(text: str) -> Floats:
        (tmp_path / "mine.toml").write_text(f'{text}[[rule]]\nlayer = "any"\nrule = "zero"')
        return run(compile_model(proto, "lrp", composite=str(tmp_path / "mine.toml"), target=1), x)["attribution"]

    have = compiled(f'[[rule]]\n{place}\nrule = "gamma"\n')
    everywhere = run(compile_model(proto, "lrp-gamma", target=1), x)["attribution"]
    want = compiled('[[rule]]\nname = "hidden"\nrule = "gamma"\n') if "name" in place else everywhere
    np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)
    assert np.abs(have - compiled("")).max() > 1e-3


def test_an_operator_or_a_layer_that_there_is_not_is_for_other_models(tmp_path: Path) -> None:
    text = '[[rule]]\nop = "ConvTranspose"\nrule = "gamma"\n[[rule]]\nlayer = "any"\nrule = "zero"'
    want = run(compile_model(model(), "lrp-0"), X)["attribution"]
    np.testing.assert_allclose(explained(tmp_path, text), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("body", [
    "t = Transpose<perm = [0, 2, 1]>(x)",
    "<int64[1] s = {-1}, int64[1] e = {-9}, int64[1] a = {1}> t = Slice(x, s, e, a, s)",
    "<int64[3] i = {2, 0, 1}> t = Gather<axis = 1>(x, i)",
], ids=["turned", "mirrored", "mixed"])  # fmt: skip
def test_nothing_passes_through_what_moves_elements(body: str, tmp_path: Path) -> None:
    """What arrives would stay where it was, at places whose values went elsewhere."""
    proto = small(f"{body} f = Flatten(t) y = MatMul(f, w)", (2, 3, 3), {"w": np.ones((9, 2))})
    proto.graph.node[0].name = "moved"
    (tmp_path / "mine.toml").write_text('[[rule]]\nname = "moved"\nrule = "pass"\n[[rule]]\nlayer="any"\nrule="zero"')
    with pytest.raises(UsageError) as error:
        compile_model(proto, "lrp", composite=str(tmp_path / "mine.toml"))
    assert str(error.value) == (
        "mine.toml, line 3, column 8: rule 'pass' is for operators with one signal that keep its shape and every "
        f"element's place, not for {proto.graph.node[0].op_type} 'moved'."
    )


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_and_where(text: str, message: str, tmp_path: Path) -> None:
    complete = text + '\n[[rule]]\nlayer = "any"\nrule = "zero"' if "[[rule]]\nrule" not in text else text
    complete = text if message.endswith(("is not TOML: ", "a rule.")) else complete
    with pytest.raises(UsageError) as error:
        explained(tmp_path, complete, **BOUNDS)
    assert str(error.value).startswith(message)
    assert message.endswith(("is not TOML: ", "'Conv2d'.")) or str(error.value) == message


def test_epsilon_for_what_is_no_sum(tmp_path: Path) -> None:
    proto = small("a = Softmax(x) y = MatMul(a, w)", (2, 4), {"w": np.ones((4, 3))})
    proto.graph.node[0].name = "attention"
    (tmp_path / "mine.toml").write_text(
        '[[rule]]\nop = "Softmax"\nrule = "epsilon"\n[[rule]]\nlayer="any"\nrule="zero"'
    )
    with pytest.raises(UsageError) as error:
        compile_model(proto, "lrp", composite=str(tmp_path / "mine.toml"))
    assert str(error.value) == (
        "mine.toml, line 3, column 8: rule 'epsilon' is for layers with weights, sums and pools, "
        "not for Softmax 'attention'."
    )


def test_no_file(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    with pytest.raises(UsageError) as error:
        compile_model(model(), "lrp", composite=missing)
    assert str(error.value) == f"there is no composite file {missing}."
    with pytest.raises(UsageError) as error:
        compile_model(model(), "lrp")
    assert str(error.value) == (
        "method lrp needs a composite: --composite FILE.toml. Other lrp-* methods have theirs built in."
    )
    with pytest.raises(UsageError, match="cannot be read"):
        compile_model(model(), "lrp", composite=str(tmp_path))
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(UsageError, match=r"composite file .* cannot be read"):
        compile_model(model(), "lrp", composite=str(tmp_path / "latin.toml"))


def test_the_example_in_the_docs(tmp_path: Path) -> None:
    """docs/lrp.md shows a composite: flat, then gamma, then epsilon."""
    page = (REPOSITORY / "docs" / "lrp.md").read_text()
    example = page.split("```toml\n")[1].split("```")[0]
    by_name = """
        [[rule]]
        name = "stem"
        rule = "flat"
        [[rule]]
        name = "block/*"
        rule = "gamma"
        gamma = 0.5
        [[rule]]
        op = "Gemm"
        rule = "epsilon"
        eps = 0.001
        """
    assert np.array_equal(explained(tmp_path, example), explained(tmp_path, by_name))
