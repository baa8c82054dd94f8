"""Keras models: names, seeds, files, training mode, initialisers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings

from search.networks.architecture import Architecture, canonical
from search.networks.geometry import flatten, resolve
from search.networks.layers import (
    Activation,
    ArchitectureError,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Gate,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.training.model import build, flip_averaged
from search.training.recipe import INITIALIZERS
from tests.support.strategies import FUNCTIONS, REFERENCES, architectures, net, reference
from tests.support.tiers import tiered

Array = npt.NDArray[Any]

EVERY_KIND = net(
    SeparableConv(6, 3, depth_multiplier=2, use_bias=True),
    BatchNorm(0.9, 1e-4),
    Activation("silu"),
    SpatialSeparableConv(6, 5, 2, use_bias=True),
    Conv(8, 3, dilation=2),
    Gate("gelu"),
    Residual((SeparableConv(4), BatchNorm(), Residual((SeparableConv(4),))), (Conv(4, 1),)),
    MaxPool(3, 1, "same"),
    AveragePool(2),
    Dropout(0.3),
    tail=(GlobalAveragePool(), Flatten(), Dense(6, False), Gate(), Dense(2), Softmax()),
    name="every-kind",
)


def images(architecture: Architecture, count: int = 3) -> Array:
    return np.random.default_rng(0).random((count, *architecture.input), dtype=np.float32)


def predict(model: Any, batch: Array, **mode: bool) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(model(batch, **mode)))


def weights(model: Any) -> list[Array]:
    return [np.array(keras.ops.convert_to_numpy(weight.value)) for weight in model.weights]


def equal(left: list[Array], right: list[Array]) -> bool:
    return len(left) == len(right) and all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


# --- names -----------------------------------------------------------------------------------------------------------


def test_every_kind_is_among_the_layers() -> None:
    kinds = {row.layer.kind for _, row in flatten(resolve(EVERY_KIND))}
    assert len(kinds) == 14


@given(architectures())
@settings(max_examples=15)
def test_layers_bear_the_names_of_their_rows(architecture: Architecture) -> None:
    names = [layer.name for layer in build(architecture).layers]
    rows = [row.name for _, row in flatten(resolve(architecture)) if not row.first]
    assert len(set(names)) == len(names)
    assert set(rows) <= set(names)
    for name in set(names) - set(rows) - {"image"}:
        assert name.startswith(("get_item", *(f"{row}_" for row in rows)))


@pytest.mark.parametrize(
    "name", ["", "eip-c", "a b/c", "9", "x\n", "_private", "-x", "d\u00e9j\u00e0", "\u4e2d", "\u00b2", "..", "a" * 300]
)
def test_any_name_of_a_network_makes_a_model_that_compiles(name: str, tmp_path: Path) -> None:
    architecture = net(SeparableConv(2), name=name)
    model = build(architecture)
    compiled = model.predict(images(architecture), verbose=0)
    assert compiled.shape == (3, 2)
    model.save(tmp_path / "model.keras")


def test_input_and_output_are_images_and_probabilities() -> None:
    model = build(EVERY_KIND)
    assert model.input_shape == (None, 12, 12, 3)
    assert model.output_shape == (None, 2)
    assert model.input.name == "image"
    assert model.name == "every_kind"
    assert build(net()).name == "network"


def test_only_standard_layers_are_used() -> None:
    for layer in build(EVERY_KIND).layers:
        assert type(layer).__module__.startswith("keras."), layer.name


def test_flip_averaging_is_the_mean_over_an_image_and_its_mirror_image(tmp_path: Path) -> None:
    model = build(EVERY_KIND, seed=1)
    both, batch = flip_averaged(model), images(EVERY_KIND)
    expected = (predict(model, batch) + predict(model, batch[:, :, ::-1])) / 2
    np.testing.assert_allclose(predict(both, batch), expected, atol=1e-6)
    np.testing.assert_allclose(predict(both, batch[:, :, ::-1]), expected, atol=1e-6)
    assert np.abs(predict(model, batch) - expected).max() > 1e-5
    assert both.count_params() == model.count_params()
    both.save(tmp_path / "both.keras")
    np.testing.assert_allclose(predict(keras.models.load_model(tmp_path / "both.keras"), batch), expected, atol=1e-6)


def test_a_network_that_cannot_exist_is_not_built() -> None:
    with pytest.raises(ArchitectureError):
        build(net(Gate()))


# --- settings reach Keras --------------------------------------------------------------------------------------------

REACHES: list[tuple[Layer, str, dict[str, Any]]] = [
    (
        SeparableConv(4, 5, 1, "valid", 2, 3, True),
        "separable_conv_1",
        {
            "filters": 4,
            "kernel_size": (5, 5),
            "padding": "valid",
            "dilation_rate": (2, 2),
            "depth_multiplier": 3,
            "use_bias": True,
        },
    ),
    (SeparableConv(4, 3, 2), "separable_conv_1", {"strides": (2, 2), "padding": "same", "use_bias": False}),
    (
        SpatialSeparableConv(4, 5, 2, "valid", use_bias=True),
        "spatial_separable_conv_1",
        {"kernel_size": (1, 5), "strides": (2, 2), "padding": "valid", "use_bias": True},
    ),
    (
        SpatialSeparableConv(4, 5, padding="valid", dilation=2),
        "spatial_separable_conv_1_vertical",
        {"kernel_size": (5, 1), "strides": (1, 1), "padding": "valid", "dilation_rate": (2, 1), "use_bias": False},
    ),
    (
        Conv(4, 5, 1, "valid", 2, True),
        "conv_1",
        {"kernel_size": (5, 5), "padding": "valid", "dilation_rate": (2, 2), "use_bias": True},
    ),
    (Conv(4, 2, 3), "conv_1", {"strides": (3, 3), "use_bias": False}),
    (
        SpatialSeparableConv(4, 5, padding="valid", dilation=2),
        "spatial_separable_conv_1",
        {"kernel_size": (1, 5), "strides": (1, 1), "dilation_rate": (1, 2)},
    ),
    (BatchNorm(0.7, 0.01), "batch_norm_1", {"momentum": 0.7, "epsilon": 0.01}),
    (Activation("hard_silu"), "activation_1", {"activation": "hard_silu"}),
    (Dropout(0.25), "dropout_1", {"rate": 0.25}),
    (MaxPool(3, 1, "same"), "max_pool_1", {"pool_size": (3, 3), "strides": (1, 1), "padding": "same"}),
    (AveragePool(3), "average_pool_1", {"pool_size": (3, 3), "strides": (3, 3), "padding": "valid"}),
]


@pytest.mark.parametrize(("layer", "name", "expected"), REACHES, ids=[f"{one[1]}-{i}" for i, one in enumerate(REACHES)])
def test_a_field_of_a_record_reaches_keras(layer: Layer, name: str, expected: dict[str, Any]) -> None:
    config = build(net(layer)).get_layer(name).get_config()
    found_options = {key: tuple(config[key]) if isinstance(config[key], list) else config[key] for key in expected}
    assert found_options == expected


# --- what it computes ------------------------------------------------------------------------------------------------


@given(architectures())
@settings(max_examples=15)
def test_probabilities_sum_to_one(architecture: Architecture) -> None:
    output = predict(build(architecture), images(architecture))
    assert output.shape == (3, architecture.classes)
    assert output.dtype == np.float32
    assert np.all(output >= 0)
    np.testing.assert_allclose(output.sum(axis=1), 1, rtol=1e-5)


@given(architectures())
@settings(max_examples=8)
def test_the_canonical_form_computes_the_same(architecture: Architecture) -> None:
    batch = images(architecture)
    written, plain = build(architecture, seed=3), build(canonical(architecture), seed=3)
    np.testing.assert_allclose(predict(written, batch), predict(plain, batch), rtol=1e-4, atol=1e-6)


def _scores(*layers: Layer, batch: Array) -> tuple[Array, Array]:
    """Inputs and outputs of the last of these layers."""
    architecture = net(*layers, side=batch.shape[1], channels=batch.shape[3])
    rows = resolve(architecture)[: len(layers)]
    model = build(architecture)
    before = model.get_layer(rows[-2].name).output if len(rows) > 1 else model.input
    both = keras.Model(model.input, {"before": before, "after": model.get_layer(rows[-1].name).output})(batch)
    return np.array(both["before"]), np.array(both["after"])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_gate_is_f_of_the_first_half_times_the_second(function: str) -> None:
    batch = np.random.default_rng(1).normal(size=(2, 5, 5, 4)).astype(np.float32)
    before, after = _scores(Gate(function), batch=batch)  # type: ignore[arg-type]
    activated = np.array(keras.activations.get(function)(before[..., :2]))
    np.testing.assert_allclose(after, activated * before[..., 2:], rtol=1e-5, atol=1e-6)


def test_a_residual_is_the_sum_of_its_branches() -> None:
    batch = np.random.default_rng(1).normal(size=(2, 5, 5, 4)).astype(np.float32)
    before, after = _scores(Residual((Activation("relu"),)), batch=batch)
    np.testing.assert_allclose(after, before + np.maximum(before, 0), rtol=1e-6)
    before, after = _scores(Residual((Activation("tanh"),), (Activation("relu"),)), batch=batch)
    np.testing.assert_allclose(after, np.tanh(before) + np.maximum(before, 0), rtol=1e-4, atol=1e-6)
    before, after = _scores(Residual(()), batch=batch)
    np.testing.assert_allclose(after, 2 * before, rtol=1e-6)


@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), (2, "same"), (1, "valid"), (2, "valid")])
def test_a_spatially_separable_convolution_is_the_outer_product_of_its_halves(stride: int, padding: Any) -> None:
    """Computed beside it as one k x k depthwise convolution; an odd map, so that both pad alike."""
    batch = np.random.default_rng(1).normal(size=(2, 9, 9, 2)).astype(np.float32)
    model = build(net(SpatialSeparableConv(3, 3, stride, padding), side=9, channels=2))
    vertical = model.get_layer("spatial_separable_conv_1_vertical").get_weights()[0]
    horizontal, pointwise = model.get_layer("spatial_separable_conv_1").get_weights()
    whole = keras.ops.separable_conv(batch, vertical * horizontal, pointwise, strides=stride, padding=padding)
    part = keras.Model(model.input, model.get_layer("spatial_separable_conv_1").output)(batch)
    np.testing.assert_allclose(np.array(part), np.array(whole), rtol=1e-4, atol=1e-5)


def test_training_drops_values_and_normalises_by_the_batch() -> None:
    architecture = net(SeparableConv(4), BatchNorm(), Dropout(0.5))
    model = build(architecture)
    batch = images(architecture, 8) + 5
    steady = predict(model, batch, training=False)
    moving = [np.array(weight.value) for weight in model.non_trainable_weights if "moving" in weight.path]
    first, second = (predict(model, batch, training=True) for _ in range(2))
    np.testing.assert_array_equal(predict(build(architecture), batch, training=False), steady)
    assert not np.allclose(first, second)
    assert not np.allclose(first, steady)
    assert not equal(moving, [np.array(weight.value) for weight in model.non_trainable_weights if "moving" in weight.path])


@given(architectures())
@settings(max_examples=15)
def test_any_network_trains_a_step(architecture: Architecture) -> None:
    model = build(architecture)
    output = predict(model, images(architecture), training=True)
    np.testing.assert_allclose(output.sum(axis=1), 1, rtol=1e-5)


def test_a_fit_changes_every_trainable_weight() -> None:
    model = build(EVERY_KIND)
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    before = [np.array(weight.value) for weight in model.trainable_weights]
    model.fit(images(EVERY_KIND, 8), np.arange(8) % 2, epochs=2, verbose=0)
    for old, weight in zip(before, model.trainable_weights, strict=True):
        assert not np.array_equal(old, np.array(weight.value)), weight.path


# --- seeds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", [EVERY_KIND, reference("eip-c")], ids=lambda one: one.name)
def test_the_seed_alone_decides_the_weights(architecture: Architecture) -> None:
    left, again, other = (weights(build(architecture, seed=seed)) for seed in (1, 1, 2))
    keras.utils.set_random_seed(99)
    assert equal(left, again)
    assert equal(left, weights(build(architecture, seed=1)))
    assert not equal(left, other)


def test_every_kernel_of_another_seed_is_another() -> None:
    left, right = (build(EVERY_KIND, seed=seed) for seed in (1, 2))
    kernels = 0
    for one, other in zip(left.trainable_weights, right.trainable_weights, strict=True):
        if "kernel" in one.path:
            kernels += 1
            assert not np.array_equal(np.array(one.value), np.array(other.value)), one.path
    assert kernels == 13


def test_no_two_kernels_of_a_network_start_alike() -> None:
    model = build(net(*[SeparableConv(3), SpatialSeparableConv(3), Conv(3)] * 2, Residual((SeparableConv(3),))))
    starts = {np.array(weight.value).tobytes() for weight in model.trainable_weights if "kernel" in weight.path}
    assert len(starts) == sum("kernel" in weight.path for weight in model.trainable_weights)


def test_the_seed_decides_the_dropout() -> None:
    architecture = net(SeparableConv(4), Dropout(0.5), Dropout(0.5))
    batch = images(architecture)
    same, again, other = (predict(build(architecture, seed=seed), batch, training=True) for seed in (1, 1, 2))
    np.testing.assert_array_equal(same, again)
    model = build(architecture, seed=2)
    for mine, theirs in zip(model.trainable_weights, build(architecture, seed=1).trainable_weights, strict=True):
        mine.assign(theirs)
    assert not np.allclose(predict(model, batch, training=True), same)
    assert not np.allclose(other, same)
    seeds = [layer.seed for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert len(set(seeds)) == 2


def test_the_name_of_a_network_does_not_change_its_weights() -> None:
    assert equal(weights(build(net(Conv(2), name="a"))), weights(build(net(Conv(2), name="b"))))


# --- initialisers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_the_initializer_reaches_every_kernel(initializer: str) -> None:
    model = build(EVERY_KIND, initializer=initializer)
    expected = "".join(part.capitalize() for part in initializer.split("_"))
    seen = set()
    for layer in model.layers:
        for key, value in layer.get_config().items():
            if key in ("depthwise_initializer", "pointwise_initializer") or (key == "kernel_initializer" and value):
                assert value["class_name"] == expected, (layer.name, key)
                assert value["config"]["seed"] is not None
                seen.add((type(layer).__name__, key))
    assert seen == {
        ("SeparableConv2D", "depthwise_initializer"),
        ("SeparableConv2D", "pointwise_initializer"),
        ("DepthwiseConv2D", "depthwise_initializer"),
        ("Conv2D", "kernel_initializer"),
        ("Dense", "kernel_initializer"),
    }


def test_weights_start_at_the_scale_of_the_initializer() -> None:
    def spread(initializer: str) -> tuple[float, float]:
        model = build(net(Conv(64), SeparableConv(64)), initializer=initializer)
        depthwise, pointwise = model.get_layer("separable_conv_1").get_weights()
        return float(depthwise.std()), float(pointwise.std())

    glorot, he = spread("glorot_uniform"), spread("he_uniform")
    assert glorot[1] == pytest.approx(np.sqrt(2 / 128), rel=0.05)
    assert he[1] == pytest.approx(np.sqrt(2 / 64), rel=0.05)
    assert he[0] != glorot[0]


# --- files -----------------------------------------------------------------------------------------------------------


def check_file(architecture: Architecture, folder: Path) -> None:
    model = build(architecture, seed=1)
    batch = images(architecture)
    model(batch, training=True)  # so that the moving statistics are not those of a new model
    path = folder / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    np.testing.assert_array_equal(predict(loaded, batch), predict(model, batch))


def test_a_file_of_every_kind_computes_the_same(tmp_path: Path) -> None:
    check_file(EVERY_KIND, tmp_path)


@pytest.mark.parametrize("name", tiered(REFERENCES, quick=("eip-b", "eip-d")))
def test_a_file_of_a_reference_computes_the_same(name: str, tmp_path: Path) -> None:
    check_file(reference(name), tmp_path)


@given(architectures())
@settings(max_examples=8)
def test_a_file_of_any_network_computes_the_same(architecture: Architecture) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_file(architecture, Path(folder))
