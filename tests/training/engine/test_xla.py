"""The XLA form of the TensorFlow engine computes the same as the other form, on a CPU."""

from __future__ import annotations

import numpy as np
import pytest

from search.data.dataset import load_dataset
from search.data.preprocessing import Pixels
from search.errors import UserError
from search.networks.architecture import Architecture
from search.networks.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    Gate,
    GlobalAveragePool,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.training.engine.epoch import plan_epoch
from search.training.engine.tensorflow import TensorFlowEngine
from search.training.engine.xla import XlaEngine
from search.training.recipe import Augment, Recipe

BATCH = 48  # of 90 images: one whole batch and a partial one
RECIPE = Recipe(
    batch_size=BATCH, optimizer="adamw", weight_decay=0.01, ema=0.9, clip_norm=1.0, augment=Augment(flip=True, mixup=0.2)
)
NETWORK = Architecture(
    (8, 8, 1),
    10,
    (
        *(SeparableConv(12, 3, depth_multiplier=4), BatchNorm(momentum=0.9), Activation("relu"), MaxPool()),
        Residual((SpatialSeparableConv(16, 3), BatchNorm(), Gate("silu")), (Conv(8, 1),)),
        *(SeparableConv(24, 3, stride=2), BatchNorm(), Activation("silu"), GlobalAveragePool()),
        *(Flatten(), Dense(10), Softmax()),
    ),
)


@pytest.mark.long
def test_its_epoch_is_that_of_the_other_form() -> None:
    data = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=90)
    graph, xla = (engine(NETWORK, data, RECIPE, Pixels(), seed=3) for engine in (TensorFlowEngine, XlaEngine))
    steps = -(-len(data.x_train) // BATCH)
    assert steps == 2 and len(data.x_train) % BATCH
    for engine in (graph, xla):
        engine.begin(plan_epoch(RECIPE, len(data.x_train), 3, 0))
    assert xla.train(0, steps) == pytest.approx(graph.train(0, steps), rel=1e-5)
    for mine, other in zip(xla.state(), graph.state(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-5)
    for averaged in (False, True):
        assert xla.evaluate(averaged=averaged)[:2] == pytest.approx(graph.evaluate(averaged=averaged)[:2], rel=1e-4)


def test_a_recipe_that_warps_images_is_rejected() -> None:
    data = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=90)
    with pytest.raises(UserError, match="XLA cannot compile shift, zoom and rotation"):
        XlaEngine(NETWORK, data, Recipe(augment=Augment(zoom=0.1)), Pixels(), seed=0)
