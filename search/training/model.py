"""Keras models of networks, from standard layers only, so that saved models load in plain Keras 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, assert_never

import keras

from search.data.preprocessing import Pixels
from search.networks.architecture import Architecture, identifier
from search.networks.geometry import Resolved, resolve
from search.networks.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    ConvLayer,
    Dense,
    Dropout,
    Flatten,
    Gate,
    GlobalAveragePool,
    MaxPool,
    Residual,
    SeparableConv,
    Softmax,
    SpatialSeparableConv,
)
from search.seeds import derive
from search.training.device import configure_keras

RESCALING = "rescaling"  # name of the layer that prepares raw pixels


def build(
    architecture: Architecture,
    *,
    seed: int = 0,
    initializer: str = "glorot_uniform",
    layers: Any = keras.layers,
    dtype: str = "float32",
    rescaled: Pixels | None = None,
) -> keras.Model:
    """Build the network: float32 images (batch, height, width, channels) in, probabilities (batch, classes) out.

    Initial weights and dropout masks depend on the seed alone. Layers have the names of their resolved rows.

    Args:
        layers: namespace of layer classes; an engine passes faster ones with the same weights in the same order, and
            `Gate`, which Keras does not have.
        dtype: Keras dtype policy, "float32" or "mixed_bfloat16"; weights and the softmax are float32 in both.
        rescaled: preprocessing that the model does itself, by a first layer, on images of 0 to 255.

    Raises:
        ArchitectureError: the network cannot exist, see `search.networks.geometry.resolve`.
    """
    configure_keras()
    inputs = keras.Input(architecture.input, name="image")
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        x = inputs
        if rescaled is not None:
            scale, offset = rescaled.linear
            x = layers.Rescaling(scale, offset, name=RESCALING)(inputs)
        outputs = _chain(x, resolve(architecture), _Options(seed, initializer, layers, {}))
    finally:
        keras.config.set_dtype_policy(usual)
    return keras.Model(inputs, outputs, name=identifier(architecture.name))


def flip_averaged(model: keras.Model) -> keras.Model:
    """Wrap a model so that it averages the probabilities of each image and of its mirror image."""
    image = keras.Input(model.input_shape[1:], name="image")
    average = keras.layers.Average(name="flip_average", dtype="float32")
    return keras.Model(image, average([model(image), model(image[:, :, ::-1])]), name=f"{model.name}_flip_averaged")


def load(path: Path) -> keras.Model:
    """Load a model file of Keras, without compiling it."""
    return keras.models.load_model(path, compile=False)


class _Options(NamedTuple):
    """Options that all layers of a network are built with."""

    seed: int
    initializer: str
    layers: Any
    convolutions: dict[str, list[Any]]  # those built so far, by the name of their row, for rows that share weights


def _chain(x: Any, rows: tuple[Resolved, ...], options: _Options) -> Any:
    for row in rows:
        x = _apply(x, row, options)
    return x


def _apply(x: Any, row: Resolved, options: _Options) -> Any:
    seed, _, layers, convolutions = options
    name, layer = row.name, row.layer
    match layer:
        case SeparableConv() | SpatialSeparableConv() | Conv():
            convolutions[name] = convolutions[row.first] if row.first else _convolution(name, layer, options)
            for convolution in convolutions[name]:
                x = convolution(x)
            return x
        case BatchNorm():
            return layers.BatchNormalization(momentum=layer.momentum, epsilon=layer.epsilon, name=name)(x)
        case Activation():
            return layers.Activation(layer.function, name=name)(x)
        case Dropout():
            return layers.Dropout(layer.rate, seed=derive(seed, "dropout", name), name=name)(x)
        case MaxPool():
            return layers.MaxPooling2D(layer.size, layer.stride, padding=layer.padding, name=name)(x)
        case AveragePool():
            return layers.AveragePooling2D(layer.size, layer.stride, padding=layer.padding, name=name)(x)
        case GlobalAveragePool():
            return layers.GlobalAveragePooling2D(name=name)(x)
        case Flatten():
            return layers.Flatten(name=name)(x)
        case Dense():
            kernel = _weights(name, "kernel", options)
            return layers.Dense(layer.units, use_bias=layer.use_bias, kernel_initializer=kernel, name=name)(x)
        case Softmax():
            return layers.Activation("softmax", name=name, dtype="float32")(x)
        case Gate():
            if hasattr(layers, "Gate"):
                return layers.Gate(layer.function, name=name)(x)
            first, second = x[..., : row.output[-1]], x[..., row.output[-1] :]
            gate = layers.Activation(layer.function, name=f"{name}_{layer.function}")(first)
            return layers.Multiply(name=name)([gate, second])
        case Residual():
            return layers.Add(name=name)([_chain(x, row.branch, options), _chain(x, row.shortcut, options)])
        case _:
            assert_never(layer)


def _convolution(name: str, layer: ConvLayer, options: _Options) -> list[Any]:
    """Create the Keras layers of a convolution, in the order of their calls."""
    layers = options.layers
    match layer:
        case SeparableConv():
            return [
                layers.SeparableConv2D(
                    layer.filters,
                    layer.kernel,
                    strides=layer.stride,
                    padding=layer.padding,
                    dilation_rate=layer.dilation,
                    depth_multiplier=layer.depth_multiplier,
                    use_bias=layer.use_bias,
                    depthwise_initializer=_weights(name, "depthwise", options),
                    pointwise_initializer=_weights(name, "pointwise", options),
                    name=name,
                )
            ]
        case SpatialSeparableConv():
            return [
                layers.DepthwiseConv2D(
                    (layer.kernel, 1),
                    padding=layer.padding,
                    dilation_rate=(layer.dilation, 1),
                    use_bias=False,
                    depthwise_initializer=_weights(name, "vertical", options),
                    name=f"{name}_vertical",
                ),
                layers.SeparableConv2D(
                    layer.filters,
                    (1, layer.kernel),
                    strides=layer.stride,
                    padding=layer.padding,
                    dilation_rate=(1, layer.dilation),
                    use_bias=layer.use_bias,
                    depthwise_initializer=_weights(name, "horizontal", options),
                    pointwise_initializer=_weights(name, "pointwise", options),
                    name=name,
                ),
            ]
        case Conv():
            return [
                layers.Conv2D(
                    layer.filters,
                    layer.kernel,
                    strides=layer.stride,
                    padding=layer.padding,
                    dilation_rate=layer.dilation,
                    use_bias=layer.use_bias,
                    kernel_initializer=_weights(name, "kernel", options),
                    name=name,
                )
            ]
        case _:
            assert_never(layer)


def _weights(name: str, part: str, options: _Options) -> Any:
    """Create the initialiser of a part of a layer's weights."""
    config = {"seed": derive(options.seed, "weights", name, part)}
    return keras.initializers.get({"class_name": options.initializer, "config": config})
