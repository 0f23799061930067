"""Whether a compiled graph does what it promises: its structure, and its numbers against the model it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxplain import interface
from onnxplain.errors import BadModel, OnnxplainError, UsageError
from onnxplain.ir.value import shown
from onnxplain.runtime import made_up
from onnxplain.runtime.agreement import ALIKE, LEEWAY, distance
from onnxplain.runtime.bound import running
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.feeds import Array, Port, ports, real
from onnxplain.runtime.portions import in_portions
from onnxplain.runtime.preprocess import Preprocess
from onnxplain.runtime.rounding import roundings
from onnxplain.runtime.scores import class_scores
from onnxplain.runtime.session import open_session, reason
from onnxplain.runtime.sizes import of_samples
from onnxplain.runtime.slope import SLOPES, TOLERANCE, slope_error

RELATIVE = 1e-5
"""Of the largest value of an output. Half precision is allowed four roundings, wherever the model computes in it."""

BATCH = 2
"""Random samples, where the model leaves their number open."""


@dataclass(frozen=True)
class Check:
    """One promise: what was promised, what was found, and whether that keeps it."""

    promise: str
    found: str
    kept: bool


def verify(
    explained: Path,
    explain: Explainer,
    source: Path,
    batches: Sequence[Array],
    reference: Explainer | None = None,
    given: Mapping[str, Array] | None = None,
) -> Iterator[Check]:
    """Check a compiled file against the model it was compiled from, one promise after the other.

    explain:   the compiled file, opened with use_tf32=False, which would blur the comparison.
    source:    the model; it is run on what `explain` runs on.
    batches:   samples to run, in the model's own type and preprocessing (`random_batch` makes some).
    reference: the compiled file on another provider, whose attributions `explain` is to return as well.
    given:     values of the model's other inputs; those that are not given are made up.
    Raises:    OnnxplainError if the model cannot be run at all, or returns no numbers that could be explained.
    """
    original = open_session(source, explain.provider, use_tf32=False)
    yield _well_formed(explained)
    yield _same_source(explain, source)
    for check in _same_interface(explain, ports(original.get_inputs()), [o.name for o in original.get_outputs()]):
        yield check
        if not check.kept:
            return  # the two cannot be fed the same
    coarse = roundings(source)
    for batch in batches:
        others, expected = _run_finite(explain, original, batch, given or {}, source.name)
        yield from _numbers(explain, batch, others, expected, reference, coarse)


def random_batch(
    explain: Explainer, seed: int = 0, size: tuple[int, int] | None = None, given: Mapping[str, Array] | None = None
) -> Array:
    """Seeded samples: for an input of pictures blobs under grain, preprocessed; else standard normal numbers.

    given: values of other inputs, with which the samples share sizes.
    """
    port, layout = explain.input, explain.layout
    rng = np.random.default_rng(seed)
    shape = of_samples(made_up.open_as_given(explain, given or {})[port.name], layout, BATCH, size)
    if len(shape) != 4 or layout.channel is None:
        return (rng.integers(0, 2, shape) if port.dtype.kind in "iu" else rng.standard_normal(shape)).astype(port.dtype)
    channels = shape[layout.channel]
    height, width = (shape[axis] for axis in layout.spatial)
    side = -(-max(height, width) // 8)
    blobs = rng.uniform(0, 255, (shape[0], 8, 8, channels)).repeat(side, 1).repeat(side, 2)[:, :height, :width]
    pixels = np.clip(blobs + rng.normal(0, 25, blobs.shape), 0, 255)
    recorded = explain.metadata.preprocess
    if recorded is not None:
        how = Preprocess.from_dict(recorded)
    else:
        how = Preprocess(scale=1.0, mean=(128.0,)) if port.dtype == np.int8 else Preprocess.assumed(port.dtype)
    values = _held(how.apply(pixels), port.dtype)
    return np.moveaxis(values, 3, layout.channel)


def _held(values: Array, dtype: np.dtype[Any]) -> Array:
    """The nearest numbers that a type has, which are others where it is one of whole numbers."""
    if dtype.kind not in "iu":
        return values.astype(dtype)
    return values.clip(np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


def _well_formed(path: Path) -> Check:
    promise = "a valid ONNX file, types and shapes consistent"
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # the checker raises its own and C++'s errors
        return Check(promise, str(error).strip().splitlines()[0], False)
    return Check(promise, "onnx.checker, full", True)


def _same_source(explain: Explainer, source: Path) -> Check:
    try:
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadModel(f"{source} cannot be read: {error.strerror}.") from None
    promised = explain.metadata.source_sha256
    return Check(f"compiled from {source.name}", f"sha256 {digest[:12]}, recorded {promised[:12]}", digest == promised)


def _same_interface(explain: Explainer, inputs: Mapping[str, Port], outputs: Sequence[str]) -> Iterator[Check]:
    changed = [n for n, port in inputs.items() if n not in explain.inputs or explain.inputs[n] != port]
    yield Check("the model's own inputs, unchanged", _listed(changed, inputs), not changed)
    lost = [name for name in outputs if name not in explain.outputs]
    yield Check("the model's own outputs are there", _listed(lost, outputs), not lost)


def _listed(wrong: Sequence[str], every: Sequence[str] | Mapping[str, Any]) -> str:
    return f"not so: {', '.join(wrong)}" if wrong else ", ".join(every)


def _numbers(
    explain: Explainer,
    batch: Array,
    others: Mapping[str, Array],
    expected: Mapping[str, Array],
    reference: Explainer | None,
    coarse: Mapping[str, float],
) -> Iterator[Check]:
    """others, expected: what the model got beside the batch, and what it returned."""
    added = made_up.added(explain, batch)
    main = _main(explain, expected)
    scores = class_scores(main, explain.metadata.parameters)
    if interface.TARGET in explain.metadata.inputs:
        added[interface.TARGET] = np.zeros(len(batch), np.int64) if scores is None else scores.argmax(1)
    fed = {**others} | {explain.argument(role): array for role, array in added.items()}
    returned = explain(batch, **fed)
    for name, array in expected.items():
        yield _equal(name, returned[name], array, coarse.get(name, 0.0))
    result = {role: returned[explain.key(role)] for role in explain.metadata.outputs}
    if scores is not None:
        yield _classes(explain, result[interface.CLASS], scores, added.get(interface.TARGET))
    for role in explain.metadata.outputs:
        if role.startswith((interface.ATTRIBUTION, interface.HEATMAP, interface.SCORE)):
            yield _map(explain, role, result, batch)
        elif role.startswith(interface.RESIDUAL):
            yield _residual(role, result[role], result[interface.SCORE])
        if role.startswith(interface.ATTRIBUTION) and reference is not None:
            yield _as_reference(reference, role, result[role], batch, fed)
    for method in explain.metadata.method.split(","):
        if method in SLOPES:
            yield _slope(explain, method, batch, fed)
    if interface.TARGET in explain.metadata.inputs:
        beyond = {**others} | {explain.metadata.inputs[role]: array for role, array in added.items()}
        yield _out_of_range(explain, batch, beyond, explain.classes or main.size)


def for_best_class(explain: Explainer, batch: Array, given: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """What a call returns for the best class of each sample, the graph's other inputs made up as `verify` does."""
    told = interface.TARGET in explain.metadata.inputs
    for fill in made_up.FILLS:
        fed = made_up.others(explain, batch, given or {}, fill)
        fed |= {explain.argument(role): array for role, array in made_up.added(explain, batch).items()}
        if told:
            fed[explain.argument(interface.TARGET)] = np.zeros(len(batch), np.int64)
        returned = explain(batch, **fed)
        if _explainable(explain, returned):
            break
    scores = class_scores(_main(explain, returned), explain.metadata.parameters) if told else None
    return (
        returned if scores is None else explain(batch, **{**fed, explain.argument(interface.TARGET): scores.argmax(1)})
    )


def _main(explain: Explainer, returned: Mapping[str, Array]) -> Array:
    """The output that is explained."""
    return returned.get(str(explain.metadata.parameters.get("output")), next(iter(returned.values())))


def _explainable(explain: Explainer, returned: Mapping[str, Array]) -> bool:
    """Whether every sample has a best class, by numbers that are finite."""
    main = _main(explain, returned)
    if not isinstance(main, np.ndarray) or not real(main.dtype) or not main.size:
        return True
    scores = class_scores(main, explain.metadata.parameters)
    return bool(np.isfinite((main.reshape(len(main), -1) if scores is None else scores).max(1)).all())


def _run_finite(
    explain: Explainer, original: Any, batch: Array, given: Mapping[str, Array], name: str
) -> tuple[dict[str, Array], dict[str, Array]]:
    """What the model gets beside the batch, and what it returns: numbers, if there are any that lead to such.

    Raises: OnnxplainError where nothing does.
    """
    for fill in made_up.FILLS:
        others = made_up.others(explain, batch, given, fill)
        expected = _run_original(explain, original, batch, others)
        if _explainable(explain, expected):
            return others, expected
    unsaid = [each for each in others if each not in given]
    feed = ", ".join(f"--feed {each}=FILE.npy" for each in unsaid or [explain.input.name])
    raise OnnxplainError(
        f"{name} itself returns scores that are not finite, so the graph's promises cannot be checked by them.\n"
        f"  Give the model values that it is made for: {feed}{'' if unsaid else ', or pictures with --images'}."
    )


def _run_original(explain: Explainer, original: Any, batch: Array, others: Mapping[str, Array]) -> dict[str, Array]:
    fixed = explain.input.shape[0]
    size = fixed if isinstance(fixed, int) else len(batch)
    names = [o.name for o in original.get_outputs()]

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        try:
            return dict(zip(names, running(original).run(names, {**feeds, **others}), strict=True))
        except OnnxplainError:
            raise
        except Exception as error:  # ONNX Runtime's errors have no common base but this one
            raise OnnxplainError(f"the original model cannot be run on {shown(batch.shape)}: {reason(error)}") from None

    x = explain.input.name
    return in_portions(run, {x: batch}, {x: 0}, count=len(batch), size=size)


def _equal(name: str, have: Array, want: Array, rounding: float) -> Check:
    """rounding: of the model, on the way to that output, as `roundings` has it."""
    if isinstance(want, list):
        return _equal_sequence(name, have, want, rounding)
    if want.dtype.kind != "f":
        same = np.array_equal(have, want)
        return Check(f"output {name!r} as the model's", "equal" if same else "different", bool(same))
    limit = max(RELATIVE, 4 * rounding)
    promise = f"output {name!r} as the model's, to {limit:.0e}"
    if have.shape != want.shape:
        return Check(promise, f"{shown(have.shape)}, the model's {shown(want.shape)}", False)
    finite = np.isfinite(want)
    if not np.array_equal(np.isfinite(have), finite):
        return Check(promise, "not finite where the model's is, or the reverse", False)
    top = float(np.abs(want[finite]).max(initial=0)) or 1.0
    error = float(np.abs(have[finite].astype(np.float64) - want[finite]).max(initial=0)) / top
    return Check(promise, f"{error:.1e}", error <= limit)


def _equal_sequence(name: str, have: Any, want: Sequence[Any], rounding: float) -> Check:
    """Of arrays, or of maps from texts or numbers to numbers."""
    promise = f"output {name!r} as the model's"
    if not isinstance(have, list) or len(have) != len(want):
        return Check(promise, "a sequence of another length", False)
    pairs = [pair for one, other in zip(have, want, strict=True) for pair in _arrays(one, other)]
    checks = [_equal(name, np.asarray(a), np.asarray(b), rounding) for a, b in pairs]
    return next((check for check in checks if not check.kept), checks[0] if checks else Check(promise, "empty", True))


def _arrays(have: Any, want: Any) -> list[tuple[Any, Any]]:
    if not isinstance(want, dict):
        return [(have, want)]
    return [(list(have), list(want)), (np.array([*have.values()], np.float32), np.array([*want.values()], np.float32))]


def _classes(explain: Explainer, classes: Array, scores: Array, given: Array | None) -> Check:
    target = str(explain.metadata.parameters.get("target"))
    first = classes if classes.ndim == 1 else classes[:, 0]
    inside = bool(((classes >= 0) & (classes < scores.shape[1])).all())
    if given is not None:
        kept = np.array_equal(first, given)
    elif target.isdecimal():
        kept = bool((classes == int(target)).all())
    else:
        kept = inside and bool((np.take_along_axis(scores, first[:, None], 1)[:, 0] >= scores.max(1)).all())
    return Check(f"the class explained: target {target}", ", ".join(map(str, first[:8])), inside and kept)


def _map(explain: Explainer, role: str, result: Mapping[str, Array], batch: Array) -> Check:
    """Finite, of the shape promised, and a heatmap within [0, 1]."""
    array = result[role]
    ranked = result[interface.CLASS].shape  # (N,), or (N, K)
    finite = bool(np.isfinite(array).all())
    low, high = (float(array.min()), float(array.max())) if array.size and finite else (np.nan, np.nan)
    found = f"{shown(array.shape)}, {low:.3g} to {high:.3g}"
    spatial = tuple(batch.shape[axis] for axis in explain.layout.spatial)
    if role.startswith(interface.HEATMAP):
        kept = finite and array.shape == (*ranked, *spatial) and low >= 0 and high <= 1
        return Check(f"{role} within [0, 1], of the input's size", found, kept)
    if role.startswith(interface.SCORE):
        return Check(f"{role} finite, one for each class explained", found, finite and array.shape == ranked)
    as_input = array.shape == (*ranked, *batch.shape[1:])
    coarse = array.shape[: len(ranked)] == ranked and array.ndim == len(ranked) + len(spatial)
    return Check(f"{role} finite, of the input's shape or a layer's", found, finite and (as_input or coarse))


def _as_reference(reference: Explainer, role: str, found: Array, batch: Array, fed: Mapping[str, Array]) -> Check:
    """Relative to the attribution's own size, the worst sample."""
    key = reference.key(role)

    def run(x: Array) -> Array:
        return reference(x, **fed)[key]

    apart = distance(found, run(batch), batch, run)
    promise = f"{role} as on {reference.provider}, to {ALIKE:.0e} or {LEEWAY} times what the input's last bits move it"
    moves = "" if apart.moves is None else f"; they move it by {apart.moves:.1e}"
    if moves and batch.dtype.kind != "f":
        moves = f"; {batch.dtype} has none"
    return Check(promise, f"{apart.error:.1e}{moves}", not apart.suspect)


def _residual(role: str, residual: Array, score: Array) -> Check:
    share = float((np.abs(residual) / np.maximum(np.abs(score), 1e-12)).max())
    return Check(f"{role} finite (reported: its share of the score)", f"{share:.2e}", bool(np.isfinite(share)))


def _slope(explain: Explainer, method: str, batch: Array, fed: Mapping[str, Array]) -> Check:
    promise = f"{method} is the score's slope, within {TOLERANCE:.0%} (median over random directions)"
    if batch.dtype.itemsize < 4:
        return Check(promise, f"not measured: {batch.dtype} is too coarse for differences", True)
    error = slope_error(explain, method, batch, fed)
    if error is None:
        return Check(promise, "not measured: every step changes the class explained", True)
    return Check(promise, f"{error:.2%}", error <= TOLERANCE)


def _out_of_range(explain: Explainer, batch: Array, fed: Mapping[str, Array], count: int) -> Check:
    """fed: what the graph takes beside the batch and the class, by the graph's names."""
    size = explain.input.shape[0] if isinstance(explain.input.shape[0], int) else len(batch)
    beyond = {
        **fed,
        explain.metadata.inputs[interface.TARGET]: np.full(size, count, np.int64),
        explain.input.name: batch[np.minimum(np.arange(size), len(batch) - 1)],
    }
    try:
        returned = explain.unchecked(beyond)
    except OnnxplainError as error:
        raise UsageError(f"a class out of range cannot be asked for: {error}") from None
    names = [explain.key(role) for role in explain.metadata.outputs if not role.startswith(interface.CLASS)]
    silent = [name for name in names if not np.isnan(returned[name]).all()]
    return Check("a class out of range is answered by NaN", _listed(silent, names), not silent)
