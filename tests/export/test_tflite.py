"""TensorFlow Lite files give what the network gives, one image at a time, in floats and in integers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings

from search.data.dataset import Dataset, load_dataset
from search.data.preprocessing import Pixels
from search.export import litert
from search.export.tflite import CALIBRATION_IMAGES, NAME, calibration_images, float_tflite, int8_tflite
from search.export.verification import CONVERTED, require_alike, require_equal
from search.networks.architecture import Architecture
from search.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
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
from search.seeds import generator
from search.training.model import build
from search.training.recipe import Recipe
from tests.support.pictures import picture_set, pictures
from tests.support.strategies import FUNCTIONS, architectures
from tests.support.tiers import tiered

NORMALISED = Pixels((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
IN_INTEGERS: tuple[Function, ...] = tuple(function for function in FUNCTIONS if function != "elu")


def net(*layers: Layer, input: tuple[int, int, int] = (12, 11, 3)) -> Architecture:
    return Architecture(input, 3, (*layers, GlobalAveragePool(), Dense(3), Softmax()), "net")


KINDS = {
    "odd widths": net(
        SeparableConv(7, 3, dilation=2, depth_multiplier=3, use_bias=True),
        BatchNorm(),
        SeparableConv(5, 2, stride=2, padding="valid"),
        Conv(3, 3, stride=2, use_bias=True),
        Dropout(0.3),
        BatchNorm(),
    ),
    "spatial": net(SpatialSeparableConv(9, 5, stride=2, use_bias=True), SpatialSeparableConv(5, 3, dilation=2), BatchNorm()),
    "gates and residuals": net(
        SeparableConv(12, 5),
        Residual((BatchNorm(), Gate("silu"), SpatialSeparableConv(12), Dropout(0.1), BatchNorm())),
        Residual((SeparableConv(6, stride=2),), (AveragePool(2, padding="same"), Conv(6, 1))),
        Residual((Residual((), (BatchNorm(),)), MaxPool(3, 1, "same"))),
    ),
    "pools": net(MaxPool(3, 1), AveragePool(3, 2, "same"), MaxPool(1), SeparableConv(3)),
    "functions": net(*(layer for one in IN_INTEGERS for layer in (SeparableConv(6), Activation(one), Gate(one)))),
    "vector": Architecture((4, 5, 1), 3, (Flatten(), Dense(8), BatchNorm(), Gate(), Dropout(0.1), Dense(3), Softmax())),
}  # fmt: skip


def some_weights(architecture: Architecture) -> list[Any]:
    """Weights of which no two arrays are alike, strong enough for outputs that differ."""
    random = generator(1, "weights")
    own = build(architecture).get_weights()
    return [1.5 * array * random.uniform(0.8, 1.2, array.shape) + random.uniform(0, 0.05, array.shape) for array in own]


def trained(architecture: Architecture, weights: list[Any]) -> keras.Model:
    model = build(architecture)
    model.set_weights(weights)
    return model


def outputs(model: keras.Model, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(model(inputs, training=False))


def in_integers(content: bytes, pixels: Pixels, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    given = litert.read(content).input
    table = pixels.quantized(images.shape[-1], given.scale, given.zero_point)
    return litert.outputs(content, images, lambda some: table[np.arange(images.shape[-1]), some])


# --- the same network ------------------------------------------------------------------------------------------------


def assert_floats_are_the_network(architecture: Architecture, pixels: Pixels) -> None:
    model, images = trained(architecture, some_weights(architecture)), pictures(architecture.input, 20)
    content = float_tflite(architecture, some_weights(architecture))
    told = litert.read(content)
    assert (told.input.shape, told.output.shape) == ((1, *architecture.input), (1, architecture.classes))
    assert (told.input.dtype, told.input.scale, told.output.dtype) == ("float32", 0.0, "float32")
    require_equal(litert.outputs(content, images, pixels.apply), outputs(model, pixels.apply(images)), CONVERTED)


def assert_integers_are_the_network(architecture: Architecture, pixels: Pixels) -> None:
    weights, data = some_weights(architecture), picture_set(architecture)
    content = int8_tflite(architecture, weights, calibration_images(data.x_train, data.y_train), pixels)
    told = litert.read(content)
    assert (told.input.shape, told.output.shape) == ((1, *architecture.input), (1, architecture.classes))
    assert told.dtypes <= {"int8", "int32"}
    assert (told.output.scale, told.output.zero_point) == (1 / 256, -128)
    expected = outputs(trained(architecture, weights), pixels.apply(data.x_val))
    require_alike(in_integers(content, pixels, data.x_val), expected, told.output.scale)


@pytest.mark.parametrize("name", tiered(KINDS, quick=("functions", "gates and residuals", "spatial")))
def test_a_file_is_the_network(name: str) -> None:
    pixels = NORMALISED if KINDS[name].input[-1] == 3 else Pixels()
    assert_floats_are_the_network(KINDS[name], pixels)
    assert_integers_are_the_network(KINDS[name], pixels)


@given(architectures(functions=IN_INTEGERS))
@settings(max_examples=3)
def test_a_file_of_any_network_is_the_network(architecture: Architecture) -> None:
    assert_floats_are_the_network(architecture, Pixels())
    assert_integers_are_the_network(architecture, Pixels())


def test_the_same_network_gives_the_same_bytes() -> None:
    architecture = KINDS["gates and residuals"]
    weights, images = some_weights(architecture), pictures(architecture.input, 30)
    for make in (
        lambda: float_tflite(architecture, weights),
        lambda: int8_tflite(architecture, weights, images, Pixels()),
    ):
        assert make() == make()


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_file_does_not_depend_on_the_name_of_the_network(kind: str) -> None:
    """Names of tensors begin with it: a study's longer name would make a larger file than the budget allows."""
    short = KINDS["vector"]
    weights, images = some_weights(short), pictures(short.input, 10)

    def convert(architecture: Architecture) -> bytes:
        if kind == "float32":
            return float_tflite(architecture, weights)
        return int8_tflite(architecture, weights, images, Pixels())

    long = replace(short, name="a_study_with_a_long_name-12")
    assert convert(long) == convert(short)
    assert f"{NAME}_1/".encode() in convert(long)


def test_elu_stays_in_floats() -> None:
    """Why a network with it is refused: `search.export.portable_formats` says so before it is converted."""
    architecture = net(SeparableConv(4), Activation("elu"), input=(6, 6, 1))
    content = int8_tflite(architecture, some_weights(architecture), pictures((6, 6, 1), 8), Pixels())
    assert "float32" in litert.read(content).dtypes


def test_a_network_whose_units_are_dead_runs(capfd: pytest.CaptureFixture[str]) -> None:
    architecture = net(SeparableConv(4), BatchNorm(), Activation("relu"), SeparableConv(4))
    weights = [array - 100 if number == 3 else array for number, array in enumerate(some_weights(architecture))]
    assert trained(architecture, weights).weights[3].path.endswith("beta")
    images = pictures(architecture.input, 20)
    content = int8_tflite(architecture, weights, images, Pixels())
    expected = outputs(trained(architecture, weights), Pixels().apply(images))
    assert np.ptp(expected, axis=0).max() == 0
    require_alike(in_integers(content, Pixels(), images), expected, 1 / 256)
    assert capfd.readouterr() == ("", "")


# --- a trained one ---------------------------------------------------------------------------------------------------

RESIDUAL = Architecture((8, 8, 1), 10, (
    SeparableConv(22, depth_multiplier=5), Activation("relu"), BatchNorm(0.9),
    Residual((SeparableConv(26, 5), BatchNorm(0.9), Gate("silu"), SpatialSeparableConv(22), BatchNorm(0.9))),
    SeparableConv(27, stride=2), Activation("relu"), BatchNorm(0.9), GlobalAveragePool(), Dense(10), Softmax(),
), "residual")  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", None, protocol="holdout", holdout=0.1, images=None)


@pytest.fixture(scope="module")
def weights(digits: Dataset) -> list[Any]:
    from search.training.train import fit

    recipe = Recipe(epochs=4, batch_size=32, learning_rate=0.004)
    return list(fit(RESIDUAL, digits, recipe, seed=0).best_weights)


@pytest.fixture(scope="module")
def content(digits: Dataset, weights: list[Any]) -> bytes:
    return int8_tflite(RESIDUAL, weights, calibration_images(digits.x_train, digits.y_train), Pixels())


@pytest.fixture(scope="module")
def expected(digits: Dataset, weights: list[Any]) -> npt.NDArray[np.float32]:
    return outputs(trained(RESIDUAL, weights), Pixels().apply(digits.x_val))


def test_a_trained_network_keeps_its_accuracy_in_integers(
    digits: Dataset, content: bytes, expected: npt.NDArray[np.float32]
) -> None:
    found = in_integers(content, Pixels(), digits.x_val)
    right = [float(np.mean(one.argmax(axis=1) == digits.y_val)) for one in (found, expected)]
    assert right[1] > 0.9 and abs(right[0] - right[1]) < 0.02
    assert require_alike(found, expected, 1 / 256) > 0.97


WRONG: dict[str, Callable[[list[Any]], list[Any]]] = {
    "weights of no training": lambda weights: build(RESIDUAL, seed=5).get_weights(),
    "one kernel mirrored": lambda weights: [weights[0][:, ::-1], *weights[1:]],
    "one kernel lost": lambda weights: [weights[0], 0 * weights[1], *weights[2:]],
    "classes in another order": lambda weights: [*weights[:-2], weights[-2][:, ::-1], weights[-1][::-1]],
    "initial averages": lambda weights: [
        0 * array if "mean" in variable.path else 0 * array + 1 if "variance" in variable.path else array
        for array, variable in zip(weights, build(RESIDUAL).weights, strict=True)
    ],
}


@pytest.mark.parametrize("fault", tiered(WRONG, quick=("one kernel mirrored", "classes in another order")))
def test_int8_files_of_another_network_are_reported(
    fault: str, digits: Dataset, weights: list[Any], expected: npt.NDArray[np.float32]
) -> None:
    calibration = calibration_images(digits.x_train, digits.y_train)
    wrong = int8_tflite(RESIDUAL, WRONG[fault](weights), calibration, Pixels())
    with pytest.raises(ValueError, match=r"outputs miss|the network is sure of"):
        require_alike(in_integers(wrong, Pixels(), digits.x_val), expected, 1 / 256)


def test_int8_files_of_other_pixels_are_reported(digits: Dataset, content: bytes, expected: npt.NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="outputs miss"):
        require_alike(in_integers(content, Pixels(), digits.x_val // 16), expected, 1 / 256)


# --- calibration -----------------------------------------------------------------------------------------------------


def test_calibration_images_are_as_many_of_each_class() -> None:
    y = np.repeat(np.arange(5), [300, 40, 200, 3, 60])
    x = np.broadcast_to((1 + y.astype(np.uint8) * 10)[:, None, None, None], (len(y), 4, 4, 1))
    chosen = calibration_images(x, y)
    counts = np.unique(chosen[:, 2, 2, 0], return_counts=True)[1]
    assert len(chosen) == CALIBRATION_IMAGES and sorted(counts) == [3, 31, 31, 31, 32]
    np.testing.assert_array_equal(chosen, calibration_images(x, y))
    assert (chosen[0, 0, 0, 0], chosen[-1, 0, 0, 0]) == (0, 255)
    assert len(calibration_images(x[298:302], y[298:302])) == 4  # of fewer images all


@pytest.mark.parametrize(("pixels", "shifted"), [(Pixels(), True), (NORMALISED, False)])
def test_no_pixel_is_cut_off_however_dim_the_images(pixels: Pixels, shifted: bool) -> None:
    architecture = net(SeparableConv(4))
    dim = 100 + pictures(architecture.input, 60) // 8
    images = calibration_images(dim, np.arange(60) % 3)
    told = litert.read(int8_tflite(architecture, some_weights(architecture), images, pixels)).input
    ends = pixels.apply(np.array([0, 255], np.uint8).repeat(3).reshape(1, 1, 2, 3))
    lowest, highest = ((end - told.zero_point) * told.scale for end in (-128, 127))
    assert lowest <= ends.min() + told.scale and highest >= ends.max() - told.scale
    table = pixels.quantized(3, told.scale, told.zero_point)
    assert (table == np.arange(-128, 128)).all() == shifted
    assert ("pixel - 128" in pixels.describe_int8(3, told.scale, told.zero_point)) == shifted
    real = (table.astype(np.float64) - told.zero_point) * told.scale
    wanted = pixels.apply(np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 1, 256, 3))[0, 0].T
    assert np.abs(real - wanted).max() <= 0.51 * told.scale


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_output_of_the_converter_is_kept_for_its_error(monkeypatch: Any, capfd: pytest.CaptureFixture[str]) -> None:
    import tensorflow as tf

    def broken(self: Any) -> bytes:
        os.write(2, b"some operator is not known\n")
        raise ValueError("no")

    monkeypatch.setattr(
        tf.lite.TFLiteConverter, "from_concrete_functions", lambda functions: type("C", (), {"convert": broken})()
    )
    with pytest.raises(RuntimeError, match=r"cannot express it \(no\); it printed: some operator is not known"):
        float_tflite(KINDS["vector"], some_weights(KINDS["vector"]))
    assert capfd.readouterr() == ("", "")


def test_converting_and_running_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    architecture = KINDS["vector"]
    content = int8_tflite(architecture, some_weights(architecture), pictures(architecture.input, 10), Pixels())
    in_integers(content, Pixels(), pictures(architecture.input, 10))
    assert capfd.readouterr() == ("", "")
