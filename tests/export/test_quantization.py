"""A network rewritten for integers is the same function, and loses less in them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings

from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.export import litert, tflite
from search.export import quantization as quantizable
from search.export.tflite import calibration_images, int8_tflite
from search.export.verification import require_equal
from search.networks.architecture import Architecture
from search.networks.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.seeds import generator
from search.training.model import build
from tests.support.pictures import picture_set, pictures
from tests.support.strategies import architectures
from tests.support.tiers import tiered

RELU, BN = Activation("relu"), BatchNorm()


def net(*layers: Layer) -> Architecture:
    return Architecture((12, 11, 3), 3, (*layers, GlobalAveragePool(), Dense(3), Softmax()), "net")


MIXED = net(
    BN,  # 1: of the image
    SeparableConv(4), BN,  # 2 folds by itself
    RELU, BN,  # 3: after a relu, but not right after a convolution
    Conv(4, use_bias=True), Dropout(0.1), RELU, Dropout(0.1), BN,  # 4: into conv_1
    SpatialSeparableConv(5, use_bias=True), RELU, BN,  # 5: into spatial_separable_conv_1
    SeparableConv(5), Activation("silu"), BN,  # 6: no factor goes through silu
    Conv(4), Residual((BN, SeparableConv(4), RELU, BN), (MaxPool(1), BN)),  # 7, 8 into separable_conv_3, 9
    BN,  # 10: of the sum
    Conv(4), Residual((RELU, BN), ()),  # 11: the convolution is taken twice
    Conv(4, weights="a"), RELU, BN, Conv(4, weights="a"), BN,  # 12: others have its weights; 13 folds by itself
)  # fmt: skip
VECTOR = Architecture((4, 5, 1), 3, (Flatten(), Dense(8), RELU, Flatten(), BN, RELU, BN, Dense(3), Softmax()))


def some_weights(architecture: Architecture, *, positive: bool) -> list[Any]:
    random = generator(1, "weights")
    model = build(architecture)
    found = [
        array * random.uniform(0.5, 2, array.shape) + random.uniform(0, 0.05, array.shape) for array in model.get_weights()
    ]
    if not positive:
        for array, variable in zip(found, model.weights, strict=True):
            if variable.path.endswith("gamma"):
                array[0] *= -1
    return found


def ways(architecture: Architecture, weights: list[Any]) -> tuple[dict[str, str], set[str], set[str]]:
    model = build(architecture)
    model.set_weights(weights)
    found = quantizable._replacements(architecture, {layer.name: layer for layer in model.layers})
    return found.into, found.signed, found.alone


def outputs(model: Any, architecture: Architecture) -> npt.NDArray[np.float32]:
    return np.asarray(model(Pixels().apply(pictures(architecture.input, 20)), training=False))


def test_which_normalisations_go_where() -> None:
    into = {
        "batch_norm_4": "conv_1",
        "batch_norm_5": "spatial_separable_conv_1",
        "batch_norm_8": "separable_conv_3",
    }
    alone = {f"batch_norm_{number}" for number in (1, 3, 6, 7, 9, 10, 11, 12)}
    assert ways(MIXED, some_weights(MIXED, positive=True)) == (into, set(), alone)
    assert ways(MIXED, some_weights(MIXED, positive=False)) == (into, set(into), alone)
    assert ways(VECTOR, some_weights(VECTOR, positive=True)) == ({"batch_norm_1": "dense_1"}, set(), set())


def assert_the_same_function(architecture: Architecture, weights: list[Any]) -> None:
    plain = build(architecture)
    plain.set_weights(weights)
    rewritten = quantizable.quantizable(architecture, weights)
    require_equal(outputs(rewritten, architecture), outputs(plain, architecture), 1e-4)


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("architecture", [MIXED, VECTOR], ids=["mixed", "vector"])
def test_it_is_the_same_function(architecture: Architecture, positive: bool) -> None:
    assert_the_same_function(architecture, some_weights(architecture, positive=positive))


@given(architectures(functions=("relu", "silu")))
@settings(max_examples=8)
def test_any_network_is_the_same_function(architecture: Architecture) -> None:
    assert_the_same_function(architecture, some_weights(architecture, positive=True))


def in_integers(architecture: Architecture, weights: list[Any], data: Dataset) -> tuple[float, int, tuple[str, ...]]:
    """The share of the outputs' variance that is lost in integers, the bytes, and the operators."""
    content = int8_tflite(architecture, weights, calibration_images(data.x_train, data.y_train), Pixels())
    model = build(architecture)
    model.set_weights(weights)
    expected = np.asarray(model(Pixels().apply(data.x_val), training=False))
    found = litert.outputs(content, data.x_val, lambda images: (images.astype(np.int16) - 128).astype(np.int8))
    lost = np.square(found - expected).sum() / np.square(expected - expected.mean(axis=0)).sum()
    return float(lost), len(content), litert.read(content).operators


def as_it_is(architecture: Architecture, weights: list[Any], rescaled: None = None) -> keras.Model:
    model = build(architecture)
    model.set_weights(weights)
    return model


@pytest.mark.parametrize("positive", tiered((True, False), quick=(False,)))
def test_less_is_lost_where_the_activation_comes_first(positive: bool, monkeypatch: Any) -> None:
    architecture = net(*(SeparableConv(24), RELU, BatchNorm(0.0)) * 4)
    model, data = build(architecture), picture_set(architecture)
    for variable in model.weights:
        if variable.path.endswith("gamma"):
            signs = 1 if positive else generator(0, "signs").choice([-1, 1], variable.shape)
            variable.assign(np.exp(generator(0, variable.path).normal(0, 0.5, variable.shape)) * signs)
    for _ in range(4):  # each makes the averages of one more normalisation those of the images
        model(Pixels().apply(data.x_train), training=True)
    weights = model.get_weights()
    weights[-2] *= 6
    ours, size, operators = in_integers(architecture, weights, data)
    assert "ADD" in operators and ("MUL" in operators) != positive
    monkeypatch.setattr(tflite, "quantizable", as_it_is)
    plain, plain_size, operators = in_integers(architecture, weights, data)
    assert {"MUL", "ADD"} <= set(operators)
    assert ours < 0.06 and plain > 5 * ours, (ours, plain)
    assert size < plain_size + (0 if positive else 100)
