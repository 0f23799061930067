"""`onnxplain profile`: where the time of an explained model goes, forward and back, layer by layer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from onnxplain.cli import options as o
from onnxplain.cli import report


def profile_command(
    explained: Annotated[Path, typer.Argument(help="What `onnxplain compile` wrote.", show_default=False)],
    batch: Annotated[
        int | None, typer.Option(min=1, help="Samples at a time, by default the model's own or 1.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs to average over.")] = 10,
    top: Annotated[int, typer.Option(min=1, help="How many layers to show.")] = 20,
    provider: o.Provider = "cpu",
    cuda: o.Cuda = None,
    threads: o.Threads = None,
) -> None:
    """Show where the time goes, forward and back: by operator, then for the costliest layers.

    A layer is a node of the model, and what was inserted for it counts there. Nodes that the runtime fused count where
    one of them stood, its changes of layout as forward. On CUDA each kernel is waited for (CUDA_LAUNCH_BLOCKING), so
    that all take longer than they do in a run.
    """
    from onnxplain.runtime.explainer import Explainer
    from onnxplain.runtime.profile import profile

    options = o.cuda(cuda, provider)
    if provider != "cpu":
        os.environ.setdefault("CUDA_LAUNCH_BLOCKING", "1")  # read when the card is first used; launches return at once
    o.refuse_unused(options, Explainer(explained, provider, cuda=options).provider)
    spent = profile(explained, provider, batch=batch, runs=runs, threads=threads, cuda=options)
    by_operator = report.table("operator", "forward ms", "back ms", "nodes")
    for name, (forward, back, count) in spent.operators():
        by_operator.add_row(name, f"{forward:.2f}", f"{back:.2f}", str(count))
    total = spent.total()
    by_operator.add_row("all", f"{total[0]:.2f}", f"{total[1]:.2f}", "", style="bold")
    report.console().print(by_operator)
    by_layer = report.table("layer", "forward ms", "back ms")
    for name, (forward, back) in spent.layers()[:top]:
        by_layer.add_row(name, f"{forward:.2f}", f"{back:.2f}")
    report.console().print(by_layer)
