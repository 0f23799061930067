"""Which whole models a test takes, and with which weights and pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from onnx import ModelProto

from tests.catalogue import SPECIMENS, Floats, Specimen, parameters
from tests.models.margins import apart

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

QUICK = ("light_squeezenet", "light_shufflenet")
"""The light models that a quick run takes."""


def specimens(quick: Iterable[str] = QUICK, among: Iterable[Specimen] = SPECIMENS) -> list[ParameterSet]:
    """For parametrize: the trained models, and the light ones, those not among the quick marked slow."""
    return parameters(s if s.trained or s.name in quick else replace(s, heavy=True) for s in among)


@dataclass(frozen=True)
class Sample:
    """A model and three pictures on which float32 decides every ReLU and pool as float64 does."""

    model: ModelProto
    pictures: Floats


def sample(specimen: Specimen) -> Sample:
    """Trained models are as they are; seeded random weights are moved until nothing stands on a kink."""
    return _kept(specimen.name) if specimen.name in QUICK else _sample(specimen)


def _sample(specimen: Specimen) -> Sample:
    model, pictures = specimen.load(), specimen.images(3, 11)
    return Sample(model if specimen.trained else apart(model, pictures), pictures)


@cache
def _kept(name: str) -> Sample:
    return _sample(next(s for s in SPECIMENS if s.name == name))


def for_parity() -> list[ParameterSet]:
    """What other libraries are compared on: the trained models, and three deep ones, which are slow."""
    deep = ("light_resnet50", "light_vgg19", "light_densenet121")
    return specimens(quick=[], among=[s for s in SPECIMENS if s.trained or s.name in deep])
