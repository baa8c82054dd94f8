"""Rewrites a trained network for int8 conversion: the same function, without separate batch normalisations where possible.

The converter folds a batch normalisation that follows a convolution into it. Any other it leaves as a multiplication and an
addition whose constants get one scale for all channels, which costs networks with the activation first many points of
accuracy (9 in one case, see benchmarks/LOG.md) and memory. Weights of a convolution have a scale for each channel, so the
factors are moved into a convolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from search.data.preprocessing import Pixels
from search.networks.architecture import Architecture
from search.networks.geometry import Resolved, flatten, resolve
from search.networks.layers import Activation, BatchNorm, ConvLayer, Dense, Dropout, Flatten
from search.training.model import build

Weights = Sequence[npt.NDArray[Any]]


def quantizable(architecture: Architecture, weights: Weights, *, rescaled: Pixels | None = None) -> keras.Model:
    """The network with these weights in the form that loses least accuracy in int8.

    Args:
        rescaled: preprocessing that the network does itself, see `search.training.model.build`.
    """
    plain = build(architecture)
    plain.set_weights(list(weights))
    replacements = _replacements(architecture, {layer.name: layer for layer in plain.layers})
    model = build(architecture, layers=_Layers(replacements), rescaled=rescaled)
    model.set_weights(list(weights))
    for norm, convolution in replacements.into.items():
        _multiply(model.get_layer(convolution), np.abs(_scale(plain.get_layer(norm))))
    return model


@dataclass(frozen=True)
class _Replacements:
    """Replacements of the normalisations that the converter does not fold, by name."""

    into: dict[str, str]  # after a relu: its factor goes through it into this convolution, as |s| relu(x) = relu(|s| x)
    signed: set[str]  # those of `into` that have a negative factor for any channel
    alone: set[str]  # becomes a 1x1 depthwise convolution


def _replacements(architecture: Architecture, layers: Mapping[str, Any]) -> _Replacements:
    resolved = resolve(architecture)
    before = dict(_before(resolved))
    replacements = _Replacements({}, set(), set())
    for _, row in flatten(resolved):
        if not isinstance(row.layer, BatchNorm):
            continue
        first, second = before[row.name]
        if _has_kernel(first):
            continue
        if first and first.layer == Activation("relu") and second and _has_kernel(second) and not _shares_weights(second):
            replacements.into[row.name] = second.name
            if (_scale(layers[row.name]) < 0).any():
                replacements.signed.add(row.name)
        elif len(row.output) == 3:
            replacements.alone.add(row.name)
    return replacements


def _before(rows: tuple[Resolved, ...]) -> Iterator[tuple[str, tuple[Resolved | None, Resolved | None]]]:
    """For each row the last two rows before it that have an effect; no other row reads their outputs."""
    first = second = None
    for row in rows:
        yield from _before(row.branch)
        yield from _before(row.shortcut)
        yield row.name, (first, second)
        if not (isinstance(row.layer, Dropout) or (isinstance(row.layer, Flatten) and len(row.input) == 1)):
            first, second = row, first


def _has_kernel(row: Resolved | None) -> bool:
    return row is not None and isinstance(row.layer, ConvLayer | Dense)


def _shares_weights(row: Resolved) -> bool:
    """True if other convolutions share its weights."""
    return isinstance(row.layer, ConvLayer) and bool(row.layer.weights)


def _scale(norm: Any) -> npt.NDArray[np.float32]:
    """Factor of a batch normalisation for each channel."""
    return np.asarray(norm.gamma / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon), np.float32)


def _multiply(layer: Any, factors: npt.NDArray[np.float32]) -> None:
    """Multiply the output channels of a convolution or a dense layer."""
    kernel = getattr(layer, "pointwise_kernel", None)
    kernel = layer.kernel if kernel is None else kernel
    kernel.assign(np.asarray(kernel) * factors)
    if layer.use_bias:
        layer.bias.assign(np.asarray(layer.bias) * factors)


class _Layers:
    """`keras.layers` with replaced batch normalisations."""

    def __init__(self, replacements: _Replacements) -> None:
        self._kinds = dict.fromkeys(replacements.into, _Shift) | dict.fromkeys(replacements.signed, _SignAndShift)
        self._kinds |= dict.fromkeys(replacements.alone, _ScaleAndShift)

    def __getattr__(self, name: str) -> Any:
        return getattr(keras.layers, name)

    def Rescaling(self, scale: list[float], offset: list[float], *, name: str) -> Any:  # noqa: N802
        return _Rescaling(scale, offset, name=name)

    def BatchNormalization(self, *, name: str, **options: Any) -> Any:  # noqa: N802
        return self._kinds.get(name, keras.layers.BatchNormalization)(name=name, **options)


class _Shift(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Remainder of a batch normalisation whose factor was applied before."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return inputs + (self.beta - self.moving_mean * _factor(self))


class _SignAndShift(keras.layers.BatchNormalization):  # type: ignore[misc]
    """The same where factors are negative: signs of channels are exact with one scale for all."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        signs = tf.where(self.gamma < 0, -1.0, 1.0)
        return inputs * signs + (self.beta - self.moving_mean * _factor(self))


class _ScaleAndShift(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalisation of a map with its fixed averages, as a depthwise convolution."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        kernel = tf.reshape(_factor(self), (1, 1, -1, 1))
        scaled = tf.nn.depthwise_conv2d(inputs, kernel, strides=(1, 1, 1, 1), padding="VALID")
        return tf.nn.bias_add(scaled, self.beta - self.moving_mean * _factor(self))


class _Rescaling(keras.layers.Layer):  # type: ignore[misc]
    """Factor and offset of each channel of the input, as a convolution."""

    def __init__(self, scale: list[float], offset: list[float], *, name: str) -> None:
        super().__init__(name=name)
        self._scale, self._offset = scale, offset

    def call(self, inputs: Any) -> Any:
        kernel = tf.reshape(tf.constant(self._scale, tf.float32), (1, 1, -1, 1))
        scaled = tf.nn.depthwise_conv2d(inputs, kernel, strides=(1, 1, 1, 1), padding="VALID")
        return tf.nn.bias_add(scaled, tf.constant(self._offset, tf.float32))


def _factor(norm: Any) -> Any:
    return norm.gamma * tf.math.rsqrt(norm.moving_variance + norm.epsilon)
