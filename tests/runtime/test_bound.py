from __future__ import annotations

import numpy as np
import pytest

import onnxplain
from onnxplain.errors import UsageError
from onnxplain.runtime.bound import Bound
from tests.runtime.tiny import classifier, pictures

IMAGES = pictures(2)


@pytest.fixture
def bound() -> tuple[onnxplain.Explainer, Bound]:
    explain = onnxplain.Explainer(onnxplain.compile_model(classifier(), "gradient", runtime="cuda"), "cpu")
    names = [output.name for output in explain.session.get_outputs()]
    like = dict(zip(names, explain.session.run(names, {"pixels": IMAGES}), strict=True))
    return explain, Bound(explain.session, {"pixels": IMAGES}, like)


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
