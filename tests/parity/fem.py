"""FEM as the paper defines it (survey eq. 26) and as pytorch-grad-cam implements it, both derived here anew."""

from __future__ import annotations

import numpy as np

from tests.catalogue import Array


def paper(maps: Array, k: float) -> Array:
    """Eq. 26: a position is 1 where it reaches mean + k sigma; each binary map weighs as much as its channel's mean."""
    total = np.zeros(maps.shape[1:])
    for channel in maps:
        binary = channel >= channel.mean() + k * channel.std()
        total += channel.mean() * binary
    return total


def pytorch_grad_cam(maps: Array, k: float) -> Array:
    """pytorch-grad-cam 1.5.5, fem.py: the weight is the share of positions strictly above, over the activations."""
    total = np.zeros(maps.shape[1:])
    for channel in maps:
        mask = np.zeros(channel.shape)
        mask[channel > channel.mean() + k * channel.std()] = 1
        total += mask.mean() * channel
    return total


FORMS = {"paper": (paper, 1.0), "pytorch-grad-cam": (pytorch_grad_cam, 2.0)}
