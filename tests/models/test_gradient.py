"""The gradient of every whole model at hand against torch.autograd in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from onnxplain.compiler import compile_file, compile_model
from tests.catalogue import LIGHT_SPECIMENS, SHARED_SPECIMENS, SPECIMENS, Array, Specimen, with_batch
from tests.models.samples import Sample, sample, specimens
from tests.oracle import Oracle, deconv_relu, gradient, guided_relu, input_names, logits_name
from tests.running import assert_near, assert_outputs_kept, exposing, kinks, relative_error, run, session

BATCHES = ((1, (1,)), (3, (3,)), ("N", (1, 3)))
"""The batch that a model declares, and how many pictures it is given."""


def classes_of(given: Sample) -> Array:
    """The class of the highest score, in float64."""
    oracle = Oracle(with_batch(given.model, 3))
    score = logits_name(given.model)
    with torch.no_grad():
        scores = oracle.run({oracle.inputs[0]: torch.from_numpy(given.pictures)}, outputs=[score])[score]
    return scores.flatten(1).argmax(1).numpy()


@pytest.mark.parametrize("specimen", specimens())
def test_gradient_is_autograds_and_outputs_stay_whatever_the_batch(specimen: Specimen, tmp_path: Path) -> None:
    given = sample(specimen)
    classes = classes_of(given)
    truth = gradient(with_batch(given.model, 3), given.pictures, classes).numpy()
    for batch, counts in BATCHES:
        file = tmp_path / f"{batch}.onnx"
        compile_file(with_batch(given.model, batch), file, "gradient")
        onnx.checker.check_model(str(file), full_check=True)
        opened, original = session(file), session(with_batch(given.model, batch))
        for n in counts:
            returned = run(opened, given.pictures[:n])
            np.testing.assert_array_equal(returned["explained_class"], classes[:n])
            assert_near(returned["attribution"], truth[:n], 1e-4, f"{specimen}, batch {batch}, {n} pictures")
            assert_outputs_kept(returned, run(original, given.pictures[:n]))
        file.unlink()


@pytest.mark.parametrize("runtime", ["cpu", "cuda"])
@pytest.mark.parametrize("specimen", specimens(quick=["light_squeezenet"], among=[s for s in SPECIMENS if not s.heavy]))
def test_what_a_graph_is_lowered_for_changes_no_number(specimen: Specimen, runtime: str) -> None:
    given = sample(specimen)
    classes = classes_of(given)
    truth = gradient(with_batch(given.model, 3), given.pictures, classes).numpy()
    compiled = compile_model(with_batch(given.model, "N"), "gradient", runtime=runtime)
    onnx.checker.check_model(compiled, full_check=True)
    assert_near(run(compiled, given.pictures)["attribution"], truth, 1e-4, f"{specimen} for {runtime}")


@pytest.mark.parametrize(("method", "relu"), [("guided-backprop", guided_relu), ("deconvnet", deconv_relu)])
@pytest.mark.parametrize("specimen", specimens())
def test_rectified_gradients_are_autograds_with_patched_relus(specimen: Specimen, method: str, relu: object) -> None:
    given = sample(specimen)
    classes = classes_of(given)
    truth = gradient(with_batch(given.model, 3), given.pictures, classes, relu=relu).numpy()  # type: ignore[arg-type]
    returned = run(compile_model(with_batch(given.model, "N"), method), given.pictures)
    assert_near(returned["attribution"], truth, 1e-4, f"{method} of {specimen}")


@pytest.mark.parametrize("specimen", specimens(quick=[], among=SHARED_SPECIMENS))
def test_gradient_x_input_is_their_product(specimen: Specimen) -> None:
    model, x = with_batch(specimen.load(), "N"), specimen.images(2, 5)
    product = run(compile_model(model, "gradient-x-input"), x)["attribution"]
    np.testing.assert_array_equal(product, run(compile_model(model, "gradient"), x)["attribution"] * x)


@pytest.mark.parametrize("specimen", specimens(quick=["light_squeezenet"], among=LIGHT_SPECIMENS))
def test_where_rounding_flips_a_relu_nothing_else_differs(specimen: Specimen) -> None:
    """Weights as they were drawn, on which float32 puts a few ReLUs of deep networks on the other side of zero.

    With ReLUs and pools decided as ONNX Runtime decided them, autograd gives what the compiled graph gave; the ReLUs
    that differ are few and stood within rounding of zero; and in float64 the compiled graph is exact.
    """
    model, x = with_batch(specimen.load(), 1), specimen.images(1, 11)
    compiled = compile_model(model, "gradient")
    own = {name for node in model.graph.node for name in node.output}
    decided = [name for name in kinks(model) if name in own]
    returned = run(exposing(compiled, decided), x)
    chosen = returned["explained_class"]
    name = input_names(model)[0]
    with torch.no_grad():
        exact = Oracle(model).run({name: torch.from_numpy(x)}, outputs=decided)
    observed = {name: torch.from_numpy(returned[name]) for name in decided}
    assert_near(returned["attribution"], gradient(model, x, chosen, pinned=observed).numpy(), 1e-4, "pinned")

    flips = 0
    for tensor in decided:
        have, want = observed[tensor].double(), exact[tensor]
        differ = (have > 0) != (want > 0)
        flips += int(differ.sum())
        assert torch.where(differ, torch.maximum(have, want), 0).max() <= 1e-3 * want.std()
    assert flips <= 1e-5 * sum(v.numel() for v in exact.values())
    truth = gradient(model, x, chosen).numpy()
    raw = relative_error(returned["attribution"], truth)
    print(f"{specimen}: {flips} ReLUs flip, the gradient differs by {raw:.1e}")
    # the compiled graph's forward pass has its batch norms folded, in float32: its own derivative is meant
    own_truth = gradient(compiled, x, chosen, input_name=name, score=logits_name(model)).numpy()
    with torch.no_grad():
        by_oracle = Oracle(compiled).run({name: torch.from_numpy(x)}, outputs=["attribution"])["attribution"]
    # what a batch norm that stands alone multiplies by was computed when compiling, and rounded to float32
    folded = any(node.op_type == "BatchNormalization" for node in compiled.graph.node)
    assert_near(by_oracle.numpy(), own_truth, 1e-6 if folded else 1e-9, "in float64")
