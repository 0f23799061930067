from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import onnxplain
from benchmarks.cuda.machine import why_no_cuda
from onnxplain.errors import UsageError
from onnxplain.runtime import bound as module
from onnxplain.runtime.bound import Bound, node_by_node, records
from onnxplain.runtime.session import CUDA
from tests.runtime.tiny import classifier, pictures, text

IMAGES = pictures(2)


@pytest.fixture
def bound() -> tuple[onnxplain.Explainer, Bound]:
    explain = onnxplain.Explainer(onnxplain.compile_model(classifier(), "gradient", runtime="cuda"), "cpu")
    return explain, Bound(explain.session, {"pixels": IMAGES})


def test_a_bound_run_returns_what_a_plain_one_does(bound: tuple[onnxplain.Explainer, Bound]) -> None:
    explain, runs = bound
    for images in (IMAGES, pictures(2, seed=7)):
        runs.set("pixels", images)
        runs.run()
        expected = explain(images)
        for name in ("logits", "attribution", "heatmap", "explained_class"):
            np.testing.assert_array_equal(runs.get(name), expected[name])


def test_other_sizes_are_refused(bound: tuple[onnxplain.Explainer, Bound]) -> None:
    with pytest.raises(UsageError) as caught:
        bound[1].set("pixels", IMAGES[:1])
    assert str(caught.value) == (
        "input 'pixels' is bound as tensor(float) of (2, 3, 8, 8), and this is float of (1, 3, 8, 8).\n"
        "  Bind the session anew for other sizes."
    )
    with pytest.raises(UsageError, match="and this is double of"):
        bound[1].set("pixels", IMAGES.astype(np.float64))


def test_an_input_that_there_is_not_is_refused(bound: tuple[onnxplain.Explainer, Bound]) -> None:
    with pytest.raises(UsageError, match=r"no input 'image' that is bound: there are pixels\."):
        bound[1].set("image", IMAGES)


def test_a_scalar_is_set_in_place() -> None:
    model = text("g (float[N,3] x, float scale) => (float[N,3] y) { y = Mul(x, scale) }")
    explain = onnxplain.Explainer(onnxplain.compile_model(model, "gradient", input="x"), "cpu")
    x = np.array([[1, 2, 3]], np.float32)
    runs = Bound(explain.session, {"x": x, "scale": np.array(2, np.float32)})
    runs.set("scale", np.array(5, np.float32))
    runs.run()
    np.testing.assert_array_equal(runs.get("y"), 5 * x)


@pytest.mark.parametrize(
    ("graph", "name", "kind"),
    [
        ("g (float[N,3] x, string[N] t) => (float[N,3] y, string[N] u) { y = Relu(x) u = Identity(t) }", "t", "string"),
        ("g (bfloat16[N,3] x) => (float[N,3] y) { r = Cast<to = 1>(x) y = Mul(r, r) }", "x", "bfloat16"),
        ("g (float[N,3] x) => (float[N,3] y, seq(float[N,3]) s) { y = Relu(x) s = SequenceConstruct(x) }", "s", ""),
    ],
)
def test_what_cannot_be_bound_is_named(graph: str, name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recording(monkeypatch)
    explain = onnxplain.Explainer(onnxplain.compile_model(text(graph), "gradient", input="x", output="y"), "cpu")
    more = {"t": np.array(["a"])} if kind == "string" else {}
    with pytest.raises(UsageError) as caught:
        explain(np.ones((1, 3), np.float32), **more)
    of = f"tensor({kind})" if kind else "seq(tensor(float))"
    assert str(caught.value) == (
        f"{name!r} is of the type {of}, which ONNX Runtime cannot bind to memory from Python.\n"
        "  Run the session unbound: `onnxplain.Explainer` without enable_cuda_graph."
    )


def test_what_was_returned_stays_as_it_was(bound: tuple[onnxplain.Explainer, Bound]) -> None:
    _, runs = bound
    runs.run()
    found = runs.get("logits")
    kept = found.copy()
    runs.set("pixels", pictures(2, seed=7))
    runs.run()
    assert not np.array_equal(runs.get("logits"), kept)
    np.testing.assert_array_equal(found, kept)


def test_arrays_that_were_given_are_not_written_to(bound: tuple[onnxplain.Explainer, Bound]) -> None:
    bound[1].set("pixels", pictures(2, seed=7))
    np.testing.assert_array_equal(IMAGES, pictures(2))


def test_only_what_is_wanted_is_bound(bound: tuple[onnxplain.Explainer, Bound]) -> None:
    explain, _ = bound
    some = Bound(explain.session, {"pixels": IMAGES}, {"heatmap": np.empty((2, 8, 8), np.float32)})
    some.run()
    np.testing.assert_array_equal(some.get("heatmap"), explain(IMAGES)["heatmap"])
    with pytest.raises(KeyError):
        some.get("logits")


@pytest.mark.parametrize(
    ("options", "does"),
    [({}, False), ({CUDA: {"enable_cuda_graph": "0"}}, False), ({CUDA: {"enable_cuda_graph": "1"}}, True)],
)
def test_which_sessions_record(options: dict[str, dict[str, str]], does: bool) -> None:
    assert records(SimpleNamespace(get_provider_options=lambda: options)) == does


def recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU takes the option of a run and makes nothing of it."""
    monkeypatch.setattr(module, "records", lambda _: True)


def test_no_two_bindings_share_a_recording(
    bound: tuple[onnxplain.Explainer, Bound], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime would replay the first one's, which reads and writes other places."""
    assert bound[1].recording is None
    recording(monkeypatch)
    made = [Bound(bound[0].session, {"pixels": pictures(n)}).recording for n in (1, 2, 2)]
    numbers = [int(each.get_run_config_entry("gpu_graph_id")) for each in made]
    assert len(set(numbers)) == 3
    assert min(numbers) > 0  # 0 is ONNX Runtime's own
    assert node_by_node().get_run_config_entry("gpu_graph_id") == "-1"


def test_a_recording_session_explains_every_picture_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = onnxplain.compile_model(classifier(), "gradient,grad-cam", runtime="cuda", target="input")
    plain = onnxplain.Explainer(compiled, "cpu")
    recording(monkeypatch)
    made: list[int] = []
    monkeypatch.setattr(module, "Bound", lambda session, feeds: made.append(1) or Bound(session, feeds))
    recorded = onnxplain.Explainer(compiled, "cpu")
    kept = []
    for seed, count in enumerate((2, 2, 1, 2, 1)):
        images, target = pictures(count, seed=seed), seed % 4
        kept.append((recorded(images, target), plain(images, target)))
    assert len(made) == 2, "one for each size"
    for found, expected in kept:
        assert list(found) == list(expected)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.gpu
def test_cuda_graphs_on_a_card(tmp_path: Path) -> None:
    lacking = why_no_cuda()
    if lacking:
        pytest.skip(lacking.splitlines()[0])
    onnxplain.compile_file(classifier(), tmp_path / "explained.onnx", "gradient,lrp-epsilon-plus", runtime="cuda")
    plain, recorded = (
        onnxplain.Explainer(tmp_path / "explained.onnx", "cuda", use_tf32=False, cuda={"enable_cuda_graph": graph})
        for graph in (False, True)
    )
    for seed, count in enumerate((2, 2, 1, 2, 1)):
        images = pictures(count, seed=seed)
        found, expected = recorded(images), plain(images)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)
