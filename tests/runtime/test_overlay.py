from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from onnxplain.errors import UsageError
from onnxplain.runtime.overlay import colours, flat, overlay


def test_jet_runs_from_blue_to_red() -> None:
    coloured = colours(np.array([[0.0, 0.5, 1.0]]))
    np.testing.assert_array_equal(coloured[0], [[0, 0, 127], [124, 255, 121], [127, 0, 0]])


def test_an_unknown_colormap_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"there is no colormap 'virdis'\. Did you mean 'viridis'"):
        colours(np.zeros((1, 1)), "virdis")


def test_the_picture_shines_through() -> None:
    picture = Image.new("RGB", (300, 300), (200, 200, 200))
    none = np.asarray(overlay(picture, np.zeros((300, 300)), alpha=0))
    np.testing.assert_array_equal(none, np.asarray(picture))
    whole = np.asarray(overlay(picture, np.ones((300, 300)), alpha=1))
    np.testing.assert_array_equal(whole[0, 0], [127, 0, 0])
    with pytest.raises(UsageError, match="alpha must lie between 0 and 1, not 2"):
        overlay(picture, np.ones((300, 300)), alpha=2)


def test_tiny_pictures_are_enlarged_by_whole_numbers() -> None:
    grey = Image.new("L", (28, 28), 90)
    assert overlay(grey, np.zeros((28, 28))).size == (280, 280)
    assert overlay(Image.new("RGB", (300, 200)), np.zeros((200, 300))).size == (300, 200)


def test_a_heatmap_of_another_size_is_brought_to_the_pictures() -> None:
    heatmap = np.zeros((2, 2))
    heatmap[0, 0] = 1
    result = np.asarray(overlay(Image.new("RGB", (400, 300)), heatmap, alpha=1))
    assert result.shape == (300, 400, 3)
    np.testing.assert_array_equal(result[0, 0], [127, 0, 0])
    np.testing.assert_array_equal(result[-1, -1], [0, 0, 127])


def test_signals_become_rows_and_volumes_their_middle() -> None:
    np.testing.assert_array_equal(flat(np.array([0.1, 0.2])), [[0.1, 0.2]])
    volume = np.arange(24).reshape(4, 2, 3)
    np.testing.assert_array_equal(flat(volume), volume[2])
