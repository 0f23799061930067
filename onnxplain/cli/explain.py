"""`onnxplain explain`: pictures in, overlays and attributions out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxplain.cli import options as o
from onnxplain.cli import report
from onnxplain.cli.pixels import preprocess_for
from onnxplain.compiler import explained
from onnxplain.errors import OnnxplainError, UsageError
from onnxplain.interface import BASELINE, NOISE, TARGET, Metadata
from onnxplain.ir.load import load
from onnxplain.ir.save import to_proto
from onnxplain.opening import Request

if TYPE_CHECKING:
    from onnxplain.runtime.explainer import Explainer
    from onnxplain.runtime.preprocess import Said
    from onnxplain.runtime.results import Record

DEFAULT_METHOD = "gradient"

_INSTEAD = {
    BASELINE: "Name one: --baseline zeros, black, mean, blur, or a .npy file",
    NOISE: "Leave it out: noise is then drawn in the graph",
}


def explain_command(
    model: Annotated[Path, typer.Argument(help="An explained model, or a trained one.", show_default=False)],
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write to.")] = Path("explanations"),
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            metavar="NAME[,NAME]",
            help="For a trained model; gradient by default. May be repeated.",
        ),
    ] = None,
    target: o.Target = None,
    input: o.Input = None,
    output: o.Output = None,
    output_index: o.OutputIndex = None,
    at: o.At = None,
    class_axis: o.ClassAxis = None,
    layout: o.Layout = None,
    given: o.Set = None,
    layer: o.Layer = None,
    baseline: o.Baseline = None,
    noise: o.Noise = None,
    composite: o.Composite = None,
    preprocess: o.Named = None,
    scale: o.Scale = None,
    mean: o.Mean = None,
    std: o.Std = None,
    order: o.Order = None,
    resize: o.Resize = None,
    size: o.Size = None,
    labels: Annotated[Path | None, typer.Option(help="Names of the classes: one in each line, or JSON.")] = None,
    colormap: Annotated[str, typer.Option(help="A look-up table of Matplotlib.")] = "jet",
    alpha: Annotated[float, typer.Option(help="How much of the colour lies over the picture, 0 to 1.")] = 0.45,
    provider: o.Provider = "auto",
    cuda: o.Cuda = None,
    threads: o.Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each map on stdout.")] = False,
) -> None:
    """Explain pictures: heatmaps laid over them, raw attributions, and a line of JSON for each.

    A trained model is compiled in memory first, for the provider that it then runs on. For each picture the folder gets
    <name>.png, <name>.npy and an entry in explanations.jsonl. A picture that cannot be read is reported, the others are
    explained, and the exit status is 1.
    """
    from onnxplain.runtime.images import PictureInput, find, read
    from onnxplain.runtime.overlay import check_alpha, check_colormap
    from onnxplain.runtime.results import Results, labels_by_class, read_labels

    check_colormap(colormap)
    check_alpha(alpha)
    named = None if labels is None else read_labels(labels)
    said = o.said(preprocess, scale, mean, std, order, resize)
    files = find(images)
    sugar = {"layer": layer, "baseline": baseline, "noise": noise, "composite": composite}
    request = o.request(
        method or [DEFAULT_METHOD],
        target=target,
        input=input,
        output=output,
        output_index=output_index,
        at=at,
        class_axis=class_axis,
        layout=layout,
        given=given,
        sugar=sugar,
    )
    options = o.cuda(cuda, provider)
    explain, told = _opened(model, request, said, not method, provider, {"threads": threads, "cuda": options})
    o.refuse_unused(options, explain.provider)
    how = preprocess_for(explain, said)
    _tell_assumed(explain, said)
    pictures = PictureInput.of(explain.input, explain.layout, how, o.size(size))
    names = {} if labels is None or named is None else labels_by_class(named, explain.classes, labels)
    failed = 0
    with Results(out, explain, files, colormap, alpha, names) as results, _progress(files) as shown:
        for path in shown:
            try:
                sample, seen = pictures.prepare(read(path))
                records = results.add(path, seen, explain(sample, **told))
            except UsageError:
                raise
            except OnnxplainError as error:
                report.complain(error)
                failed += 1
            else:
                _tell(records, as_json)
                failed += _complain_of_numbers(records)
    done = len(files) - failed
    report.say(f"explained {done} of {len(files)} pictures by {explain.metadata.method} on {explain.provider}: {out}")
    if failed:
        raise typer.Exit(report.FAILED)


def _opened(
    model: Path, request: Request, said: Said, unsaid: bool, provider: str, how: dict[str, Any]
) -> tuple[Explainer, dict[str, int]]:
    """The graph to run and what each call is to say beside the picture: the class, if it is one that is told it.

    unsaid: whether no method was asked for.
    """
    from onnxplain.runtime.explainer import Explainer
    from onnxplain.runtime.preprocess import Preprocess
    from onnxplain.runtime.session import lowered_for

    metadata = Metadata.read({entry.key: entry.value for entry in load(model).proto.metadata_props})
    if metadata is None:
        if str(request.target) == "input":
            raise UsageError("--target input is for programs that feed the class.\n  Give the class: --target CLASS.")
        for role, instead in _INSTEAD.items():
            if request.parameters.get(role) == "input":
                raise UsageError(f"--{role} input is for programs that feed the {role}.\n  {instead}.")
        known = said.over(Preprocess()).to_dict() if said.numbers else None
        subject = explained(model, replace(request, runtime=lowered_for(provider), preprocess=known))
        report.remark(subject.remarks)
        return _fed_by_pictures(Explainer(to_proto(subject), provider, **how), model), {}
    told = TARGET in metadata.inputs
    standard = Request(method=request.method, target=request.target if told else "top1")
    if request != standard or not (unsaid or request.method == metadata.method):
        raise UsageError(
            f"{o.already_compiled(metadata, model.name)}.\n"
            "  --method, --target and parameters are for a trained model: give that, or leave them out."
        )
    if not told:
        return _fed_by_pictures(Explainer(model, provider, **how), model), {}
    if not (str(request.target).isascii() and str(request.target).isdecimal()):
        raise UsageError(f"{model.name} is told the class by each run: give it with --target CLASS.")
    explain = _fed_by_pictures(Explainer(model, provider, **how), model)
    return explain, {explain.argument(TARGET): int(request.target)}


def _fed_by_pictures(explain: Explainer, model: Path) -> Explainer:
    """The graph, if it takes nothing but pictures and the class. Raises: UsageError."""
    given = [explain.input.name, explain.metadata.inputs.get(TARGET)]
    others = [name for name in explain.inputs if name not in given]
    if others:
        raise UsageError(
            f"{model.name} also takes {', '.join(map(repr, others))}, and this command feeds pictures alone.\n"
            "  Run it from Python, where a call takes each by its name: onnxplain.Explainer."
        )
    return explain


def _tell_assumed(explain: Explainer, said: Said) -> None:
    """Say so where nothing tells how pixels become the input, and that is no matter of its type."""
    if said.numbers or explain.metadata.preprocess is not None or explain.input.dtype.kind in "iu":
        return
    report.say(
        "note: the model does not say how pixels become its input, so pixel / 255 is assumed (--preprocess unit).\n"
        "  If it was trained otherwise the explanation is wrong without looking it: say how with --preprocess,\n"
        "  or with --scale, --mean and --std."
    )


@contextmanager
def _progress(files: list[Path]) -> Iterator[Iterable[Path]]:
    """The files, with a bar on a terminal where there are several."""
    if len(files) < 2 or not sys.stderr.isatty():
        yield files
        return
    from rich.console import Console
    from rich.progress import Progress

    # Rich would send what is printed to its own console, which is not where a redirected stdout goes.
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
        yield progress.track(files, description="explaining")


def _complain_of_numbers(records: list[Record]) -> bool:
    """Whether an attribution is not finite, which is said: where it is not, the heatmap shows nothing that counts."""
    unsound = [record for record in records if "not_finite" in record]
    for record in unsound:
        report.say(
            f"{record['file']}: {record['not_finite']} values of the attribution by {record['method']} are infinite or"
            " no numbers.\n"
            "  The model divides by zero or overflows at this picture, in its values or in their slopes; do not use"
            f" this map.\n  Look at {record['attribution']}, and at the preprocessing if it happens at every picture."
        )
    return bool(unsound)


def _tell(records: list[Record], as_json: bool) -> None:
    for record in records:
        if as_json:
            typer.echo(json.dumps(record, ensure_ascii=False))
            continue
        label = f" {record['label']}" if "label" in record else ""
        score = "no number" if record["score"] is None else f"{record['score']:.4g}"
        typer.echo(f"{record['file']}: class {record['class']}{label}, score {score}, {record['overlay']}")
