"""Fast layers and random numbers of the TensorFlow engine against Keras' own layers and closed forms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.data.dataset import Dataset, load_dataset
from search.data.preprocessing import Pixels
from search.networks.architecture import Architecture
from search.networks.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    Function,
    Gate,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.training.engine.epoch import plan_epoch
from search.training.engine.layers import ShiftedSeparableConv2D, dropout_of
from search.training.engine.tensorflow import TensorFlowEngine
from search.training.engine.tensorflow_layers import FusedBatchNormalization, TensorFlowDraws, pooled_dropout_of
from search.training.model import build
from search.training.recipe import Recipe
from tests.support.tiers import tiered

FUNCTIONS: tuple[Function, ...] = get_args(Function)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", None, protocol="holdout", holdout=0.1, images=40)


def separable() -> Iterator[Layer]:
    """Convolutions with each function after and before batch norm, without it, and after a bias."""
    for function in FUNCTIONS:
        yield from (SeparableConv(8), BatchNorm(), Activation(function))
        yield from (SeparableConv(8), Activation(function), BatchNorm())
        yield from (SeparableConv(8, use_bias=True), Activation(function))


def other_convolutions() -> Iterator[Layer]:
    """Other kinds, and a width that is no multiple of 8, before batch norm or with a bias."""
    for function in FUNCTIONS:
        yield from (SeparableConv(5), BatchNorm(), Activation(function))
        yield from (SpatialSeparableConv(8), BatchNorm(), Activation(function))
        yield from (Conv(8), BatchNorm(), Activation(function))
        yield from (Conv(8, 1, use_bias=True), Activation(function))


def sums_and_dense() -> Iterator[Layer]:
    """Functions after sums, pools, gates and dense layers."""
    yield Conv(8, 1)
    for function in FUNCTIONS:
        yield from (Residual((Conv(8, 1), BatchNorm()), ()), Activation(function), BatchNorm(), Gate(function), Conv(8, 1))
        yield from (MaxPool(2, 1, "same"), Activation(function))
    yield Flatten()
    for function in FUNCTIONS:
        yield from (Dense(8, use_bias=False), BatchNorm(), Activation(function))
        yield from (Dense(8), Activation(function), BatchNorm(), Gate(function))


PLACES: dict[str, tuple[Layer, ...]] = {
    "separable": (*separable(), GlobalAveragePool()),
    "other convolutions": (*other_convolutions(), GlobalAveragePool()),
    "sums and dense": tuple(sums_and_dense()),
}


@pytest.mark.parametrize("precision", ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", tiered(PLACES, quick=("separable", "other convolutions")))
def test_every_activation_trains_and_evaluates_in_every_order(kind: str, precision: str, digits: Dataset) -> None:
    """TensorFlow's graph optimiser fuses some of them, also to operations that a CPU has no kernel for."""
    network = Architecture((8, 8, 1), 10, (MaxPool(), *PLACES[kind], Dense(10), Softmax()), "functions")
    recipe = Recipe(epochs=1, batch_size=40)
    engine = TensorFlowEngine(network, digits, recipe, Pixels(), seed=3, dtype=precision)
    engine.begin(plan_epoch(recipe, 40, 0, 0))
    assert np.isfinite(engine.train(0, 1).loss)
    found = engine.evaluate()
    model = build(network, dtype=precision)
    model.set_weights(engine.weights())
    probabilities = np.asarray(model(Pixels().apply(digits.x_val), training=False))
    own = -np.log(probabilities[np.arange(len(digits.y_val)), digits.y_val]).mean()
    assert found[0] == pytest.approx(own, rel=1e-4 if precision == "float32" else 0.05)


@pytest.mark.parametrize("shape", [(4, 3, 3, 5), (1, 1, 1, 3), (6, 2, 5, 16), (2, 1, 1, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_fused_batch_norm_is_keras_own(shape: tuple[int, ...], training: bool) -> None:
    """Output and moving averages; fused operations give the unbiased variance, one image of one pixel none at all."""
    images = np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)
    ours, theirs = (kind(momentum=0.7) for kind in (FusedBatchNormalization, keras.layers.BatchNormalization))
    for layer in (ours, theirs):
        layer.build(shape)
        layer.set_weights([np.full(shape[-1], value, np.float32) for value in (1.5, -0.5, 0.3, 2.0)])
    np.testing.assert_allclose(ours(images, training=training), theirs(images, training=training), rtol=1e-4, atol=1e-5)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5)


@given(
    size=st.integers(3, 9),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    multiplier=st.integers(1, 3),
    padding=st.sampled_from(["same", "valid"]),
    use_bias=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_shifted_products_are_the_depthwise_convolution(
    size: int, kernel: int, stride: int, dilation: int, multiplier: int, padding: str, use_bias: bool
) -> None:
    if (padding == "valid" and (kernel - 1) * dilation >= size) or (stride > 1 and dilation > 1):
        return
    images = np.random.default_rng(0).normal(size=(2, size, size + 1, 3)).astype(np.float32)
    how: dict[str, Any] = {"strides": stride, "dilation_rate": dilation, "padding": padding, "use_bias": use_bias}
    ours, theirs = (
        kind(4, kernel, depth_multiplier=multiplier, **how)
        for kind in (ShiftedSeparableConv2D, keras.layers.SeparableConv2D)
    )
    theirs.build(images.shape)
    ours.build(images.shape)
    ours.set_weights(theirs.get_weights())
    np.testing.assert_allclose(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_draws_depend_on_seed_step_and_stream_alone() -> None:
    draws = TensorFlowDraws()

    def numbers(seed: int, step: int, stream: int) -> bytes:
        draws.at(seed, step)
        return bytes(draws.uniform([8], stream).numpy().tobytes() + draws.bits([3, 3], stream).numpy().tobytes())

    places = [(seed, step, stream) for seed in (0, 1, 2**31 - 1) for step in (0, 1, 400) for stream in (0, 1, 2**31 - 1)]
    assert len({numbers(*place) for place in places}) == len(places)
    assert [numbers(*place) for place in places] == [numbers(*place) for place in places]


def test_bits_are_even_and_do_not_depend_on_their_neighbours() -> None:
    draws = TensorFlowDraws()
    draws.at(7, 3)
    bits = draws.bits([1001, 99], 5).numpy()
    assert bits.dtype == np.uint16
    assert abs(bits.mean() - 32767.5) < 5 * 65536 / np.sqrt(12 * bits.size)
    assert abs(np.corrcoef(bits[:, :-1].ravel(), bits[:, 1:].ravel())[0, 1]) < 5 / np.sqrt(bits.size)


@pytest.mark.parametrize("kind", [dropout_of, pooled_dropout_of])
@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_dropout_drops_its_share_and_keeps_the_mean(kind: Any, rate: float) -> None:
    draws = TensorFlowDraws()
    inputs = keras.Input((25, 40))
    layer = kind(draws)(rate=rate, seed=9, name="dropout")
    keras.Model(inputs, layer(inputs))
    if hasattr(layer, "draw"):
        layer.draw(100)
    ones, masks = np.ones((100, 25, 40), np.float32), []
    for seed, step in ((7, 3), (7, 4), (8, 3), (7, 3)):
        draws.at(seed, step)
        dropped = layer(ones, training=True).numpy()
        assert abs((dropped == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / ones.size)
        np.testing.assert_allclose(dropped[dropped > 0], 1 / (1 - rate), rtol=1e-4)
        flat = dropped.ravel() > 0
        for other in (flat[1:], *(mask[1:] for mask in masks[:3] if len(masks) < 3)):
            assert abs(np.corrcoef(flat[:-1], other)[0, 1]) < 5 / np.sqrt(ones.size)
        masks.append(flat)
    assert np.array_equal(masks[0], masks[3])
    assert not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])
    np.testing.assert_array_equal(layer(ones, training=False), ones)
    draws.at(7, 3)
    np.testing.assert_array_equal(layer(ones[:7], training=True).numpy().ravel() > 0, masks[0][:7000])  # a partial batch
