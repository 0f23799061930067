"""What `compile_model` is given: arguments of another kind are refused by name, with what is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxplain import Explainer, compile_file, compile_model
from onnxplain.errors import UsageError
from tests.runtime.tiny import classifier


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": ["gradient", "grad-cam"]},
            "method must be a name, or several in one text separated by commas ('gradient,grad-cam'), not "
            "['gradient', 'grad-cam'].",
        ),
        ({"method": None}, "method must be a name, or several in one text"),
        ({"target": 2.5}, "target must be 'top1', 'topk:K', 'input', or the index of a class, not 2.5."),
        ({"target": [1]}, "target must be 'top1'"),
        ({"input": 0}, "input must be the name of an input, not 0."),
        ({"output": 1}, "output must be the name of an output, not 1."),
        ({"output_index": "1"}, "output_index must be the number of an output, not '1'."),
        ({"at": (12, 40)}, "at must be a text: the place to explain ('12,40'), or 'mean', not (12, 40)."),
        ({"class_axis": "1"}, "class_axis must be the number of an axis, not '1'."),
        (
            {"layout": 1.5},
            "layout must be 'auto', 'channels-first', 'channels-last', 'none', or the number of an axis, not 1.5.",
        ),
        ({"runtime": 1}, "runtime must be 'portable', 'cpu' or 'cuda', not 1."),
        ({"diagnostics": "yes"}, "diagnostics must be True or False, not 'yes'."),
        ({"preprocess": 5}, "preprocess must be a name such as 'imagenet', a dict or a Preprocess, not 5."),
    ],
)
def test_an_argument_of_another_kind_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        compile_model(classifier(), **options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("use", [compile_model, lambda model: Explainer(model, "cpu")])
def test_what_is_no_model_is_refused(use: Any) -> None:
    with pytest.raises(UsageError) as caught:
        use(classifier().SerializeToString())
    assert str(caught.value) == (
        "the model must be a path or an onnx.ModelProto, not of type bytes.\n"
        "  Bytes become one by onnx.load_model_from_string."
    )
    with pytest.raises(UsageError, match=r"^the model must be a path or an onnx\.ModelProto, not of type NoneType\.$"):
        use(None)


def test_what_is_no_path_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^path must be where to write, a text or a Path, not 5\.$"):
        compile_file(classifier(), 5)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    onnx.save(classifier(), tmp_path / "model.onnx")
    compiled = compile_model(str(tmp_path / "model.onnx"), target=np.int64(2), output_index=np.int32(0), steps=3,
                             method="integrated-gradients")  # fmt: skip
    assert any(
        entry.key == "onnxplain.parameters" and '"target": "2"' in entry.value for entry in compiled.metadata_props
    )
