"""Which axis holds the channels: what the network does with its input tells, and where it does not, the sizes do."""

from __future__ import annotations

import pytest

from onnxplain.ir.builder import Builder
from onnxplain.ir.layout import Layout
from onnxplain.ir.load import load
from onnxplain.passes.canonical import canonicalise
from onnxplain.passes.explain.channels import layout_of
from onnxplain.passes.explain.trace import trace
from tests.running import net


def found(shape: str, body: str, weights: str = "", asked: str = "auto") -> Layout:
    """Of a network that computes y from x, which has that shape."""
    kinds = f"<{weights}>" if weights else ""
    model, _ = canonicalise(load(net(f"g (float[{shape}] x) => (float y) {kinds} {{ {body} }}")))
    g = Builder(model)
    x, y = (g.wrap(t) for t in (model.graph.inputs[0], model.graph.outputs[0]))
    layout = layout_of(trace(g, list(model.graph.nodes), x, y), asked)
    assert layout.rank == x.rank
    return layout


W = "float[1,3,1,1] w = {1,2,3}, float[3] v = {1,2,3}, float[3,1,1] k = {1,2,3}"
TWO, ONE = "float[1,2,1,1] w = {1,2}", "int64[1] one = {1}"
NHWC = "t = Transpose<perm=[0,3,1,2]>"

PICTURES: list[tuple[str, str, str, int | None]] = [
    ("N,3,5,5", "y = Conv(x, w)", W, 1),
    ("N,5,5,3", f"{NHWC}(x) y = Conv(t, w)", W, 3),
    ("N,5,3,5", "t = Transpose<perm=[0,2,1,3]>(x) y = Conv(t, w)", W, 2),
    ("N,5,5,3", f"s = Sub(x, v) d = Div(s, v) {NHWC}(d) y = Conv(t, w)", W, 3),
    ("N,3,5,3", "s = Sub(x, k) y = Conv(s, w)", W, 1),
    ("N,12,20,2", f"a = Abs(x) l = Log(a) {NHWC}(l) y = Conv(t, w)", TWO, 3),
    (
        "N,12,20,2",
        f"m = ReduceMean(x, a) s = Sub(x, m) {NHWC}(s) y = Conv(t, w)",
        f"{TWO}, int64[2] a = {{1,2}}",
        3,
    ),
    ("N,12,20,2", f"n = Shape(x) r = Reshape(x, n) {NHWC}(r) y = Conv(t, w)", TWO, 3),
    ("N,6,8,2", "r = Reshape(x, s) y = MatMul(r, w)", "int64[3] s = {0,48,2}, float[2,1] w = {1,2}", 3),
    ("N,12,20,2", f"{NHWC}(x) p = MaxPool<kernel_shape=[2,2]>(t) y = Relu(p)", "", 3),
    ("N,12,20,2", f"{NHWC}(x) y = InstanceNormalization(t, b, b)", "float[2] b = {1,2}", 3),
    ("N,12,20,2", "s = Div(x, b) y = Reshape(s, f)", "float[2] b = {1,2}, int64[2] f = {0,-1}", 3),
    # a crop, channels picked, one alone put first, and frames one after the other
    ("N,9,9,2", f"c = Slice(x, one, e, one) {NHWC}(c) y = Conv(t, w)", f"{TWO}, {ONE}, int64[1] e = {{8}}", 3),
    ("N,7,9,6", f"c = Gather<axis=3>(x, i) {NHWC}(c) y = Conv(t, w)", f"{TWO}, int64[2] i = {{4,1}}", 3),
    ("N,3,7,9", "c = Slice(x, o, one, one) y = Conv(c, w)", f"float[1,1,1,1] w, {ONE}, int64[1] o = {{0}}", 1),
    ("N,7,2,8,9", "r = Reshape(x, s) y = Conv(r, w)", f"int64[4] s = {{-1,2,8,9}}, {TWO}", 2),
    ("N,7,3,8,9", "r = Reshape(x, s) y = Conv(r, w)", "int64[4] s = {0,21,8,9}, float[1,21,1,1] w", 2),
    ("N,5,5,3", "y = Relu(x)", "", 3),
    ("N,16,5,5", "y = Relu(x)", "", 1),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "body", "weights", "channel"), PICTURES)
def test_pictures(shape: str, body: str, weights: str, channel: int | None) -> None:
    assert found(shape, body, _filled(weights)).channel == channel


ROW = "float[1,28] w, float[1,1,3,3] k, int64[1] one = {1}, int64[1] last = {3}, int64[2] flat = {0,-1}"

GREY: list[tuple[str, str, int | None]] = [
    ("flattened", "y = Flatten(x)", None),
    ("flattened by a Reshape", "y = Reshape(x, flat)", None),
    ("with an axis for channels", "u = Unsqueeze(x, one) y = Conv(u, k)", None),
    ("with an axis at the end", f"u = Unsqueeze(x, last) {NHWC}(u) y = Conv(t, k)", None),
    ("made colour", "u = Unsqueeze(x, one) c = Concat<axis=1>(u, u, u) y = Conv(c, c3)", None),
    ("nothing", "y = Relu(x)", None),
    ("rows as steps", "y = MatMul(x, rows)", 2),
]
MORE = ", float[1,3,1,1] c3 = {1,2,3}, float[28,2] rows"


@pytest.mark.parametrize(("what", "body", "channel"), GREY)
def test_pictures_without_an_axis_for_channels(what: str, body: str, channel: int | None) -> None:
    assert found("N,28,28", body, _filled(ROW + MORE)).channel == channel


def test_patches_of_a_grey_picture_hold_no_channels() -> None:
    """Rows and columns are cut into pieces of four, and the weights mix a piece's pixels."""
    body = "r = Reshape(x, cut) t = Transpose<perm=[0,1,3,2,4]>(r) p = Reshape(t, rows) y = MatMul(p, w)"
    cut = "int64[5] cut = {0,7,4,7,4}, int64[3] rows = {0,49,16}, float[16,2] w"
    assert found("N,28,28", body, _filled(cut)).channel is None


def test_patches_of_a_picture_hold_its_channels_whole() -> None:
    body = "r = Reshape(x, cut) t = Transpose<perm=[0,1,3,2,4,5]>(r) p = Reshape(t, rows) y = MatMul(p, w)"
    cut = "int64[6] cut = {0,7,4,7,4,2}, int64[3] rows = {0,49,32}, float[32,2] w"
    assert found("N,28,28,2", body, _filled(cut)).channel == 3


STEPS: list[tuple[str, str, int | None]] = [
    ("y = MatMul(x, w)", "float[8,2] w", 2),
    ("t = Transpose<perm=[1,0,2]>(x) y = MatMul(t, w)", "float[8,2] w", 2),
    ("r = Reshape(x, s) y = Gemm(r, w)", "int64[2] s = {-1,8}, float[8,2] w", 2),
    ("t = Transpose<perm=[0,2,1]>(x) y = Conv(t, w)", "float[1,8,3] w", 2),
    ("y = Conv(x, w)", "float[1,12,3] w", 1),
    (f"u = Unsqueeze(x, one) {NHWC}(u) y = Conv(t, w)", f"{ONE}, float[1,8,1,3] w", 2),
    ('y = Einsum<equation="abc,cde->abde">(x, w)', "float[8,2,2] w", 2),
    ("y = LayerNormalization(x, v)", "float[8] v", 2),
    ("t = Transpose<perm=[0,2,1]>(x) y = BatchNormalization(t, v, v, v, v)", "float[8] v", 2),
    ("y, h, c = LSTM<hidden_size=2,layout=1>(x, w, r)", "float[1,8,8] w, float[1,8,2] r", 2),
    ("t = Transpose<perm=[1,0,2]>(x) y, h = GRU<hidden_size=2>(t, w, r)", "float[1,6,8] w, float[1,6,2] r", 2),
    # between tokens first: behind a layer norm, which was over features, in one operator or spelled out
    ("n = LayerNormalization(x, v) t = Transpose<perm=[0,2,1]>(n) y = MatMul(t, w)", "float[8] v, float[12,2] w", 2),
    (
        """m = ReduceMean(x, a) s = Sub(x, m) q = Mul(s, s) v = ReduceMean(q, a) r = Sqrt(v) d = Div(s, r) n = Mul(d, k)
        t = Transpose<perm=[0,2,1]>(n) y = MatMul(t, w)""",
        "int64[1] a = {-1}, float[8] k, float[12,2] w",
        2,
    ),
    # a graph network: weights on the left mix nodes, those on the right features; alone they are all that there is
    ("a = MatMul(g, x) y = MatMul(a, w)", "float[12,12] g, float[8,2] w", 2),
    ("y = MatMul(g, x)", "float[12,12] g", 1),
    # a window in time before a convolution over time
    ("h = Mul(x, v) y = Conv(h, w)", "float[8] v, float[1,12,3] w", 1),
    ("m = ReduceMean<keepdims=0>(x, a) y = MatMul(m, w)", "int64[1] a = {1}, float[8,2] w", 2),
    ("y = Flatten(x)", "", None),
]  # fmt: skip


@pytest.mark.parametrize(("body", "weights", "channel"), STEPS)
def test_steps_and_tokens(body: str, weights: str, channel: int | None) -> None:
    assert found("N,12,8", body, _filled(weights)).channel == channel


def test_a_sequence_whose_length_is_free_is_still_one() -> None:
    body = "y, h, c = LSTM<hidden_size=2,layout=1>(x, w, r)"
    assert found("N,T,8", body, _filled("float[1,8,8] w, float[1,8,2] r")).channel == 2


def test_features_without_steps_are_places_themselves() -> None:
    """(N, 1, features) is a table, whatever reads it: a map of its one step would show nothing."""
    assert found("N,1,8", "y = MatMul(x, w)", _filled("float[8,2] w")) == Layout(3, 1)


def test_what_is_asked_for_is_done() -> None:
    assert found("N,3,5,5", "y = Conv(x, w)", W, "channels-last") == Layout(4, 3)
    assert found("N,3,5,5", "y = Conv(x, w)", W, "none") == Layout(4, None)
    assert found("N,3,5,5", "y = Conv(x, w)", W, "2") == Layout(4, 2)


def _filled(weights: str) -> str:
    """Declarations with ones where no numbers are given."""
    parts = []
    for part in weights.split(", ") if weights else []:
        sizes = part.partition("[")[2].partition("]")[0]
        count = 1
        for size in sizes.split(","):
            count *= int(size)
        parts.append(part if "=" in part else f"{part} = {{{','.join(['1'] * count)}}}")
    return ", ".join(parts)
