from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxplain.errors import BadImage, UnsupportedModel, UsageError
from onnxplain.ir.layout import Layout
from onnxplain.runtime.feeds import Port
from onnxplain.runtime.images import PictureInput, find, read, resized
from onnxplain.runtime.preprocess import PREPROCESSES, Preprocess, Said

FIRST, LAST = Layout(4, 1), Layout(4, 3)


def port(*shape: int | str | None, dtype: type = np.float32) -> Port:
    return Port("pixels", shape, np.dtype(dtype))


def gradient_picture(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, blue is 7."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 7)], -1).astype(np.uint8))


@pytest.mark.parametrize(
    ("name", "pixel", "value"),
    [
        ("unit", (0, 51, 255), (0, 0.2, 1)),
        ("raw", (0, 51, 255), (0, 51, 255)),
        ("tf", (0, 127.5, 255), (-1, 0, 1)),
        ("imagenet", (0, 0, 255), (-0.485 / 0.229, -0.456 / 0.224, (1 - 0.406) / 0.225)),
        ("caffe", (1, 2, 3), (3 - 103.939, 2 - 116.779, 1 - 123.68)),
    ],
)
def test_what_the_names_mean(name: str, pixel: tuple[float, ...], value: tuple[float, ...]) -> None:
    np.testing.assert_allclose(Preprocess.named(name).apply(np.array([[pixel]]))[0, 0], value, atol=1e-12)


@pytest.mark.parametrize("name", PREPROCESSES)
def test_it_survives_the_metadata(name: str) -> None:
    made = Preprocess.named(name)
    assert Preprocess.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"means": 1}, r"preprocess has an unknown entry 'means'\. Did you mean 'mean'\?"),
        ({"mean": "a lot"}, "scale, mean and std must be numbers"),
        ({"mean": [123.675, 116.28, 103.53]}, "mean 123.675 does not go with pixels that are scaled by 1/255"),
        ({"std": [1, 0, 1]}, "neither scale nor std may be zero"),
        ({"scale": 0}, "neither scale nor std may be zero"),
        ({"mean": [float("nan")]}, "must be finite"),
        ({"order": "grb"}, "there is no order 'grb'"),
        ({"resize": "crap"}, r"there is no resize 'crap'\. Did you mean 'crop'\?"),
    ],
)
def test_nonsense_is_refused(entries: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Preprocess.from_dict(entries)
    with pytest.raises(UsageError, match=r"there is no preprocessing 'imagnet'\. Did you mean 'imagenet'\?"):
        Preprocess.named("imagnet")


def test_the_layout_decides_where_channels_go() -> None:
    picture = gradient_picture(5, 4)
    raw = Preprocess.named("raw")
    last, _ = PictureInput.of(port("N", 4, 5, 3), LAST, raw).prepare(picture)
    first, seen = PictureInput.of(port("N", 3, 4, 5), FIRST, raw).prepare(picture)
    np.testing.assert_array_equal(last, np.asarray(picture))
    np.testing.assert_array_equal(first, np.asarray(picture).transpose(2, 0, 1))
    assert first.dtype == np.float32
    assert seen.size == (5, 4)


def test_a_layout_without_channels_takes_grey_pictures() -> None:
    picture, raw = gradient_picture(5, 4), Preprocess.named("raw")
    grey = PictureInput.of(port("N", 4, 5), Layout(3, None), raw)
    found, seen = grey.prepare(picture)
    np.testing.assert_array_equal(found, np.asarray(picture.convert("L")))
    assert (seen.mode, seen.size) == ("L", (5, 4))
    between, _ = PictureInput.of(port("N", 4, 3, 5), Layout(4, 2), raw).prepare(picture)
    np.testing.assert_array_equal(between, np.asarray(picture).transpose(0, 2, 1))


def test_channels_follow_the_model() -> None:
    picture = gradient_picture(4, 4)
    grey, seen = PictureInput.of(port("N", 1, 4, 4), FIRST, Preprocess.named("raw")).prepare(picture)
    np.testing.assert_array_equal(grey[0], np.asarray(picture.convert("L")))
    assert seen.mode == "L"
    four, _ = PictureInput.of(port("N", 4, 4, 4), FIRST, Preprocess.named("raw")).prepare(picture)
    assert (four[3] == 255).all()
    colour, _ = PictureInput.of(port("N", 3, 4, 4), FIRST, Preprocess.named("raw")).prepare(picture.convert("L"))
    np.testing.assert_array_equal(colour[0], colour[2])


def test_mean_and_channels_must_agree() -> None:
    grey = PictureInput.of(port("N", 1, 4, 4), FIRST, Preprocess.named("imagenet"))
    with pytest.raises(UsageError, match="mean has 3 numbers, and the model takes 1 channels"):
        grey.prepare(gradient_picture(4, 4))


def test_crop_keeps_the_centre_and_the_proportions() -> None:
    wide = np.asarray(resized(gradient_picture(30, 10), (10, 10), "crop"))
    np.testing.assert_allclose(wide[0, :, 0], np.arange(10, 20), atol=1)
    np.testing.assert_allclose(wide[:, 0, 1], np.arange(10), atol=1)


def test_stretch_keeps_everything_and_pad_adds_black() -> None:
    stretched = np.asarray(resized(gradient_picture(30, 10), (10, 10), "stretch"))
    np.testing.assert_allclose(stretched[0, :, 0], np.arange(1, 30, 3), atol=1)
    padded = np.asarray(resized(gradient_picture(30, 10), (30, 30), "pad"))
    assert (padded[:10] == 0).all()
    assert (padded[20:] == 0).all()
    np.testing.assert_array_equal(padded[10:20], np.asarray(gradient_picture(30, 10)))


def test_an_open_size_is_the_pictures_own_unless_one_is_asked_for() -> None:
    unit, picture = Preprocess(), gradient_picture(7, 6)
    free = port("N", 3, "H", "W")
    assert PictureInput.of(free, FIRST, unit).prepare(picture)[0].shape == (3, 6, 7)
    assert PictureInput.of(free, FIRST, unit, (4, 5)).prepare(picture)[0].shape == (3, 4, 5)
    assert PictureInput.of(port("N", 3, 4, 5), FIRST, unit).prepare(picture)[0].shape == (3, 4, 5)
    with pytest.raises(UsageError, match=r"size 9x9 does not fit: input 'pixels' takes float32 \(N, 3, 4, 5\)"):
        PictureInput.of(port("N", 3, 4, 5), FIRST, unit, (9, 9))


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        (("N", 12), Layout(2, None), "which is no batch of pictures"),
        (("N", 3, 12), Layout(3, 1), "which is no batch of pictures"),
        (("N", 3, 4, 4), Layout(4, None), "which is no batch of pictures"),
        (("N", 3, 4, 4, 4), Layout(5, 1), "which is no batch of pictures"),
        (("N", 12, 4, 4), FIRST, "12 channels, and picture files have 1, 3 or 4"),
    ],
)
def test_inputs_that_are_no_pictures_are_refused(shape: tuple[int | str, ...], layout: Layout, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        PictureInput.of(port(*shape), layout, Preprocess())


def test_folders_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", "c.webp"):
        (tmp_path / name).touch()
    (tmp_path / "inner.png").mkdir()
    assert [path.name for path in find([tmp_path])] == ["a.jpg", "b.PNG", "c.webp"]
    named = [tmp_path / "notes.txt", tmp_path]
    assert [path.name for path in find(named)] == ["notes.txt", "a.jpg", "b.PNG", "c.webp"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"there are no pictures in .*empty"):
        find([tmp_path / "empty"])


def test_unreadable_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match=r"^there is no file .*nothing\.png\.$"):
        read(tmp_path / "nothing.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(BadImage, match=r"text\.png cannot be read as a picture: its format is not known"):
        read(tmp_path / "text.png")
    with pytest.raises(BadImage, match="cannot be read as a picture: it is a folder"):
        read(tmp_path)
    for suffix in ("jpg", "png", "bmp", "gif", "tif"):
        whole = tmp_path / f"whole.{suffix}"
        gradient_picture(64, 64).save(whole)
        (tmp_path / f"half.{suffix}").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        with pytest.raises(BadImage, match=rf"half\.{suffix} cannot be read as a picture"):
            read(tmp_path / f"half.{suffix}")


def test_a_turned_picture_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    gradient_picture(40, 20).save(tmp_path / "turned.png", exif=exif)
    assert read(tmp_path / "turned.png").size == (20, 40)


def test_deep_pixels_are_scaled_not_cut_off(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257 * 100], [65535, 257]], np.uint16)).save(tmp_path / "deep.png")
    picture = read(tmp_path / "deep.png")
    np.testing.assert_array_equal(np.asarray(picture), [[0, 100], [255, 1]])
    Image.fromarray(np.array([[0.5]], np.float32)).save(tmp_path / "real.tif")
    with pytest.raises(BadImage, match="holds real numbers of 32 bits, whose range is not known"):
        read(tmp_path / "real.tif")
    Image.fromarray(np.array([[7]], np.int32)).save(tmp_path / "whole.tif")
    with pytest.raises(BadImage, match="holds whole numbers of 32 bits, whose range is not known"):
        read(tmp_path / "whole.tif")


@pytest.mark.parametrize("most", [65535, 1023])
def test_deep_greymaps(tmp_path: Path, most: int) -> None:
    """Two bytes for each pixel, the larger first; the header says what white is."""
    values = np.array([[0, most // 3], [most, most // 5]], ">u2")
    (tmp_path / "deep.pgm").write_bytes(b"P5\n2 2\n%d\n" % most + values.tobytes())
    np.testing.assert_array_equal(np.asarray(read(tmp_path / "deep.pgm")), [[0, 85], [255, 51]])


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_in_lab(tmp_path: Path, channels: int) -> None:
    """Lightness of 100, 0 and 50 without colour: the middle grey of sRGB is 119."""
    pixels = np.array([[[255, 0, 0], [0, 0, 0]], [[128, 0, 0], [128, 0, 0]]], np.uint8)
    Image.frombytes("LAB", (2, 2), pixels.tobytes()).save(tmp_path / "lab.tif")
    takes = PictureInput.of(port("N", channels, 2, 2), Layout(4, 1), Preprocess.named("raw"))
    sample, _ = takes.prepare(read(tmp_path / "lab.tif"))
    np.testing.assert_allclose(sample, np.broadcast_to([[255, 0], [119, 119]], (channels, 2, 2)), atol=2)


def test_a_mode_that_pillow_cannot_convert_is_named() -> None:
    takes = PictureInput.of(port("N", 3, 2, 2), Layout(4, 1), Preprocess())
    with pytest.raises(BadImage) as caught:
        takes.prepare(Image.new("La", (2, 2)))
    assert str(caught.value) == (
        "a picture in Pillow's mode 'La' cannot be turned into 'RGB'.\n  Save it as plain grey or RGB."
    )


def test_what_is_said_is_laid_over_what_is_known() -> None:
    known = Preprocess(scale=1 / 127.5, mean=(1.0, 0.9, 0.8), std=(0.2,), order="bgr", resize="pad")
    assert Said().over(known) == known
    assert Said(None, {"resize": "crop"}).over(known) == replace(known, resize="crop")
    assert Said(None, {"mean": (0.5,)}).over(known) == replace(known, mean=(0.5,))
    assert Said("imagenet").over(known) == replace(Preprocess.named("imagenet"), resize="pad")
    assert Said("imagenet", {"resize": "stretch", "std": (1.0,)}).over(known) == Preprocess(
        mean=(0.485, 0.456, 0.406), resize="stretch"
    )


def test_a_mean_of_unscaled_pixels_goes_by_the_scale_that_is_known() -> None:
    said = Said(None, {"mean": (123.675,)})
    assert said.over(Preprocess.named("raw")) == Preprocess(scale=1.0, mean=(123.675,))
    with pytest.raises(UsageError, match=r"mean 123\.675 does not go with pixels that are scaled by 1/255"):
        said.over(Preprocess())
    with pytest.raises(UsageError, match=r"there is no resize 'crap'\. Did you mean 'crop'\?"):
        Said(None, {"resize": "crap"})
