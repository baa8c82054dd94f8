"""Faster equivalents of Keras layers for training, with the same weights in the same order.

They take their random numbers from `Draws`, so that a training can be repeated and resumed. They exist only during training:
stored and exported models consist of standard Keras layers.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol

import keras
from keras import ops

from search.seeds import derive


class Draws(Protocol):
    """Random numbers inside a compiled step: the same for the same (seed of the epoch, step, stream)."""

    def at(self, seed: Any, step: Any) -> None:
        """Select the step for the next calls; scalars, possibly symbolic."""

    def uniform(self, shape: Any, stream: int) -> Any:
        """float32 in [0, 1)."""

    def bits(self, shape: Any, stream: int) -> Any:
        """uint16, each value equally likely."""


def dropout_of(draws: Draws) -> type[keras.layers.Layer]:
    """Create a Dropout layer class that uses these draws.

    A value is dropped where 16 random bits fall below rate * 65536, half the random words that floats take; the rest is
    scaled by the share that is so kept, which differs from 1 - rate by less than 1e-5.
    """

    class Dropout(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self, rate: float, seed: int, **rest: Any) -> None:
            super().__init__(**rest)
            self.threshold = round(rate * 65536)
            self.stream = derive(0, "dropout", self.name)

        def call(self, inputs: Any, training: bool = False) -> Any:
            if not training or self.threshold == 0:
                return inputs
            kept = draws.bits(ops.shape(inputs), self.stream) >= ops.cast(self.threshold, "uint16")
            return inputs * (ops.cast(kept, inputs.dtype) * (65536 / (65536 - self.threshold)))

    return Dropout


class ShiftedSeparableConv2D(keras.layers.SeparableConv2D):  # type: ignore[misc]
    """Separable convolution whose depthwise half is a sum of k * k shifted products.

    XLA fuses those; its grouped convolutions are slow.
    """

    def call(self, inputs: Any) -> Any:
        return _pointwise(self, shifted_depthwise(self, inputs, ops.cast(self.depthwise_kernel, inputs.dtype)))


class ShiftedDepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc]
    """Depthwise convolution as a sum of shifted products."""

    def call(self, inputs: Any) -> Any:
        x = shifted_depthwise(self, inputs, ops.cast(self.kernel, inputs.dtype))
        return x + ops.cast(self.bias, x.dtype) if self.use_bias else x


class ShiftedMaxPooling2D(keras.layers.MaxPooling2D):  # type: ignore[misc]
    """Max pooling by comparisons of shifted images, as XLA's windows and their gradients are slow.

    Of equal values the first gets the gradient, as in Keras.
    """

    def call(self, inputs: Any) -> Any:
        first, *others = _windows(self, inputs, self.pool_size, (1, 1), -math.inf)
        return functools.reduce(lambda most, other: ops.where(most >= other, most, other), others, first)


class Gate(keras.layers.Layer):  # type: ignore[misc]
    """f(a) * b of the halves a, b of the channels of (n, h, w, 2c)."""

    def __init__(self, function: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.gated = gate_of(function)

    def call(self, inputs: Any) -> Any:
        return self.gated(inputs)


@functools.cache
def gate_of(function: str) -> Callable[[Any], Any]:
    """f(a) * b as a function of a tensor whose channels are a, then b.

    The gradient of a split is one concatenation; that of the two slices in the stored model copies zeros around each of
    them, which took two fifths of the step of a gated residual net. Both give the same bits.
    """

    def gated(x: Any) -> Any:
        first, second = ops.split(x, [x.shape[-1] // 2], axis=-1)
        return keras.activations.get(function)(first) * second

    return gated


SHIFTED = {
    "SeparableConv2D": ShiftedSeparableConv2D,
    "DepthwiseConv2D": ShiftedDepthwiseConv2D,
    "MaxPooling2D": ShiftedMaxPooling2D,
}


def shifted_depthwise(layer: Any, inputs: Any, kernel: Any) -> Any:
    """Depthwise convolution (n, h, w, c) by (rows, columns, c, multiplier) with the layer's stride, dilation and padding."""
    rows, columns, channels, multiplier = kernel.shape
    windows = _windows(layer, inputs, (rows, columns), layer.dilation_rate, 0.0)
    positions = itertools.product(range(rows), range(columns))
    total = sum(window[..., None] * kernel[position] for window, position in zip(windows, positions, strict=True))
    return ops.reshape(total, (-1, *windows[0].shape[1:3], channels * multiplier))


def _windows(layer: Any, inputs: Any, size: tuple[int, int], dilation: tuple[int, int], fill: float) -> list[Any]:
    """The inputs (n, output height, output width, c) under each element, row by row, of a kernel of that size."""
    (rows, columns), (stride_y, stride_x), (dilation_y, dilation_x) = size, layer.strides, dilation
    height, top, bottom = extent(inputs.shape[1], rows, stride_y, dilation_y, layer.padding)
    width, left, right = extent(inputs.shape[2], columns, stride_x, dilation_x, layer.padding)
    padded = ops.pad(inputs, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    return [
        padded[:, y : y + (height - 1) * stride_y + 1 : stride_y, x : x + (width - 1) * stride_x + 1 : stride_x]
        for y in range(0, rows * dilation_y, dilation_y)
        for x in range(0, columns * dilation_x, dilation_x)
    ]


def _pointwise(layer: Any, x: Any) -> Any:
    kernel = ops.cast(layer.pointwise_kernel, x.dtype)[0, 0]
    x = ops.matmul(x, kernel)
    return x + ops.cast(layer.bias, x.dtype) if layer.use_bias else x


def extent(size: int, kernel: int, stride: int, dilation: int, padding: str) -> tuple[int, int, int]:
    """(output size, padding before, padding after) in pixels, as in TensorFlow."""
    reach = (kernel - 1) * dilation + 1
    if padding == "valid":
        return (size - reach) // stride + 1, 0, 0
    output = -(-size // stride)
    padding_all = max(0, (output - 1) * stride + reach - size)
    return output, padding_all // 2, padding_all - padding_all // 2


def fast_layers(**replaced: Any) -> SimpleNamespace:
    """`keras.layers` with some classes replaced, for `search.training.model.build`."""
    return SimpleNamespace(**vars(keras.layers) | {"Gate": Gate} | replaced)
