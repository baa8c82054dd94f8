"""Features of networks: exact values of a small network, and what must not change them."""

from __future__ import annotations

import random

import pytest

from search.budget.cost import compute_cost
from search.networks.architecture import Architecture
from search.networks.layers import (
    Activation,
    BatchNorm,
    Dropout,
    GlobalAveragePool,
    Layer,
    MaxPool,
    SeparableConv,
    Softmax,
)
from search.training.recipe import Recipe
from search.tuning.bayes.features import Features, network_features, recipe_features
from space import KINDS

BODY: tuple[Layer, ...] = (
    SeparableConv(8),
    BatchNorm(),
    Activation("relu"),
    MaxPool(),
    SeparableConv(32, 5),
    BatchNorm(),
    Activation("relu"),
    Dropout(0.2),
)
HEAD: tuple[Layer, ...] = (SeparableConv(10, 1), GlobalAveragePool(), Softmax())


def features_of(*layers: Layer) -> Features:
    return network_features(compute_cost(Architecture((16, 16, 3), 10, (*layers, *HEAD))))


def test_features_of_a_small_network() -> None:
    features = features_of(*BODY)
    assert features["shape.depth"] == 1.0  # log2 of two convolutions; the classifier does not count
    assert [features[f"shape.layers_{level}"] for level in (0, 1)] == [1, 1]
    assert [features["shape.first"], features["shape.last"], features["shape.mean"]] == [3.0, 5.0, 4.0]
    assert features["layers.function=relu"] == 1.0
    assert features["layers.rate"] == pytest.approx(0.1)  # a convolution
    assert features["layers.kernel"] == (3 + 5 + 1) / 2
    assert features["layers.separable_conv>batch_norm"] == 1.0


@pytest.mark.parametrize(
    ("changed", "group"),
    [
        ((SeparableConv(8), *BODY[1:4], SeparableConv(40, 5), *BODY[5:]), "size."),
        ((BODY[0], *BODY[1:4], BODY[4], BODY[6], BODY[5], BODY[7]), "layers."),  # activation before batch norm
        ((*BODY[:7], Dropout(0.3)), "layers."),
        ((*BODY[:3], *BODY[4:7], MaxPool(), BODY[7]), "shape."),
    ],
)
def test_features_differ_wherever_networks_differ(changed: tuple[Layer, ...], group: str) -> None:
    before, after = features_of(*BODY), features_of(*changed)
    assert any(name.startswith(group) for name in before.keys() | after.keys() if before.get(name) != after.get(name))


@pytest.mark.parametrize("kind", ["pyramid", "residual"])
def test_every_space_has_finite_features_without_code_of_its_own(kind: str) -> None:
    space, generator = KINDS[kind].model_validate({"kind": kind}), random.Random(0)
    names = set()
    for _ in range(20):
        values = {name: domain.draw(generator) for name, domain in space.parameters.items()}  # type: ignore[attr-defined]
        cost = compute_cost(space.build(values, (32, 32, 3), 10))  # type: ignore[attr-defined]
        features = network_features(cost)
        names |= features.keys()
        assert all(abs(value) < 1e6 for value in features.values())
    assert {name.partition(".")[0] for name in names} == {"size", "shape", "layers"}


def test_recipes_differ_by_their_logarithms_and_names() -> None:
    slow, fast = (recipe_features(Recipe(learning_rate=rate)) for rate in (0.001, 0.008))
    assert fast["recipe.learning_rate"] - slow["recipe.learning_rate"] == pytest.approx(3, abs=0.01)
    assert {name for name in slow if slow[name] != fast[name]} == {"recipe.learning_rate"}
    assert recipe_features(Recipe(optimizer="sgd"))["recipe.optimizer=sgd"] == 1.0
