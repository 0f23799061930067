"""`onnxplain compile`: a model in, an explained model out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from onnxplain.cli import options as o
from onnxplain.cli import report
from onnxplain.compiler import explained
from onnxplain.errors import BadModel, UsageError
from onnxplain.interface import Metadata
from onnxplain.ir.load import refuse_no_file
from onnxplain.ir.save import write
from onnxplain.opening import Request


def compile_command(
    model: Annotated[Path, typer.Argument(help="The trained model, an .onnx file.", show_default=False)],
    method: o.Method,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Where to write; <model>.<method>.onnx beside the model by default."),
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
    diagnostics: Annotated[
        bool,
        typer.Option(
            "--diagnostics", help="For methods of relevance: also return what arrives at each node and is passed on."
        ),
    ] = False,
    runtime: o.For = "portable",
    preprocess: o.Named = None,
    scale: o.Scale = None,
    mean: o.Mean = None,
    std: o.Std = None,
    order: o.Order = None,
    resize: o.Resize = None,
) -> None:
    """Compile a classifier into a graph that explains itself.

    The result takes the model's own inputs and returns its own outputs, then attribution, heatmap, explained_class and
    explained_score. How pictures become the input may be written into it: --preprocess and the options below.
    """
    began = time.perf_counter()
    request = o.request(
        method,
        target=target,
        input=input,
        output=output,
        output_index=output_index,
        at=at,
        class_axis=class_axis,
        layout=layout,
        given=given,
        sugar={"layer": layer, "baseline": baseline, "noise": noise, "composite": composite},
        preprocess=o.preprocess(preprocess, scale, mean, std, order, resize),
        diagnostics=diagnostics,
        runtime=runtime,
    )
    path = destination(model, out, request.method)
    result = explained(model, request)
    written = write(result, path)
    report.remark(result.remarks)
    _tell(written, request, Metadata.read(result.notes.model), time.perf_counter() - began)


def destination(model: Path, out: Path | None, method: str) -> Path:
    """Where the result goes.

    Raises: BadModel if there is no such model; UsageError if the result would replace it or has no place.
    """
    refuse_no_file(model)
    name = f"{model.stem}.{'+'.join(part.strip() for part in method.split(','))}.onnx"
    path = model.with_name(name) if out is None else out / name if out.is_dir() else out
    if path.exists() and path.samefile(model):
        raise UsageError(f"{path} is the model itself, which would be overwritten.\n  Name another file with -o.")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {path.parent}.\n  Make it first.")
    return path


def megabytes(files: list[Path]) -> str:
    """Their size together.

    >>> megabytes([])
    '0.0 MB'
    """
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


def _tell(written: list[Path], request: Request, metadata: Metadata | None, seconds: float) -> None:
    if metadata is None:
        raise BadModel("the compiled model lacks its metadata.")
    explains = (
        f"output {metadata.parameters['output']!r} by input {metadata.inputs['input']!r}, target {request.target}"
    )
    files = " and ".join(map(str, written))
    typer.echo(f"wrote {files}, {megabytes(written)}, in {seconds:.1f} s")
    typer.echo(f"  method    {metadata.method}")
    typer.echo(f"  explains  {explains}")
    typer.echo(f"  returns   {', '.join(metadata.outputs.values())}")
    extra = [name for role, name in metadata.inputs.items() if role != "input"]
    if extra:
        typer.echo(f"  takes     {', '.join(extra)} besides the model's own inputs")
