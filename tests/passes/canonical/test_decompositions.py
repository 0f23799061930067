"""What has no rule is spelled out exactly: original outputs kept, gradients those of the oracle."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedModel
from tests.running import assert_near, explained, net, operators, run

FORMS = [
    ("Attention", 23, "t = Attention(x, x, x)", (2, 5, 6), 60),
    ("Attention", 24, "t = Attention<is_causal = 1, softcap = 2.0>(x, x, x)", (2, 5, 6), 60),
    ("Attention", 25, "t = Attention<scale = 0.3>(x, x, x)", (2, 5, 6), 60),
    ("Attention", 23, "t = Attention<q_num_heads = 4, kv_num_heads = 4>(x, x, x)", (5, 12), 60),
    (
        "RMSNormalization", 23,
        "s = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>() t = RMSNormalization(x, s)", (3, 4), 12,
    ),
    ("Swish", 24, "t = Swish<alpha = 1.5>(x)", (3, 4), 12),
    ("Mish", 22, "t = Mish(x)", (3, 4), 12),
]  # fmt: skip


def model_of(opset: int, text: str, shape: tuple[int, ...], size: int, batch: str = "N") -> onnx.ModelProto:
    sizes = ",".join(map(str, (batch, *shape)))
    return net(
        f"g (float[{sizes}] x) => (float[{batch},{size}] y) {{ {text} y = Flatten(t) }}",
        opset,
        11 if opset > 22 else 10,
    )


def by_torch(op: str, text: str, x: torch.Tensor) -> torch.Tensor:
    if op == "Attention":
        heads = x if x.dim() == 4 else x.reshape(len(x), 5, 4, 3).transpose(1, 2)
        scores = heads @ heads.transpose(-1, -2) * (0.3 if "scale" in text else heads.shape[-1] ** -0.5)
        if "softcap" in text:
            scores = 2 * torch.tanh(scores / 2)
            scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
        y = scores.softmax(-1) @ heads
        return y if x.dim() == 4 else y.transpose(1, 2).reshape(x.shape)
    if op == "RMSNormalization":
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * torch.arange(1.0, 5, dtype=x.dtype)
    return x * torch.sigmoid(1.5 * x) if op == "Swish" else torch.nn.functional.mish(x)


@pytest.mark.parametrize(("op", "opset", "text", "shape", "size"), FORMS, ids=lambda v: str(v)[:40])
@pytest.mark.parametrize("batch", ["3", "N"])
def test_a_defined_operator_differentiates_like_torch(
    op: str, opset: int, text: str, shape: tuple[int, ...], size: int, batch: str
) -> None:
    model = model_of(opset, text, shape, size, batch)
    data: NDArray[np.float32] = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    results = explained(model, data)
    x = torch.from_numpy(data).double().requires_grad_()
    scores = by_torch(op, text, x).flatten(1)
    assert_near(results["y"], scores.detach().numpy(), 1e-6)
    best = torch.from_numpy(results["explained_class"])
    (want,) = torch.autograd.grad(scores.gather(1, best[:, None]).sum(), x)
    assert_near(results["attribution"], want.numpy(), 1e-5)


@pytest.mark.parametrize("method", ["lrp-eps", "deeplift-rescale", "guided-backprop"])
@pytest.mark.parametrize(("op", "opset", "text", "shape", "size"), FORMS, ids=lambda v: str(v)[:40])
def test_a_defined_operator_has_every_method(
    op: str, opset: int, text: str, shape: tuple[int, ...], size: int, method: str
) -> None:
    data = np.random.default_rng(1).standard_normal((2, *shape)).astype(np.float32)
    results = explained(model_of(opset, text, shape, size), data, method)
    assert np.isfinite(results["attribution"]).all()
    if method == "deeplift-rescale":
        assert np.abs(results["residual"]).max() <= 1e-4 * np.abs(results["explained_score"]).max()


def test_none_of_them_is_left_in_the_compiled_graph() -> None:
    compiled = compile_model(model_of(24, "s = Swish(x) t = Attention(s, s, s)", (2, 5, 6), 60))
    assert not {"Swish", "Attention"} & {op for _, op in operators(compiled.graph)}
    assert [entry.version for entry in compiled.opset_import] == [21]


def test_what_cannot_be_converted_is_refused_by_name() -> None:
    model = net(
        "g (float[N,4] x) => (float[N,4] y) { a = Constant<value_int = 1>() b = CumProd(x, a) y = CumProd(b, a) }",
        26,
        13,
    )
    with pytest.raises(UnsupportedModel, match="node 'b' is 'CumProd', node 'y' is 'CumProd', which came later"):
        compile_model(model)


SQUEEZE = """
    g (float[N,4,1] x) => (float[N,4] y) {
        shape = Shape(x)
        two = Constant<value_int = 2>()
        size = Gather(shape, two)
        one = Constant<value_int = 1>()
        single = Equal(size, one)
        z = If(single) <then_branch = yes () => (float[M,4] t) {
                            axes = Constant<value_ints = [2]>() r = Relu(x) t = Squeeze(r, axes) },
                        else_branch = no () => (float[M,K,L] e) { e = Identity(x) }>
        y = Mul(z, z)
    }"""


def test_an_if_on_a_known_size_becomes_the_branch_taken() -> None:
    data = np.random.default_rng(2).standard_normal((3, 4, 1)).astype(np.float32)
    results = explained(net(SQUEEZE), data)
    assert_near(results["y"], run(net(SQUEEZE), data)["y"], 1e-6)
    best = results["explained_class"]
    want = np.zeros_like(data)
    rows = np.arange(3)
    want[rows, best, 0] = 2 * np.maximum(data[rows, best, 0], 0)
    assert_near(results["attribution"], want, 1e-6)
    assert "If" not in {op for _, op in operators(compile_model(net(SQUEEZE)).graph)}


def test_an_if_within_the_branch_taken_is_decided_too() -> None:
    inner = (
        "If(flag) <then_branch = a () => (float[N,4] p) { p = Neg(x) }, "
        "else_branch = b () => (float[N,4] q) { q = Abs(x) }>"
    )
    text = f"""
        g (float[N,4] x) => (float[N,4] y) <bool flag = {{0}}> {{
            z = If(flag) <then_branch = no () => (float[N,4] t) {{ t = Identity(x) }},
                          else_branch = yes () => (float[N,4] e) {{ e = {inner} }}>
            y = Mul(z, z)
        }}"""
    data = np.random.default_rng(3).standard_normal((2, 4)).astype(np.float32)
    results = explained(net(text), data)
    rows, best = np.arange(2), results["explained_class"]
    want = np.zeros_like(data)
    want[rows, best] = 2 * data[rows, best]
    assert_near(results["attribution"], want, 1e-6)


NESTED = """
    <ir_version: 8, opset_import: ["": 17, "own": 1]>
    g (float[N,4] x) => (float[N,4] y) { h = own.Outer(x) y = own.Outer(h) }
    <domain: "own", opset_import: ["": 17, "own": 1]> Outer (a) => (b) { t = own.Inner(a) b = Add(t, a) }
    <domain: "own", opset_import: ["": 17]> Inner (a) => (b) { b = Tanh(a) }
"""


def test_local_functions_within_functions_are_inlined() -> None:
    model = onnx.parser.parse_model(NESTED)
    data = np.random.default_rng(4).standard_normal((2, 4)).astype(np.float32)
    results = explained(model, data)
    x = torch.from_numpy(data).double().requires_grad_()
    hidden = x.tanh() + x
    scores = hidden.tanh() + hidden
    best = torch.from_numpy(results["explained_class"])
    (want,) = torch.autograd.grad(scores.gather(1, best[:, None]).sum(), x)
    assert_near(results["attribution"], want.numpy(), 1e-6)


@pytest.mark.parametrize("ir_version", [3, 8])
def test_weights_that_are_also_inputs_and_constants_in_subgraphs(ir_version: int) -> None:
    """As in files of IR version 3: every weight is listed as an input, and is none to the compiled graph's user."""
    text = """g (float[1,4] x, float[4,3] w) => (float[1,3] y) <float[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}> {
        h = MatMul(x, w) y = Softmax(h) }"""
    compiled = compile_model(net(text, 11, ir_version))
    assert [value.name for value in compiled.graph.input] == ["x"]
    results = run(compiled, {"x": np.ones((1, 4), np.float32)})
    np.testing.assert_array_equal(results["attribution"], [[3, 6, 9, 12]])


@pytest.mark.parametrize("opset", range(7, 27))
def test_every_opset_from_7_to_26_comes_out_as_20_or_21(opset: int) -> None:
    weights = ",".join(str(v) for v in np.random.default_rng(5).standard_normal(36).round(3))
    text = f"""g (float[N,2,6,6] x) => (float[N,2] y) <float[2,2,3,3] w = {{{weights}}}> {{
        c = Conv<pads = [1,1,1,1]>(x, w) r = Relu(c) p = GlobalMaxPool(r) y = Flatten(p) }}"""
    model = net(text, opset, 3 if opset < 9 else 13 if opset > 24 else 11 if opset > 21 else 8)
    compiled = compile_model(model)
    assert {e.version for e in compiled.opset_import} <= {20, 21}
    data = np.random.default_rng(6).standard_normal((2, 2, 6, 6)).astype(np.float32)
    want = explained(net(text, 20), data)
    assert_near(run(compiled, data)["attribution"], want["attribution"], 1e-6)


@pytest.mark.parametrize("opset", [7, 9])
def test_upsample_becomes_resize(opset: int) -> None:
    scales = "<scales = [1.0, 1.0, 2.0, 2.0]>(x)" if opset == 7 else "(x, s)"
    constant = "" if opset == 7 else "<float[4] s = {1, 1, 2, 2}>"
    text = f"""g (float[N,2,3,3] x) => (float[N,2] y) {constant} {{
        u = Upsample{scales} r = Mul(u, u) p = GlobalAveragePool(r) y = Flatten(p) }}"""
    data = np.random.default_rng(7).standard_normal((2, 2, 3, 3)).astype(np.float32)
    results = explained(net(text, opset, 8), data)
    rows, best = np.arange(2), results["explained_class"]
    want = np.zeros_like(data)
    want[rows, best] = 2 * data[rows, best] * 4 / 36
    assert_near(results["attribution"], want, 1e-6)


def test_between_opset_21_and_26_operators_gained_types_and_attributes_and_nothing_else() -> None:
    """So that a model of a newer opset may be called one of 21, once what is new is not in it."""
    for name in {schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}:
        try:
            old, new = (onnx.defs.get_schema(name, version, "") for version in (21, 26))
        except onnx.defs.SchemaError:
            continue
        for each in ("inputs", "outputs"):
            assert [(p.name, p.option) for p in getattr(old, each)] == [(p.name, p.option) for p in getattr(new, each)]
        for attribute, was in old.attributes.items():
            now = new.attributes[attribute]
            assert (was.type, was.required, was.default_value) == (now.type, now.required, now.default_value)


@pytest.mark.parametrize("opset", [13, 20, 21, 22])
@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_a_window_that_would_start_in_the_padding_is_left_out(kind: str, opset: int) -> None:
    """As runtimes do in every opset, though only the schema of 22 says so."""
    text = f"""g (float[N,4,5] x) => (float[N,12] y) {{
        t = {kind}<ceil_mode = 1, kernel_shape = [2], pads = [1, 1], strides = [2]>(x) y = Flatten(t) }}"""
    if (kind, opset) == ("AveragePool", 13):
        pytest.skip("ONNX has no ceil_mode there that runtimes agree on")
    model = net(text, opset)
    data = np.random.default_rng(8).standard_normal((2, 4, 5)).astype(np.float32)
    results = explained(model, data)
    assert_near(results["y"], run(model, data)["y"], 1e-6)
    assert np.isfinite(results["attribution"]).all()


STORED = [
    ("RMSNormalization", 23, "t = RMSNormalization(x, s)", (3, 4), {"s": np.arange(1, 5, dtype=np.float32)}),
    ("RotaryEmbedding", 23, "t = RotaryEmbedding(x, cos, sin)", (2, 4, 6),
     {key: np.random.default_rng(5).standard_normal((3, 4, 3)).astype(np.float32) for key in ("cos", "sin")}),
    ("CenterCropPad", 18, "t = CenterCropPad<axes = [1, 2]>(x, s)", (5, 3), {"s": np.asarray([3, 7])}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "opset", "text", "shape", "stored"), STORED, ids=lambda v: str(v)[:20])
def test_operands_that_are_stored_are_known_to_who_spells_out(
    op: str, opset: int, text: str, shape: tuple[int, ...], stored: dict[str, NDArray[np.float32]]
) -> None:
    data = np.random.default_rng(6).standard_normal((3, *shape)).astype(np.float32)
    model = model_of(opset, text, shape, 12, "3")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for name, value in stored.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    results = explained(model, data, target=1)
    assert_near(results["y"], run(model, data)["y"], 1e-6)
    assert op not in {name for _, name in operators(compile_model(model).graph)}
    step, direction = 1e-2, np.random.default_rng(7).standard_normal(data.shape).astype(np.float32)
    ahead, behind = (run(model, data + sign * step * direction)["y"][:, 1] for sign in (1, -1))
    slope = (results["attribution"] * direction).reshape(3, -1).sum(1)
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=1e-3, atol=1e-3)


def test_what_cannot_be_spelled_out_is_refused_with_the_reason() -> None:
    text = """<ir_version: 11, opset_import: ["": 23, "lab": 1]>
        g (float[N,4] x) => (float[N,4] y) { h = lab.Odd(x) y = RMSNormalization(h, x) }"""
    with pytest.raises(UnsupportedModel, match=r"RMSNormalization of .* cannot be spelled out.*: Type unknown for h"):
        compile_model(onnx.parser.parse_model(text))


def test_a_spatial_transformer_differentiates_by_picture_and_places() -> None:
    """The grid's operator is spelled out with branches in it, in which a CastLike asks for a type alone."""
    model = net("""g (float[2,1,4,5] x) => (float[2,20] y) <
            float[6] b = {1, 0, 0.1, 0.2, 0.9, 0}, int64[2] ones = {-1, 1},
            int64[3] t = {-1, 2, 3}, int64[4] size = {2, 1, 4, 5}, int64[3] over = {1, 2, 3}> {
        m = ReduceMean<keepdims = 0>(x, over) n = Reshape(m, ones) p = Mul(n, b) q = Add(p, b) theta = Reshape(q, t)
        grid = AffineGrid(theta, size) r = GridSample<padding_mode = "border">(x, grid) y = Flatten(r) }""")
    data = np.random.default_rng(8).standard_normal((2, 1, 4, 5)).astype(np.float32)
    results = explained(model, data, target=7)
    x = torch.from_numpy(data).double().requires_grad_()
    b = torch.tensor([1, 0, 0.1, 0.2, 0.9, 0], dtype=torch.float64)
    theta = (x.mean((1, 2, 3))[:, None] * b + b).reshape(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, [2, 1, 4, 5], align_corners=False)
    read = torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    (want,) = torch.autograd.grad(read.flatten(1)[:, 7].sum(), x)
    assert_near(results["y"], read.detach().flatten(1).numpy(), 1e-5)
    assert_near(results["attribution"], want.numpy(), 1e-4)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("batch", ["2", "N"])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_norms_behind_one_another_are_spelled_out_all(count: int, batch: str, axis: int) -> None:
    """The rank of each, and so the axes that it is a mean over, is known when that of the one before it is."""
    blocks = " ".join(
        f"n{i} = RMSNormalization<axis = {axis}>(h{i}, s) h{i + 1} = Add(h{i}, n{i})" for i in range(count)
    )
    model = net(
        f"""g (float[{batch},3,4] x) => (float[{batch},4] y) <int64[1] one = {{1}}> {{
            s = Constant<value_float = 1.5>() h0 = Mul(x, x) {blocks} y = ReduceSum<keepdims = 0>(h{count}, one) }}""",
        opset=23,
    )
    data = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    x = torch.from_numpy(data.astype(np.float64)).requires_grad_()
    h, axes = x * x, (1, 2) if axis == 1 else (2,)
    for _ in range(count):
        h = h + 1.5 * h / (h.pow(2).mean(axes, keepdim=True) + 1e-5).sqrt()
    h.sum(1)[:, 2].sum().backward()
    assert x.grad is not None
    assert_near(explained(model, data, target=2)["attribution"], x.grad.numpy(), 1e-5)
