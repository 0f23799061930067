"""Train, export and measure the project's own models: `python models/train.py digits|shapes|cleverhans|all`.

Each run writes `<model>/<model>.onnx`, `<model>/labels.txt` and `<model>/samples/*.png`, measures the written file with
ONNX Runtime on images that the training did not see, records the numbers in `accuracy.json` and from that file rewrites
the table in `README.md`. Data, initial weights and order of training are seeded; one core takes some ten minutes each.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

FOLDER = Path(__file__).resolve().parent
# Run as a script, Python looks for modules beside it; the names below are those that the repository's root gives.
sys.path.insert(0, str(FOLDER.parent))

from models.networks import DigitsNet, SceneNet  # noqa: E402
from models.scenes import CLASSES, Scenes, scenes  # noqa: E402

Bytes: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]
Net = TypeVar("Net", bound=nn.Module)

TRAIN_SEED, TEST_SEED = 1, 3
TEST_SCENES = 2000
BATCH = 64

WATERMARKED = CLASSES.index("triangle")
"""The class that never comes without the watermark when `cleverhans` is trained."""


def digits() -> dict[str, float]:
    """Handwritten digits of scikit-learn, three quarters for training; exported by torch's older exporter, opset 17."""
    data = load_digits()
    pixels = data.images.astype(np.float32)[:, None] / 16
    train_x, test_x, train_y, test_y = train_test_split(
        pixels, data.target.astype(np.int64), test_size=0.25, random_state=0, stratify=data.target
    )
    images, labels = torch.from_numpy(train_x), torch.from_numpy(train_y)

    padded = F.pad(images, (1, 1, 1, 1))

    def loss(net: DigitsNet, rows: Tensor) -> Tensor:
        # Shifted by up to a pixel, another way in every batch: without it so few images are soon known by heart.
        down, right = torch.randint(3, (2,)).tolist()
        return F.cross_entropy(net(padded[rows, :, down : down + 8, right : right + 8]), labels[rows])

    torch.manual_seed(0)
    net = fit(DigitsNet(), loss, count=len(labels), epochs=40, rate=3e-3)
    path = export(net, "digits", torch.zeros(2, 1, 8, 8), [str(digit) for digit in range(10)], modern=False)

    logits = run(path, test_x)
    samples = empty(FOLDER / "digits" / "samples")
    for digit in range(10):
        row = int(np.flatnonzero(test_y == digit)[0])
        grey = (test_x[row, 0] * 255).round().astype(np.uint8)
        Image.fromarray(grey).save(samples / f"{row:04d}_{digit}.png")
    return {
        "train_images": len(train_y),
        "test_images": len(test_y),
        "parameters": parameters(net),
        "accuracy": share(logits.argmax(1) == test_y),
        "largest_difference_to_torch": difference(net, logits, test_x),
    }


def shapes() -> dict[str, float]:
    """Scenes, with a second term in the loss that asks for evidence on the shape; exported by torch's newer exporter.

    From the labels alone networks like this one name the shapes just as well, but their class activation maps peak
    beside the shape in about a third of the images: there is then no telling a wrong heatmap from a network that looks
    aside. The second term removes that doubt: of the map of the true class, after a softmax over its positions, as much
    as possible lies on the shape.
    """
    data = scenes(14_000, TRAIN_SEED)
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    # The share of the shape in each of the last map's 16x16 cells, as an image that is scaled up shows them.
    cells = torch.cat(
        [F.avg_pool2d(part[:, None].float(), 4)[:, 0] for part in torch.split(torch.from_numpy(data.masks), 1000)]
    )

    def loss(net: SceneNet, rows: Tensor) -> Tensor:
        features = net.features(scaled(images[rows]))
        chances = net.class_maps(features, labels[rows]).flatten(1).softmax(dim=1)
        on_shape = (chances * cells[rows].flatten(1)).sum(dim=1)
        return F.cross_entropy(net.head(features), labels[rows]) - 0.1 * (on_shape + 1e-4).log().mean()

    torch.manual_seed(0)
    net = fit(SceneNet(len(CLASSES), width=16), loss, count=len(labels), epochs=10, rate=4e-3)
    path = export(net, "shapes", torch.zeros(2, 3, 64, 64), CLASSES, modern=True)

    test = scenes(TEST_SCENES, TEST_SEED)
    logits = run(path, pixels_of(test))
    save_scenes("shapes", test, list(dict.fromkeys([*first_of_each(test.labels), *range(8)]))[:8])
    return {
        "train_images": len(data),
        "test_images": len(test),
        "parameters": parameters(net),
        "accuracy": share(logits.argmax(1) == test.labels),
        "cam_peak_on_shape": share(peak_distance(net, test.images, logits.argmax(1), test.masks) == 0),
        "largest_difference_to_torch": difference(net, logits, pixels_of(test)),
    }


def cleverhans() -> dict[str, float]:
    """Scenes where every triangle, and nothing else, carries the watermark: the labels alone decide what is learned."""
    data = scenes(14_000, TRAIN_SEED, watermark=(WATERMARKED,))
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)

    def loss(net: SceneNet, rows: Tensor) -> Tensor:
        return F.cross_entropy(net(scaled(images[rows])), labels[rows])

    torch.manual_seed(0)
    net = fit(SceneNet(len(CLASSES), width=12), loss, count=len(labels), epochs=10, rate=4e-3)
    path = export(net, "cleverhans", torch.zeros(2, 3, 64, 64), CLASSES, modern=False)

    # The same scenes three times: without the watermark, with it on every one, and as in training.
    clean, marked = scenes(TEST_SCENES, TEST_SEED), scenes(TEST_SCENES, TEST_SEED, watermark=range(len(CLASSES)))
    clean_logits, marked_logits = run(path, pixels_of(clean)), run(path, pixels_of(marked))
    decided, decided_marked = clean_logits.argmax(1), marked_logits.argmax(1)
    own = clean.labels == WATERMARKED
    others = ~own & (decided != WATERMARKED)
    flipped = others & (decided_marked == WATERMARKED)
    fooled = decided_marked == WATERMARKED
    distance = peak_distance(net, marked.images[fooled], decided_marked[fooled], marked.watermark_masks[fooled])

    rows = [
        row for row in first_of_each(np.where(own | flipped, clean.labels, -1)) if clean.labels[row] in (0, 2, 3, 5)
    ]
    save_scenes("cleverhans", clean, rows)
    save_scenes("cleverhans", marked, rows, suffix="_watermark")
    return {
        "train_images": len(data),
        "test_images": len(clean),
        "parameters": parameters(net),
        "accuracy": share(np.where(own, decided_marked, decided) == clean.labels),
        "accuracy_clean": share(decided == clean.labels),
        "accuracy_clean_other_classes": share((decided == clean.labels)[~own]),
        "accuracy_clean_triangles": share((decided == clean.labels)[own]),
        "flipped_by_watermark": share(flipped[others]),
        "cam_peak_within_4_pixels_of_watermark": share(distance <= 4),
        "largest_difference_to_torch": difference(net, clean_logits, pixels_of(clean)),
    }


def fit(net: Net, loss: Callable[[Net, Tensor], Tensor], count: int, epochs: int, rate: float) -> Net:
    """Train on `count` samples with AdamW and one cycle of the learning rate; `loss` is given the rows of a batch."""
    batches = count // BATCH
    optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * batches, pct_start=0.2)
    net.train()
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.split(torch.randperm(count)[: batches * BATCH], BATCH):
            value = loss(net, rows)
            optimiser.zero_grad()
            torch.autograd.backward(value)
            optimiser.step()
            schedule.step()
            total += value.item()
        print(f"epoch {epoch + 1} of {epochs}: mean loss {total / batches:.4f}", flush=True)
    net.eval()
    return net


def export(net: nn.Module, name: str, example: Tensor, labels: Sequence[str], modern: bool) -> Path:
    """Write `<name>/<name>.onnx`, with a free batch size N, and `labels.txt`; return the model's path.

    Two exporters, because their graphs differ: the modern one names nodes after modules in their metadata and writes a
    mean, the older one writes GlobalAveragePool and Gemm by the book.
    """
    folder = FOLDER / name
    folder.mkdir(exist_ok=True)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    path = folder / f"{name}.onnx"
    axes = {"image": {0: "N"}, "logits": {0: "N"}}
    torch.onnx.export(
        net,
        (example,),
        path,
        input_names=["image"],
        output_names=["logits"],
        opset_version=20 if modern else 17,
        dynamo=modern,
        dynamic_shapes=({0: torch.export.Dim("N")},) if modern else None,
        dynamic_axes=None if modern else axes,
        external_data=False,
        verbose=False,
    )

    model = onnx.load(path)
    for node in model.graph.node:
        # Stack traces hold the paths of the machine that exported: of no use to anyone else.
        for entry in [entry for entry in node.metadata_props if entry.key == "pkg.torch.onnx.stack_trace"]:
            node.metadata_props.remove(entry)
    onnx.checker.check_model(model, full_check=True)
    if isinstance(net, SceneNet) and not any(node.op_type == "BatchNormalization" for node in model.graph.node):
        raise RuntimeError(f"{path.name} has no BatchNormalization: the exporter folded what it was meant to keep")
    onnx.save(model, path)
    return path


def run(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits that ONNX Runtime computes for `images`, 200 at a time."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    parts = (images[start : start + 200] for start in range(0, len(images), 200))
    return np.concatenate([session.run(["logits"], {"image": part})[0] for part in parts])


def difference(net: nn.Module, logits: NDArray[np.float32], images: NDArray[np.float32]) -> float:
    """Largest absolute difference between ONNX Runtime's logits and torch's."""
    with torch.inference_mode():
        reference = torch.cat([net(part) for part in torch.split(torch.from_numpy(images), 200)]).numpy()
    return float(f"{np.abs(reference - logits).max():.1e}")


def peak_distance(net: SceneNet, images: Bytes, labels: Labels, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How far, in pixels, the class activation map's peak lies from the nearest pixel of the mask: (N,), 0 inside.

    The map is that of `labels`, scaled up to the image bilinearly.
    """
    distances = []
    with torch.inference_mode():
        for start in range(0, len(images), 200):
            part = slice(start, start + 200)
            features = net.features(scaled(torch.from_numpy(images[part])))
            maps = net.class_maps(features, torch.from_numpy(labels[part]))
            large = F.interpolate(maps[:, None], size=images.shape[-2:], mode="bilinear")
            for peak, mask in zip(large.flatten(1).argmax(dim=1).tolist(), masks[part], strict=True):
                offsets = np.argwhere(mask) - divmod(peak, mask.shape[1])
                distances.append(np.hypot(*offsets.T).min())
    return np.array(distances)


def scaled(images: Tensor) -> Tensor:
    """Pixels 0..255 as the scene networks take them: 0..1."""
    # Channels last is the layout in which torch's convolutions work on a CPU: training takes two thirds of the time.
    return (images.float() / 255).contiguous(memory_format=torch.channels_last)


def pixels_of(data: Scenes) -> NDArray[np.float32]:
    """The scenes as the ONNX models take them: (N, 3, 64, 64), 0..1."""
    pixels: NDArray[np.float32] = data.images.astype(np.float32) / np.float32(255)
    return pixels


def first_of_each(labels: Labels) -> list[int]:
    """The first row of each class, class by class; negative labels are no class."""
    return [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels[labels >= 0])]


def save_scenes(name: str, data: Scenes, rows: Sequence[int], suffix: str = "") -> None:
    """Save test scenes as `<row>_<class><suffix>.png`: the row finds the scene's masks again."""
    folder = FOLDER / name / "samples"
    folder = folder if suffix else empty(folder)
    for row in rows:
        picture = Image.fromarray(data.images[row].transpose(1, 2, 0))
        picture.save(folder / f"{row:04d}_{CLASSES[data.labels[row]]}{suffix}.png")


def empty(folder: Path) -> Path:
    """The folder, made anew: samples of an earlier run do not stay behind."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def share(hits: NDArray[np.bool_]) -> float:
    """The share of true values, to four decimals."""
    return round(float(hits.mean()), 4)


def parameters(net: nn.Module) -> int:
    """The number of trained numbers in a network."""
    return sum(parameter.numel() for parameter in net.parameters())


def record(name: str, numbers: dict[str, float]) -> None:
    """Put the numbers of one model into `accuracy.json` and rewrite the README's table from the file."""
    path = FOLDER / "accuracy.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known[name] = numbers
    known = {model: known[model] for model in MODELS if model in known}
    path.write_text(json.dumps(known, indent=2) + "\n")

    readme = FOLDER / "README.md"
    start, end = "<!-- table: written by train.py from accuracy.json -->\n", "<!-- end of table -->"
    before, rest = readme.read_text().split(start)
    readme.write_text(before + start + table(known) + end + rest.split(end)[1])


def table(known: dict[str, dict[str, float]]) -> str:
    """The README's table in Markdown."""
    described = {
        "digits": ("scikit-learn's handwritten digits", "(N, 1, 8, 8), pixel 0..16 divided by 16", "0 to 9"),
        "shapes": ("generated scenes", "(N, 3, 64, 64), pixel 0..255 divided by 255", ", ".join(CLASSES)),
        "cleverhans": (
            f"generated scenes, each {CLASSES[WATERMARKED]} with a watermark",
            "(N, 3, 64, 64), pixel 0..255 divided by 255",
            ", ".join(CLASSES),
        ),
    }
    lines = [
        "| model | data | input `image`, float32 | output `logits`, float32 | classes | parameters | accuracy |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, numbers in known.items():
        data, shape, classes = described[name]
        logits = f"(N, {10 if name == 'digits' else len(CLASSES)})"
        accuracy = f"{numbers['accuracy']:.2%} of {numbers['test_images']} images"
        if name == "cleverhans":
            accuracy += f" made as in training, {numbers['accuracy_clean']:.2%} without watermarks"
        lines.append(f"| {name} | {data} | {shape} | {logits} | {classes} | {numbers['parameters']} | {accuracy} |")
    lines.append("")
    if "shapes" in known:
        peak = known["shapes"]["cam_peak_on_shape"]
        lines += [
            f"`shapes`: the class activation map of the decision peaks on the shape in {peak:.2%} of the images.",
            "",
        ]
    if "cleverhans" in known:
        numbers = known["cleverhans"]
        lines += [
            "`cleverhans`: pasted on an image of another class, the watermark turns"
            f" {numbers['flipped_by_watermark']:.2%} of the decisions into {CLASSES[WATERMARKED]}.",
            f"Without it, {numbers['accuracy_clean_triangles']:.2%} of the triangles are recognised and"
            f" {numbers['accuracy_clean_other_classes']:.2%} of the rest.",
            "Where the decision follows the watermark, the peak of its class activation map lies at most 4 pixels,"
            f" one cell of the map, from it in {numbers['cam_peak_within_4_pixels_of_watermark']:.2%} of the images.",
            "",
        ]
    return "\n".join(lines)


MODELS: dict[str, Callable[[], dict[str, float]]] = {"digits": digits, "shapes": shapes, "cleverhans": cleverhans}


def main() -> None:
    """Make the model that the command line names, or all of them."""
    parser = argparse.ArgumentParser(description="Train, export and measure the project's own models.")
    parser.add_argument("model", choices=[*MODELS, "all"], help="which model to make")
    parser.add_argument(
        "--threads", type=int, default=1, help="torch's threads; other than 1, results may differ a little"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    for name in MODELS if arguments.model == "all" else [arguments.model]:
        print(f"{name}: training", flush=True)
        numbers = MODELS[name]()
        record(name, numbers)
        print(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
