"""auto_pad and output_shape worked out: every way in which ONNX Runtime pads, and where it cannot be known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxplain.compiler import compile_model
from onnxplain.errors import UnsupportedOp
from onnxplain.passes.canonical.pads import ExplicitPads
from tests.oracle import gradient
from tests.passes.graphs import assert_unchanged, node, refusals, typed
from tests.running import assert_near, net, run

W = "<float[2,3,{k},{k}] w = {{{numbers}}}>"


def windowed(op: str, auto: str, kernel: int, stride: int, dilation: int, size: object = 7) -> str:
    attributes = f"auto_pad = '{auto}', strides = [{stride}, {stride}], kernel_shape = [{kernel}, {kernel}]".replace(
        "'", '"'
    )
    if dilation > 1:
        attributes += f", dilations = [{dilation}, {dilation}]"
    numbers = ",".join(str(v) for v in np.random.default_rng(0).standard_normal(6 * kernel**2).round(3))
    weights, operands = (W.format(k=kernel, numbers=numbers), "x, w") if op == "Conv" else ("", "x")
    return f"g (float[N,3,{size},{size}] x) => (float[N,c,h,v] y) {weights} {{ y = {op}<{attributes}>({operands}) }}"


CASES = [
    case
    for case in itertools.product(
        ("Conv", "MaxPool", "AveragePool"), ("SAME_UPPER", "SAME_LOWER", "VALID"), (2, 3), (1, 2, 3), (1, 2)
    )
    # ONNX Runtime has no SAME with dilations
    if case[4] == 1 or (case[0] == "Conv" and case[1] == "VALID")
]


@pytest.mark.parametrize(("op", "auto", "kernel", "stride", "dilation"), CASES)
def test_pads_are_those_of_the_runtime(op: str, auto: str, kernel: int, stride: int, dilation: int) -> None:
    text = windowed(op, auto, kernel, stride, dilation)
    model = typed(text)
    assert refusals(model, ExplicitPads()) == (1, ())
    assert "auto_pad" not in node(model, "y").attrs
    assert_unchanged(model, text, [(2, 3, 7, 7)])


def test_explicit_pads_are_left_alone() -> None:
    model = typed("g (float[N,3,7,7] x) => (float[N,3,h,w] y) { y = MaxPool<kernel_shape=[2,2], pads=[0,1,1,0]>(x) }")
    assert refusals(model, ExplicitPads()) == (0, ())
    assert node(model, "y").attrs["pads"] == [0, 1, 1, 0]


def test_sizes_that_are_open_need_not_be_known_for_stride_one() -> None:
    text = windowed("Conv", "SAME_UPPER", 3, 1, 1, "side")
    model = typed(text)
    assert refusals(model, ExplicitPads()) == (1, ())
    assert_unchanged(model, text, [(1, 3, 5, 5), (1, 3, 8, 8)])


def test_it_declines_where_the_sizes_decide_and_are_open() -> None:
    text = windowed("Conv", "SAME_UPPER", 3, 2, 1, "side")
    changed, declined = refusals(typed(text), ExplicitPads())
    assert changed == 0
    assert (declined[0].where, "depends on sizes known only at run time" in declined[0].why) == ("y", True)
    head = text.replace("y = Conv", "c = Conv").replace("float[N,c,h,v] y", "float[N,2] y")[:-1]
    with pytest.raises(UnsupportedOp, match="with auto_pad=SAME_UPPER and sizes known only at run time"):
        compile_model(net(f"{head} p = GlobalAveragePool(c) y = Flatten(p) }}"))


TRANSPOSED = [
    'auto_pad = "SAME_UPPER", strides = [2, 2]',
    'auto_pad = "SAME_LOWER", strides = [2, 2]',
    'auto_pad = "VALID", strides = [2, 2]',
    "output_shape = [13, 12], strides = [2, 2]",
    "output_shape = [12, 13], strides = [2, 2], output_padding = [1, 1]",
    'output_shape = [13, 13], strides = [2, 2], auto_pad = "SAME_UPPER"',
    "output_shape = [25, 24], strides = [4, 4]",
]


@pytest.mark.parametrize("attributes", TRANSPOSED)
def test_transposed_convolutions(attributes: str) -> None:
    numbers = ",".join(str(v) for v in np.random.default_rng(0).standard_normal(54).round(3))

    def ending(output: str, tail: str) -> str:
        return f"""g (float[N,3,6,6] x) => ({output} y) <float[3,2,3,3] w = {{{numbers}}}> {{
            c = ConvTranspose<{attributes}>(x, w) {tail} }}"""

    text = ending("float[N,c,h,v]", "y = Relu(c)")
    model = typed(text)
    assert refusals(model, ExplicitPads()) == (1, ())
    assert not {"auto_pad", "output_shape"} & set(node(model, "c").attrs)
    assert_unchanged(model, text, [(2, 3, 6, 6)])
    whole = net(ending("float[N,2]", "q = Mul(c, c) p = GlobalAveragePool(q) y = Flatten(p)"))
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32)
    returned = run(compile_model(whole), x)
    truth = gradient(whole, x, returned["explained_class"])
    assert_near(returned["attribution"], truth.numpy(), 1e-5)


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        (
            'auto_pad = "SAME_UPPER"',
            "with auto_pad=SAME_UPPER and strides beyond its window, of which ONNX and ONNX Runtime make outputs of "
            "different sizes.\n  Export it with pads instead of auto_pad.",
        ),
        (
            "output_shape = [99, 99]",
            "with output_shape=[99, 99], which is more than its windows can reach and which ONNX Runtime does not "
            "run.\n"
            "  Export it with pads instead of output_shape.",
        ),
    ],
)
def test_strides_beyond_the_window(attributes: str, why: str) -> None:
    text = f"""g (float[N,1,3,3] x) => (float[N,1] y) <float[1,1,2,2] w = {{1,2,3,4}}> {{
        [up] c = ConvTranspose<strides=[3,3], kernel_shape=[2,2], {attributes}>(x, w)
        p = GlobalAveragePool(c) y = Flatten(p) }}"""
    with pytest.raises(UnsupportedOp) as caught:
        compile_model(net(text))
    assert str(caught.value) == f"there is no derivative for 'ConvTranspose' (node 'up') {why}"


def test_a_pad_on_some_axes_names_all_of_them() -> None:
    text = """g (float[N,3,4] x) => (float[N,3,k] y) <int64[2] p = {1, 2}, int64[1] axes = {-1}, float v = {5}> {
        y = Pad(x, p, v, axes) }"""
    model = typed(text)
    assert refusals(model, ExplicitPads()) == (1, ())
    assert len(node(model, "y").inputs) == 3
    assert_unchanged(model, text, [(2, 3, 4)])


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize(
    ("side", "attributes", "pads"),
    [
        (7, "kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1]", [1, 1, 0, 0]),
        (6, "kernel_shape=[1,1], strides=[2,2]", [0, 0, 0, 0]),
        (5, "kernel_shape=[2,3], strides=[3,2], pads=[1,1,1,1]", [1, 1, 0, 1]),
    ],
)
def test_a_last_window_that_runtimes_leave_out_is_left_out_by_the_pads(
    op: str, side: int, attributes: str, pads: list[int]
) -> None:
    """ONNX's inference before opset 22 counts that window, and what adds to the pool is then refused when loaded."""
    if op == "AveragePool":
        attributes += ", count_include_pad=0"
    pool = f"p = {op}<{attributes}, ceil_mode=1>(x)"
    text = f"g (float[N,3,{side},{side}] x) => (float[N,3,h,w] p) {{ {pool} }}"
    model = typed(text)
    assert refusals(model, ExplicitPads()) == (1, ())
    assert node(model, "p").attrs["pads"] == pads
    assert "ceil_mode" not in node(model, "p").attrs
    assert_unchanged(model, text, [(2, 3, side, side)])


@pytest.mark.parametrize(
    "pool",
    [
        "MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>",  # every window starts in the input
        "MaxPool<kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1]>",
        "AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], ceil_mode=1, count_include_pad=1>",
    ],
)
def test_other_pools_keep_their_pads(pool: str) -> None:
    model = typed(f"g (float[N,3,7,7] x) => (float[N,3,h,w] p) {{ p = {pool}(x) }}")
    assert refusals(model, ExplicitPads()) == (0, ())


@pytest.mark.parametrize("method", ["gradient", "integrated-gradients"])
@pytest.mark.parametrize(
    ("sides", "attributes", "pads", "ceil"),
    [
        ((7, 7), "kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1]", [1, 1, 0, 0], 0),
        ((8, 8), "kernel_shape=[2,2], strides=[2,2], pads=[0,0,1,1]", [0, 0, 0, 0], 0),
        # The first axis loses its last window, and along the second one reaches beyond the pads, which is not counted.
        ((7, 8), "kernel_shape=[2,3], strides=[2,3], pads=[1,0,1,0]", [1, 0, 0, 0], 1),
        # What is cut off is read by no window.
        ((8, 7), "kernel_shape=[1,4], strides=[3,2], pads=[0,2,0,2]", [0, 2, 0, 2], 1),
    ],
)
def test_a_mean_that_counts_pads_keeps_its_counts(
    sides: tuple[int, int], attributes: str, pads: list[int], ceil: int, method: str
) -> None:
    text = f"""g (float[N,1,{sides[0]},{sides[1]}] x) => (float[N,1] y) {{
        p = AveragePool<{attributes}, ceil_mode=1, count_include_pad=1>(x)
        d = Add(p, p) r = Relu(d) q = Mul(r, r) m = GlobalAveragePool(q) y = Flatten(m) }}"""
    model = typed(text)
    assert refusals(model, ExplicitPads())[0] == 1
    assert (node(model, "p").attrs["pads"], node(model, "p").attrs.get("ceil_mode", 0)) == (pads, ceil)
    assert_unchanged(model, text, [(2, 1, *sides)])
    x = np.random.default_rng(0).standard_normal((2, 1, *sides)).astype(np.float32)
    found = run(compile_model(net(text), method, target=0, **({} if method == "gradient" else {"steps": 2})), x)
    for i in range(8):
        moved = x.copy()
        moved[:, 0, i % sides[0], (3 * i) % sides[1]] += 1e-2
        slope = (run(net(text), moved)["y"] - found["y"])[:, 0] / 1e-2
        if method == "gradient":
            np.testing.assert_allclose(found["attribution"][:, 0, i % sides[0], (3 * i) % sides[1]], slope, atol=2e-3)


def test_what_adds_to_such_a_pool_still_loads_in_an_older_opset() -> None:
    a = ",".join(str(v) for v in range(16))
    model = net(
        f"""g (float[N,2,7,7] x) => (float[N,8] y)
        <float[4,4] a = {{{a}}}, int64[1] axes = {{3}}, int64[2] s = {{0,-1}}> {{
        p = MaxPool<kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1], ceil_mode=1>(x)
        z = Add(p, a)  m = ReduceMax<keepdims=0>(z, axes)  y = Reshape(m, s) }}""",
        opset=22,
    )
    x = np.random.default_rng(0).standard_normal((2, 2, 7, 7)).astype(np.float32)
    returned = run(compile_model(model), x)
    assert_near(returned["attribution"], gradient(model, x, returned["explained_class"]).numpy(), 1e-5)
