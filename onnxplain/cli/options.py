"""Options that several commands share, and what they mean together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxplain.errors import UsageError
from onnxplain.interface import Metadata
from onnxplain.opening import Request

if TYPE_CHECKING:
    from onnxplain.runtime.preprocess import Preprocess, Said

_METHOD, _PICTURE = "Method", "Pictures"

Method = Annotated[
    list[str],
    typer.Option(
        "--method", "-m", metavar="NAME[,NAME]",
        help="What explains; `onnxplain methods` lists them. May be repeated.", rich_help_panel=_METHOD,
    ),
]  # fmt: skip
Target = Annotated[
    str | None,
    typer.Option(
        "--target", "-t", metavar="top1|topk:K|input|CLASS",
        help="The class to explain; top1, the best one, by default. input: each run names it.",
        rich_help_panel=_METHOD,
    ),
]  # fmt: skip
Input = Annotated[
    str | None,
    typer.Option("--input", metavar="NAME", help="The input to explain, of several.", rich_help_panel=_METHOD),
]
Output = Annotated[
    str | None,
    typer.Option("--output", metavar="NAME", help="The output with the classes, of several.", rich_help_panel=_METHOD),
]
OutputIndex = Annotated[
    int | None,
    typer.Option("--output-index", metavar="I", help="The same by its number, from 0.", rich_help_panel=_METHOD),
]
At = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="I[,J]|mean",
        help="For scores of every token or pixel: which of them to explain, or their mean.", rich_help_panel=_METHOD,
    ),
]  # fmt: skip
ClassAxis = Annotated[
    int | None,
    typer.Option(
        "--class-axis", metavar="AXIS", help="Where such scores hold the classes; found from the graph by default.",
        rich_help_panel=_METHOD,
    ),
]  # fmt: skip
Layout = Annotated[
    str | None,
    typer.Option(
        "--layout", metavar="auto|channels-first|channels-last|none|AXIS",
        help="Which axis of the input holds channels, if any; found from the graph by default.",
        rich_help_panel=_METHOD,
    ),
]  # fmt: skip
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="A parameter of the method; may be repeated.", rich_help_panel=_METHOD
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        "--layer", metavar="NAME", help="Short for --set layer=NAME: the layer to look at.", rich_help_panel=_METHOD
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        "--baseline", metavar="VALUE", help="Short for --set baseline=VALUE: what to compare with.",
        rich_help_panel=_METHOD,
    ),
]  # fmt: skip
Noise = Annotated[
    str | None,
    typer.Option(
        "--noise", metavar="VALUE", help="Short for --set noise=VALUE: where noise comes from.", rich_help_panel=_METHOD
    ),
]
For = Annotated[
    str,
    typer.Option(
        "--for", metavar="cpu|cuda|portable",
        help="Whose kernels the graph is lowered for; the results are the same.", rich_help_panel=_METHOD,
    ),
]  # fmt: skip
Composite = Annotated[
    str | None,
    typer.Option(
        "--composite", metavar="NAME", help="Short for --set composite=NAME: the rules of LRP.", rich_help_panel=_METHOD
    ),
]

Named = Annotated[
    str | None,
    typer.Option(
        "--preprocess", metavar="unit|imagenet|raw|tf|caffe",
        help="How pixels become the input: pixel/255, ImageNet's mean and deviation, 0 to 255, -1 to 1, Caffe's.",
        rich_help_panel=_PICTURE,
    ),
]  # fmt: skip
Scale = Annotated[
    float | None,
    typer.Option(
        "--scale", help="x = (pixel * SCALE - mean) / std; by default that of --preprocess, else 1/255.",
        rich_help_panel=_PICTURE,
    ),
]  # fmt: skip
Mean = Annotated[
    str | None,
    typer.Option("--mean", metavar="M[,M,M]", help="One number, or one for each channel.", rich_help_panel=_PICTURE),
]
Std = Annotated[
    str | None,
    typer.Option("--std", metavar="S[,S,S]", help="One number, or one for each channel.", rich_help_panel=_PICTURE),
]
Order = Annotated[
    str | None, typer.Option("--order", metavar="rgb|bgr", help="Order of the channels.", rich_help_panel=_PICTURE)
]
Resize = Annotated[
    str | None,
    typer.Option(
        "--resize", metavar="crop|stretch|pad",
        help="How a picture gets the model's size; crop, the centre of the picture, by default.",
        rich_help_panel=_PICTURE,
    ),
]  # fmt: skip
Size = Annotated[
    str | None,
    typer.Option(
        "--size", metavar="HxW", help="For a model that takes any size; the picture's own by default.",
        rich_help_panel=_PICTURE,
    ),
]  # fmt: skip

Provider = Annotated[
    str,
    typer.Option("--provider", metavar="auto|cuda|cpu", help="What to run on; auto is CUDA where it is to be had."),
]
Cuda = Annotated[
    list[str] | None,
    typer.Option(
        "--cuda", metavar="NAME=VALUE",
        help="An option of ONNX Runtime's CUDA provider, such as use_tf32=0 or prefer_nhwc=1; may be repeated. "
        "With --provider cuda.",
    ),
]  # fmt: skip
Threads = Annotated[int | None, typer.Option("--threads", help="How many of the CPU's threads compute one operator.")]


def request(
    methods: Sequence[str],
    *,
    target: str | None = None,
    input: str | None = None,
    output: str | None = None,
    output_index: int | None = None,
    at: str | None = None,
    class_axis: int | None = None,
    layout: str | None = None,
    given: list[str] | None = None,
    sugar: Mapping[str, str | None] | None = None,
    preprocess: Preprocess | None = None,
    diagnostics: bool = False,
    runtime: str = "portable",
) -> Request:
    """What the options ask for. Raises: UsageError for a parameter that is malformed or given twice.

    methods: each one name, or several separated by commas.
    """
    return Request(
        method=",".join(methods),
        target=target or "top1",
        input=input,
        output=output,
        output_index=output_index,
        at=at,
        class_axis=class_axis,
        layout=layout or "auto",
        preprocess=None if preprocess is None else preprocess.to_dict(),
        parameters=parameters(given or [], sugar or {}),
        diagnostics=diagnostics,
        runtime=runtime,
    )


def parameters(given: list[str], sugar: Mapping[str, str | None]) -> dict[str, Any]:
    """name=value texts and the options that are short for them, as one mapping."""
    found: dict[str, Any] = {}
    pairs = [text.partition("=") for text in given] + [(n, "=", v) for n, v in sugar.items() if v is not None]
    for name, equals, value in pairs:
        if not name or not equals:
            raise UsageError(f"--set takes NAME=VALUE, not {name!r}.")
        if name in found:
            raise UsageError(f"parameter {name!r} is given twice.")
        found[name] = value
    return found


def cuda(given: list[str] | None, provider: str) -> dict[str, str] | None:
    """Options of the CUDA provider. Raises: UsageError for one that is malformed, or if CUDA is not asked for."""
    pairs = [text.partition("=") for text in given or []]
    for name, equals, value in pairs:
        if not name or not value:
            raise UsageError(f"--cuda takes NAME=VALUE such as use_tf32=0, not {name + equals!r}.")
    options = {name: value for name, _, value in pairs} or None
    if provider == "cpu":
        refuse_unused(options, provider)
    return options


def refuse_unused(options: Mapping[str, str] | None, provider: str) -> None:
    """Raises: UsageError if there are options of CUDA and the session is on another provider."""
    if options and provider != "cuda":
        raise UsageError(
            f"--cuda {next(iter(options))} is for CUDA, and this runs on {provider}.\n"
            "  Add --provider cuda, or leave it out."
        )


def preprocess(
    name: str | None, scale: float | None, mean: str | None, std: str | None, order: str | None, resize: str | None
) -> Preprocess | None:
    """The preprocessing that the options describe by themselves, None where they say nothing. Raises: UsageError."""
    from onnxplain.runtime.preprocess import Preprocess

    asked = said(name, scale, mean, std, order, resize)
    return asked.over(Preprocess()) if asked.name is not None or asked.fields else None


def said(
    name: str | None, scale: float | None, mean: str | None, std: str | None, order: str | None, resize: str | None
) -> Said:
    """What the options change in a preprocessing. Raises: UsageError."""
    from onnxplain.runtime.preprocess import Said

    fields: dict[str, Any] = {"scale": scale, "order": order, "resize": resize}
    fields |= {"mean": _numbers("--mean", mean), "std": _numbers("--std", std)}
    return Said(name, {field: value for field, value in fields.items() if value is not None})


def size(text: str | None) -> tuple[int, int] | None:
    """A height and width: "224" or "480x640". Raises: UsageError."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not text.isascii() or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UsageError(f"--size takes a height and width like 224 or 480x640, not {text!r}.")
    return int(sides[0]), int(sides[-1])


def already_compiled(metadata: Metadata, name: str) -> str:
    """What to say where a model is asked for and an explained one is given."""
    return f"{name} is already compiled: it explains by {metadata.method}, target {metadata.parameters.get('target')}"


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} takes numbers separated by commas, not {text!r}.") from None
