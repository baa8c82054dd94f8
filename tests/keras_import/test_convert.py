"""Imports: a model that is built here comes back as the same network, and what cannot be said is named.

python -m pytest tests/keras_import/test_convert.py
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pytest
from hypothesis import given, settings
from keras import layers

from search.export.keras_source import keras_source
from search.keras_import.convert import read_model
from search.networks.architecture import Architecture, fingerprint
from search.networks.layers import (
    Activation,
    Conv,
    Dropout,
    Flatten,
    Gate,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.training.model import build
from tests.support.conversions import CONV, functional, known, of_json, of_model, problems, sequential
from tests.support.strategies import REFERENCES, architectures, net, reference
from tests.support.tiers import tiered

# --- there and back --------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(architectures())
def test_a_network_that_is_built_comes_back(network: Architecture) -> None:
    found = of_model(build(network))
    assert found.problems == () and not found.softmax_added and not found.left_out
    assert found.architecture is not None
    assert fingerprint(found.architecture) == fingerprint(network)


@pytest.mark.parametrize("name", tiered(REFERENCES, quick=("eip-b", "eip-d")))
def test_a_reference_that_is_saved_comes_back(name: str, tmp_path: Path) -> None:
    network, path = reference(name), tmp_path / "saved.keras"
    build(network).save(path)
    found = read_model(path)
    assert found.architecture is not None
    assert fingerprint(found.architecture) == fingerprint(network)
    assert found.architecture.name == network.name.replace("-", "_")  # as Keras takes it
    assert len(found.origins) == len(network.layers)


def test_exported_source_is_imported_as_the_same_network() -> None:
    network = net(
        SeparableConv(8),
        Residual((SeparableConv(16), Gate("silu"), Residual((SpatialSeparableConv(8, 5),))), (SeparableConv(8, 1),)),
        Gate("gelu"),
    )
    made: dict[str, Any] = {}
    exec(keras_source(network), made)
    found = of_json(made["build_model"]().to_json())
    assert found.architecture is not None
    assert fingerprint(found.architecture) == fingerprint(network)


# --- ways in which people write the same -----------------------------------------------------------------------------


def test_activations_inside_layers_are_layers_of_their_own() -> None:
    found = sequential(
        layers.SeparableConv2D(8, 3, activation="relu"), layers.Conv2D(4, 1, activation=keras.activations.silu)
    )
    assert known(found) == (CONV, Activation("relu"), Conv(4, 1, padding="valid", use_bias=True), Activation("silu"))


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (lambda: layers.ReLU(), "relu"),
        (lambda: layers.ReLU(6), "relu6"),
        (lambda: layers.ReLU(max_value=6.0), "relu6"),
        (lambda: layers.ELU(), "elu"),
        (lambda: layers.Activation("swish"), "silu"),
        (lambda: layers.Activation("hard_swish"), "hard_silu"),
        (lambda: layers.Activation(keras.activations.gelu), "gelu"),
        (lambda: layers.Activation(layers.ReLU(6)), "relu6"),
    ],
)
def test_functions_are_known_by_all_their_names(layer: Any, function: str) -> None:
    assert known(sequential(layer())) == (Activation(function),)  # type: ignore[arg-type]


@pytest.mark.parametrize("function", ["relu", "relu6", "silu", "elu", "tanh", "sigmoid", "hard_silu"])
def test_operations_are_activations(function: str) -> None:
    assert known(functional(getattr(keras.ops, function))) == (Activation(function),)  # type: ignore[arg-type]


def test_linear_functions_and_identities_are_nothing() -> None:
    assert known(sequential(layers.Activation("linear"), layers.Identity(), layers.SeparableConv2D(8, 3))) == (CONV,)


def test_a_depthwise_and_a_1x1_convolution_are_one_separable_convolution() -> None:
    for options in ({"strides": 2, "padding": "same"}, {"dilation_rate": 2}, {"depth_multiplier": 3}):
        found = sequential(layers.DepthwiseConv2D(3, use_bias=False, **options), layers.Conv2D(8, 1))
        (layer,) = known(found)
        assert isinstance(layer, SeparableConv) and layer.filters == 8 and layer.use_bias
        (words,) = found.read_as
        assert "as one separable_conv" in words


def test_halves_of_a_spatial_convolution_are_one_layer() -> None:
    halves = (
        layers.DepthwiseConv2D((5, 1), use_bias=False, padding="same"),
        layers.SeparableConv2D(8, (1, 5), padding="same"),
    )
    three = (
        layers.DepthwiseConv2D((5, 1), use_bias=False, padding="same"),
        layers.DepthwiseConv2D((1, 5), use_bias=False, padding="same"),
        layers.Conv2D(8, 1),
    )
    for parts in (halves, three):
        assert known(sequential(*parts)) == (SpatialSeparableConv(8, 5, use_bias=True),)


def test_zeros_around_are_the_padding_that_they_equal() -> None:
    assert known(sequential(layers.ZeroPadding2D(1), layers.SeparableConv2D(8, 3))) == (replace(CONV, padding="same"),)
    uneven = layers.ZeroPadding2D(((0, 1), (0, 1))), layers.SeparableConv2D(8, 3, strides=2)
    assert known(sequential(*uneven)) == (replace(CONV, padding="same", stride=2),)
    wrong = sequential(layers.ZeroPadding2D(1), layers.SeparableConv2D(8, 3, strides=2))
    ((_, rule, edit),) = problems(wrong)
    assert "((1, 1), (1, 1))" in rule and "((0, 1), (0, 1))" in rule and edit.startswith("padding='same'")
    pool = sequential(layers.ZeroPadding2D(1), layers.MaxPooling2D())
    assert pool.architecture is not None and pool.architecture.layers[0] == MaxPool(padding="same")
    assert [kind for kind, _, _ in problems(pool)] == ["ZeroPadding2D"]


def test_preprocessing_layers_are_left_out_and_reported() -> None:
    front = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])
    found = sequential(front, layers.Rescaling(1 / 255), layers.Normalization(), layers.SeparableConv2D(8, 3))
    assert known(found) == (CONV,)
    assert sorted(len(names) for names in found.left_out.values()) == [2, 2]
    assert known(functional(lambda x: layers.SeparableConv2D(8, 3)(x / 255.0 - 0.5))) == (CONV,)


def test_resizing_in_front_gives_the_size_of_the_images() -> None:
    found = sequential(layers.Resizing(12, 10), layers.SeparableConv2D(8, 3))
    assert found.architecture is not None and found.architecture.input == (12, 10, 3)


def test_preparation_inside_the_network_is_a_problem() -> None:
    found = sequential(layers.SeparableConv2D(8, 3), layers.RandomFlip())
    assert problems(found)[0][:2] == ("RandomFlip", "prepares images, and may stand only before all else")


def test_models_inside_a_model_are_laid_out_flat() -> None:
    inner = keras.Sequential([layers.SeparableConv2D(8, 3), layers.ReLU()])
    image = keras.Input((14, 14, 8))
    sums = keras.Model(image, layers.Add()([image, layers.SeparableConv2D(8, 3, padding="same")(image)]))
    same = replace(CONV, padding="same")
    assert known(sequential(inner, sums)) == (CONV, Activation("relu"), Residual((), (same,)))
    assert known(functional(lambda x: sums(inner(x)))) == (CONV, Activation("relu"), Residual((), (same,)))


def test_scores_get_a_softmax_and_a_softmax_before_flatten_moves_behind_it() -> None:
    found = sequential(head=(layers.GlobalAveragePooling2D(), layers.Dense(4)))
    assert known(found) == () and found.softmax_added
    convolved = layers.SeparableConv2D(4, 16), layers.Softmax(), layers.Flatten()
    moved = sequential(head=convolved)
    assert moved.problems == () and moved.architecture is not None and not moved.softmax_added
    assert moved.architecture.layers[1:] == (Flatten(), Softmax())
    wide = sequential(head=(layers.SeparableConv2D(4, 15), layers.Softmax(), layers.GlobalAveragePooling2D()))
    assert [rule for _, rule, _ in problems(wide)] == ["comes after the softmax"]


def test_regularizers_are_left_out_and_reported() -> None:
    found = sequential(layers.SeparableConv2D(8, 3, depthwise_regularizer="l2"), layers.Dropout(0.5, seed=3))
    assert known(found) == (CONV, Dropout(0.5))
    assert list(found.left_out) == ["depthwise_regularizer: weight decay belongs to the recipe"]
