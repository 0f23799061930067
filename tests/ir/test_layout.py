"""Which axis holds the channels: what the network does with its input tells, and where it does not, the sizes do."""

from __future__ import annotations

import pytest

from onnxplain.errors import UsageError
from onnxplain.ir.layout import Layout, layout_of, refuse_other_count
from onnxplain.ir.load import load
from onnxplain.passes.canonical import canonicalise
from tests.running import net


def found(text: str, asked: str = "auto") -> Layout:
    model, _ = canonicalise(load(net(text)))
    return layout_of(model.graph.inputs[0], asked)


CONV = "c = Conv(t, w)"
W = "<float[1,3,1,1] w = {1,2,3}, float[3] v = {1,2,3}, float[3,1,1] k = {1,2,3}>"

CASES: list[tuple[str, int | None]] = [
    (f"g (float[N,3,5,5] x) => (float[a,b,c,d] y) {W} {{ y = Conv(x, w) }}", 1),
    (f"g (float[N,5,5,3] x) => (float[a,b,c,d] y) {W} {{ t = Transpose<perm=[0,3,1,2]>(x) y = Conv(t, w) }}", 3),
    (f"g (float[N,5,3,5] x) => (float[a,b,c,d] y) {W} {{ t = Transpose<perm=[0,2,1,3]>(x) y = Conv(t, w) }}", 2),
    (
        f"""g (float[N,5,5,3] x) => (float[a,b,c,d] y) {W} {{
        s = Sub(x, v) d = Div(s, v) t = Transpose<perm=[0,3,1,2]>(d) y = Conv(t, w) }}""",
        3,
    ),
    (f"g (float[N,3,5,3] x) => (float[a,b,c,d] y) {W} {{ s = Sub(x, k) y = Conv(s, w) }}", 1),
    ("g (float[N,5,5,3] x) => (float[a,b,c,d] y) { y = Relu(x) }", 3),
    ("g (float[N,3,5,3] x) => (float[a,b,c,d] y) { y = Relu(x) }", 1),
    ("g (float[N,16,5,5] x) => (float[a,b,c,d] y) { y = Relu(x) }", 1),
    ("g (float[N,h,w,1] x) => (float[a,b,c,d] y) { y = Relu(x) }", 3),
    ("g (float[N,5] x) => (float[a,b] y) { y = Relu(x) }", None),
    ("g (float[N,2,5] x) => (float[a,b,c] y) { y = Relu(x) }", 1),
    ("g (float[N,3,4,5,6] x) => (float[a,b,c,d,e] y) { y = Relu(x) }", 1),
]


@pytest.mark.parametrize(("text", "channel"), CASES)
def test_the_axis_of_channels(text: str, channel: int | None) -> None:
    layout = found(text)
    assert layout.channel == channel
    assert layout.spatial == tuple(a for a in range(1, layout.rank) if a != channel)


def test_what_is_asked_for_is_done() -> None:
    text = f"g (float[N,3,5,5] x) => (float[a,b,c,d] y) {W} {{ y = Conv(x, w) }}"
    assert found(text, "channels-last") == Layout(4, 3)
    assert (Layout(4, 3).name, Layout(4, 3).spatial) == ("channels-last", (1, 2))
    assert (Layout(4, 1).name, Layout(4, 1).spatial) == ("channels-first", (2, 3))
    with pytest.raises(UsageError, match="there is no layout 'nhwc'"):
        found(text, "nhwc")


@pytest.mark.parametrize(
    ("sizes", "count", "message"),
    [
        ("N,3,5,5", 2, "mean has 2 numbers, and the input has 3 channels: one, or one for each, is needed."),
        ("N,5,5,1", 3, "mean has 3 numbers, and the input has 1 channels: one, or one for each, is needed."),
        ("N,4", 4, "mean has 4 numbers, and the input has no channels: one is needed."),
        ("N,3,5,5", 3, ""),
        ("N,3,5,5", 1, ""),
        ("N,C,5,5", 3, ""),
        ("N,4", 1, ""),
    ],
)
def test_numbers_are_one_for_all_channels_or_one_for_each(sizes: str, count: int, message: str) -> None:
    x = canonicalise(load(net(f"g (float[{sizes}] x) => (float[{sizes}] y) {{ y = Relu(x) }}")))[0].graph.inputs[0]
    if not message:
        return refuse_other_count("mean", count, x, layout_of(x))
    with pytest.raises(UsageError) as caught:
        refuse_other_count("mean", count, x, layout_of(x))
    assert str(caught.value) == message
    return None
