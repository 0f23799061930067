"""`onnxplain verify`: whether an explained model does what it promises."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxplain.cli import options as o
from onnxplain.cli import report
from onnxplain.cli.pixels import preprocess_for
from onnxplain.errors import UsageError, VerificationFailed
from onnxplain.interface import DIAGNOSTICS, SCORE

if TYPE_CHECKING:
    from rich.table import Table

    from onnxplain.runtime.explainer import Explainer
    from onnxplain.runtime.feeds import Array
    from onnxplain.runtime.preprocess import Said
    from onnxplain.runtime.verify import Check


def verify_command(
    explained: Annotated[Path, typer.Argument(help="What `onnxplain compile` wrote.", show_default=False)],
    against: Annotated[
        Path, typer.Option("--against", help="The model that it was compiled from.", show_default=False)
    ],
    images: Annotated[
        list[Path] | None, typer.Option("--images", help="Pictures or folders to run; may be repeated.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="What random samples are drawn from where no pictures are given.")
    ] = 0,
    feed: Annotated[
        list[str] | None,
        typer.Option(
            "--feed", metavar="NAME=FILE.npy", help="Values of an input; by default they are made up. May be repeated."
        ),
    ] = None,
    provider: o.Provider = "cpu",
    cuda: o.Cuda = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="cpu|cuda|portable",
            help="Also check what this runtime would make of the graph; neither it nor a card is needed.",
        ),
    ] = None,
    preprocess: o.Named = None,
    scale: o.Scale = None,
    mean: o.Mean = None,
    std: o.Std = None,
    order: o.Order = None,
    resize: o.Resize = None,
    size: o.Size = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check an explained model against the model it was compiled from.

    The model's own outputs must be its own to 1e-5, maps finite and of the shapes promised, heatmaps within 0 and 1,
    and a gradient the slope that finite differences measure.

    With --provider cuda attributions must also be those of the CPU: to 1e-3, or to five times what they move when the
    input changes in its last bits.

    With --for cuda every node must have a CUDA kernel and no tensor be copied to the CPU and back; with --for portable
    only operators may be added that every runtime has.
    """
    from onnxplain.runtime.explainer import Explainer
    from onnxplain.runtime.made_up import given_in
    from onnxplain.runtime.verify import verify

    said = o.said(preprocess, scale, mean, std, order, resize)
    options = o.cuda(cuda, provider)
    explain = Explainer(explained, provider, cuda={"use_tf32": "0"} | (options or {}))
    o.refuse_unused(options, explain.provider)
    reference = None if explain.provider == "cpu" else Explainer(explained, "cpu")
    sides = o.size(size)
    given = given_in(explain, feed or [])
    batches = _batches(explain, given, images or [], said, sides, seed)
    checks = merged(verify(explained, explain, against, batches, reference, given))
    if runtime is not None:
        checks += _lint(explained, runtime)
    failed = [check for check in checks if not check.kept]
    if as_json:
        typer.echo(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        table = report.table("promise", "found", "kept")
        for check in checks:
            table.add_row(
                check.promise, check.found, "yes" if check.kept else "NO", style="" if check.kept else "bold red"
            )
        report.console().print(table)
        if explain.metadata.diagnostics is not None:
            report.console().print(_ledger(explain, batches[0], given))
    if failed:
        broken = "\n".join(f"  {check.promise}: {check.found}" for check in failed)
        raise VerificationFailed(f"{explained.name} breaks {len(failed)} of its {len(checks)} promises:\n{broken}")


def _lint(explained: Path, runtime: str) -> list[Check]:
    import onnx

    from onnxplain.placement.checks import check_for

    return check_for(runtime, onnx.load(explained, load_external_data=False))


def merged(checks: Iterable[Check]) -> list[Check]:
    """One check for each promise: the first that is broken, or the first of all, of as many samples as there are."""
    found: dict[str, list[Check]] = {}
    for check in checks:
        found.setdefault(check.promise, []).append(check)
    return [
        replace(shown, found=f"{shown.found} (1 of {len(same)})") if len(same) > 1 else shown
        for same in found.values()
        for shown in [next((check for check in same if not check.kept), same[0])]
    ]


def _ledger(explain: Explainer, batch: Array, given: Mapping[str, Array]) -> Table:
    """What arrives at each node and what is lost there, for the first sample; losses above a thousandth are marked."""
    from onnxplain.runtime.verify import for_best_class

    result = for_best_class(explain, batch, given)
    score = float(result[SCORE][0])
    table = report.table("node", "operator", "rule", "arrives", "passed on", "lost")
    for (node, op, rule), (arrived, passed) in zip(
        explain.metadata.diagnostics or (), result[DIAGNOSTICS][0].tolist(), strict=True
    ):
        lost = arrived - passed
        notable = abs(lost) > 1e-3 * abs(score)
        table.add_row(node, op, rule, f"{arrived:.4g}", f"{passed:.4g}", f"{lost:.2g}" if notable else "")
    table.title = f"relevance of sample 0, whose score is {score:.4g}"
    return table


def _batches(
    explain: Explainer,
    given: dict[str, Array],
    images: list[Path],
    said: Said,
    size: tuple[int, int] | None,
    seed: int,
) -> list[Array]:
    """What is explained: the samples that were given, which are taken out of there, or pictures, or random ones."""
    from onnxplain.runtime.images import PictureInput, find, read
    from onnxplain.runtime.preprocess import Said
    from onnxplain.runtime.verify import random_batch

    fed = given.pop(explain.input.name, None)
    if fed is not None and images:
        raise UsageError(
            f"--images and --feed {explain.input.name} both give what is explained: leave one of them out."
        )
    if not images:
        if said != Said():
            raise UsageError(
                "--preprocess, --scale, --mean, --std, --order and --resize are for pictures, and none are given.\n"
                "  Name some with --images, or leave them out."
            )
        batch = random_batch(explain, seed, size, given) if fed is None else fed
        if size is not None and tuple(batch.shape[axis] for axis in explain.layout.spatial) != size:
            raise UsageError(f"size {size[0]}x{size[1]} does not fit: {explain.input}.")
        return [batch]
    pictures = PictureInput.of(explain.input, explain.layout, preprocess_for(explain, said), size)
    return [pictures.prepare(read(path))[0][None] for path in find(images)]
