"""LRP's single rules against Captum 0.9.0 under compat=captum; and where Captum is not what the papers say."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from captum.attr import LRP
from captum.attr._utils.custom_modules import Addition_Module
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from torch import Tensor, nn

from onnxplain.compiler import compile_model
from tests.catalogue import OWN_SPECIMENS
from tests.oracle import Oracle
from tests.parity.lrp_networks import doubled, exported, own, pictures, resnet_like, settled, vgg_like
from tests.running import Results, assert_near, run

Pictures = np.ndarray[Any, Any]
OWN = tuple(s.name for s in OWN_SPECIMENS)
RESIDUAL = ("resnet", "cleverhans", "shapes")

RULES: dict[str, tuple[Callable[[], Any], str, dict[str, Any]]] = {
    "epsilon": (partial(EpsilonRule, epsilon=0.01), "lrp-eps", {"epsilon": 0.01}),
    "gamma": (GammaRule, "lrp-gamma", {}),
    "gamma 1": (partial(GammaRule, gamma=1), "lrp-gamma", {"gamma": 1}),
    "alpha 1, beta 0": (Alpha1_Beta0_Rule, "lrp-alphabeta", {"alpha": 1, "beta": 0}),
}


@dataclass(frozen=True)
class Subject:
    """A torch module in float64, the model as ONNX in float32 and in float64, and pictures."""

    theirs: nn.Module
    single: onnx.ModelProto
    double: onnx.ModelProto
    x: Pictures


@cache
def subject(name: str) -> Subject:
    specimen = next((s for s in OWN_SPECIMENS if s.name == name), None)
    if specimen is not None:
        model = specimen.load()
        x = specimen.images(2, 0)
        grain = np.random.default_rng(0).uniform(0, 0.1, x.shape).astype(np.float32)
        return Subject(own(name, model, Addition_Module), model, doubled(model), x + grain)
    net = settled({"vgg": vgg_like, "resnet": partial(resnet_like, Addition_Module)}[name]())
    shape = (3, 32, 32)
    # Not negative: of signed operands Captum's gamma makes sums that nearly vanish (test_layers.py has it in float64).
    return Subject(net, exported(net, shape), exported(net, shape, double=True), np.abs(pictures(2, shape)))


def relevance(net: nn.Module, x: Pictures, rule: Callable[[], Any]) -> tuple[Tensor, Tensor]:
    """Captum's relevance for the highest score, the rule in every layer with weights; and that score."""
    net = copy.deepcopy(net)  # Captum leaves its rules' attributes behind
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.rule = rule()
        elif isinstance(module, nn.Flatten):
            module.rule = EpsilonRule()  # Captum has none for it; R x / x is R
    given = torch.tensor(x).double()
    scores = net(given)
    found = LRP(net).attribute(given.clone().requires_grad_(), target=scores.argmax(dim=1))
    return found.detach(), scores.max(dim=1).values.detach()


@cache
def compiled(name: str, rule: str) -> tuple[Results, Results]:
    """By ONNX Runtime in float32, and by the oracle in float64."""
    s, (_, method, how) = subject(name), RULES[rule]
    graph = compile_model(s.double, method, compat="captum", **how)
    with torch.no_grad():
        exact = Oracle(graph).run({graph.graph.input[0].name: torch.tensor(s.x)})
    return run(compile_model(s.single, method, compat="captum", **how), s.x), {k: v.numpy() for k, v in exact.items()}


@pytest.mark.parametrize("name", ["vgg", "resnet", *OWN])
@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str, name: str) -> None:
    """Batch norms stay as they are on both sides, under the epsilon rule; sums are Captum's Addition_Module.

    A layer in front of a residual sum gets relevance where its output is negative too. There the sum that Captum's
    gamma divides by, y + gamma p, can nearly vanish, and float32 has nothing to say. (The generalised rule that is the
    default here divides by y + gamma n, which cannot.)
    """
    s = subject(name)
    want, score = relevance(s.theirs, s.x, RULES[rule][0])
    single, double = compiled(name, rule)
    assert_near(single["explained_score"], score.numpy(), 1e-4)
    # Captum rules max-pools too: R x / (x + 1e-9) for the winner, which here gets R.
    assert_near(double["attribution"], want.numpy(), 1e-7, "float64")
    if not (rule.startswith("gamma") and name in RESIDUAL):
        assert_near(single["attribution"], want.numpy(), 1e-4, "float32")


# Where Captum is not what the papers say


class Layer(nn.Module):
    """One linear layer of signed inputs, with a bias of both signs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layer(x)
        return scores


def test_alpha1_beta0_of_signed_inputs_is_not_that_of_the_papers() -> None:
    """Captum #1234. Bach et al. 2015, eq. 60 and the survey's eq. 15 take the positive part of the product a w.

    Captum takes a w+: a negative input with a negative weight speaks for the output and gets nothing, and one with a
    positive weight speaks against it and gets negative relevance. The paper's rule gives none below zero.
    """
    net = settled(Layer(), seed=3)
    x = pictures(4, (6, 1, 1))[:, :, 0, 0]
    captum, score = relevance(net, x, Alpha1_Beta0_Rule)
    layer = net.layer
    assert isinstance(layer, nn.Linear)
    w, b = (p.detach().numpy() for p in (layer.weight, layer.bias))
    best = net(torch.tensor(x).double()).argmax(dim=1).numpy()
    positive = np.maximum(w[best] * x, 0)
    paper = positive / (positive.sum(axis=1) + np.maximum(b[best], 0))[:, None] * score.numpy()[:, None]
    model = exported(net, (6,))
    ours = run(compile_model(model, "lrp-alphabeta", alpha=1, beta=0, stabiliser=1e-9), x)["attribution"]
    theirs = run(compile_model(model, "lrp-alphabeta", alpha=1, beta=0, compat="captum"), x)["attribution"]
    assert_near(ours, paper, 1e-5, "the paper's")
    assert_near(theirs, captum.numpy(), 1e-5, "Captum's")
    assert np.linalg.norm(captum.numpy() - paper) > 0.1 * np.linalg.norm(paper)
    assert (
        (paper * np.sign(score.numpy())[:, None]).min() >= 0 > (captum.numpy() * np.sign(score.numpy())[:, None]).min()
    )


class Sum:
    """The sum as a stock ResNet writes it: an operator, not a module."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


def without_bias(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return net


def test_a_plain_sum_multiplies_relevance_in_captum() -> None:
    """Eq. 11 of the survey: every layer's relevance adds up to the score. Captum has no rule for a sum by operator.

    It takes the gradient there, so that both branches get all of what arrives. Without bias, and with Captum's
    own module for sums, it conserves; with `a + b` it does not and says nothing. On a graph the sum is a node.
    """
    ruled = without_bias(settled(resnet_like(Addition_Module, norm=False)))
    plain = without_bias(settled(resnet_like(Sum, norm=False)))  # type: ignore[arg-type]
    plain.load_state_dict(ruled.state_dict())
    x = pictures(2, (3, 32, 32))
    (right, score), (wrong, _) = relevance(ruled, x, EpsilonRule), relevance(plain, x, EpsilonRule)
    sums = [found.sum(dim=(1, 2, 3)) / score for found in (right, wrong)]
    assert torch.allclose(sums[0], torch.ones(2, dtype=torch.float64), rtol=1e-4)
    assert (sums[1] - 1).abs().min() > 0.1
    found = run(compile_model(exported(plain, (3, 32, 32)), "lrp-eps", epsilon=1e-9), x)
    assert_near(found["attribution"], right.numpy(), 1e-4)
    assert np.abs(found["residual"] / found["explained_score"]).max() <= 1e-4


def test_under_the_epsilon_rule_it_makes_no_difference_whether_batch_norm_is_folded() -> None:
    """Captum leaves it, and shares first at the norm and then at the layer; the product is the share at both in one."""
    net = settled(resnet_like(Addition_Module))
    x, model = pictures(2, (3, 32, 32)), exported(net, (3, 32, 32))
    captum, _ = relevance(net, x, EpsilonRule)
    for how in ({}, {"compat": "captum"}):
        found = run(compile_model(model, "lrp-eps", epsilon=1e-9, stabiliser=1e-9, **how), x)["attribution"]
        assert_near(found, captum.numpy(), 1e-4)
