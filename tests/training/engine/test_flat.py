"""Vectors of weights against the Keras model that they stand for."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from search.networks.architecture import Architecture
from search.networks.layers import BatchNorm, Conv, Dense, GlobalAveragePool, SeparableConv, Softmax
from search.training.engine.base import optimizer_of
from search.training.engine.flat import FlatWeights, to_array
from search.training.model import build
from search.training.recipe import Recipe

LAYERS = (Conv(4, use_bias=True), BatchNorm(), SeparableConv(6, 3, depth_multiplier=2), GlobalAveragePool(), Dense(3))
PLAIN = (Conv(4), GlobalAveragePool(), Dense(3, use_bias=False))  # neither biases nor batch norm


@pytest.fixture(params=[LAYERS, PLAIN], ids=["all kinds of weights", "kernels only"])
def model(request: pytest.FixtureRequest) -> keras.Model:
    return build(Architecture((6, 6, 2), 3, (*request.param, Softmax()), "net"))


def test_parts_are_the_weights_in_their_order(model: keras.Model) -> None:
    flat = FlatWeights(model)
    for ours, theirs in zip(flat.split(flat.vectors), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    trainable, rest = flat.tensors()
    for tensors, variables in ((trainable, model.trainable_variables), (rest, model.non_trainable_variables)):
        for tensor, variable in zip(tensors, variables, strict=True):
            np.testing.assert_array_equal(tensor, variable.value)


def test_every_weight_lies_in_one_vector_and_biases_and_batch_norm_apart_from_kernels(model: keras.Model) -> None:
    flat = FlatWeights(model)
    assert sum(vector.shape[0] for vector in flat.vectors) == model.count_params()
    (kernels, *others) = flat.members
    assert all(weight.name.endswith("kernel") for weight in kernels)
    assert not any(weight.name.endswith("kernel") for members in others for weight in members)


def test_join_is_the_inverse_of_split(model: keras.Model) -> None:
    flat = FlatWeights(model)
    arrays = [np.random.default_rng(index).normal(size=weight.shape) for index, weight in enumerate(model.weights)]
    for ours, theirs in zip(flat.split(flat.join(arrays)), arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_variables_of_an_optimizer_are_ordered_as_for_single_weights(name: Any, model: keras.Model) -> None:
    recipe = Recipe(optimizer=name, weight_decay=0.1)
    flat, optimizers = FlatWeights(model), [optimizer_of(recipe) for _ in range(2)]
    optimizers[0].build(flat.trainable)
    optimizers[1].build(model.trainable_variables)
    slots, expected = optimizers[0].variables[2:], optimizers[1].variables[2:]
    arrays = [np.full(variable.shape, index, np.float32) for index, variable in enumerate(expected)]
    for variable, value in zip(slots, flat.join_slots(arrays), strict=True):
        variable.assign(value)
    for ours, theirs in zip(flat.split_slots(slots), arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for variable in slots:  # momentum and velocity do not mix
        assert len({index % (len(expected) // len(model.trainable_variables)) for index in set(to_array(variable))}) == 1
