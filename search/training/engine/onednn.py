"""Operations of a training step arranged so that oneDNN, TensorFlow's library on x86 CPUs, has a fast kernel for them.

Results are those of the plain operations up to rounding. `benchmarks/kernel_speed.py` measures both.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from search.system import has_avx512
from search.training import device
from search.training.engine.layers import extent

STRIP = 3  # columns of a depthwise kernel, up to which its gradient has a vectorized kernel
VECTOR = 16  # float32 values of a vector of AVX-512


def has_strips() -> bool:
    """True where gradients of wide depthwise kernels are computed in strips: on an x86 CPU."""
    return platform.machine().lower() in ("x86_64", "amd64") and not device.is_accelerated()


def is_paired(channels: int, pixels: int) -> bool:
    """True where batch norm of so many channels is computed on pairs of pixels.

    With AVX-512 a multiple of 16 channels has a fast kernel, and any other multiple of 8 one that is ten times as slow.
    """
    return channels % VECTOR == VECTOR // 2 and pixels % 2 == 0 and has_avx512() and not device.is_accelerated()


# --- depthwise convolution ---------------------------------------------------------------------------------------------


class StripDepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc]
    """Depthwise convolution whose kernel's gradient is computed in strips."""

    def call(self, inputs: Any) -> Any:
        kernel = tf.cast(self.kernel.value, inputs.dtype)
        if not _is_wide(self, inputs, kernel):
            return super().call(inputs)
        x = depthwise(inputs, kernel, self.strides[0], self.padding)
        return x + tf.cast(self.bias.value, x.dtype) if self.use_bias else x


class StripSeparableConv2D(keras.layers.SeparableConv2D):  # type: ignore[misc]
    """Separable convolution whose depthwise kernel's gradient is computed in strips."""

    def call(self, inputs: Any) -> Any:
        kernel = tf.cast(self.depthwise_kernel.value, inputs.dtype)
        if not _is_wide(self, inputs, kernel):
            return super().call(inputs)
        x = depthwise(inputs, kernel, self.strides[0], self.padding)
        x = tf.nn.conv2d(x, tf.cast(self.pointwise_kernel.value, x.dtype), 1, "VALID")
        return tf.nn.bias_add(x, tf.cast(self.bias.value, x.dtype)) if self.use_bias else x


def _is_wide(layer: Any, inputs: Any, kernel: Any) -> bool:
    return STRIP < kernel.shape[1] <= inputs.shape[2] and set(layer.dilation_rate) == {1}


def depthwise(x: Any, kernel: Any, stride: int, padding: str) -> Any:
    """Depthwise convolution of (n, h, w, c) by (rows, columns, c, multiplier), as `tf.nn.depthwise_conv2d`."""
    how = {"strides": [1, stride, stride, 1], "padding": padding.upper()}

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def convolve(x: Any, kernel: Any) -> Any:
        y = tf.nn.depthwise_conv2d(x, kernel, **how)

        def gradients(slope: Any) -> tuple[Any, Any]:
            back = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(x), filter=kernel, out_backprop=slope, **how
            )
            return back, kernel_gradient(x, slope, kernel.shape, stride, padding)

        return y, gradients

    return convolve(x, kernel)


def kernel_gradient(x: Any, slope: Any, shape: Sequence[int], stride: int, padding: str) -> Any:
    """Gradient of the kernel, STRIP of its columns at a time: each from those columns of x that lie under them."""
    (rows, columns, channels, multiplier), width = shape, x.shape[2]
    _, top, bottom = extent(x.shape[1], rows, stride, 1, padding)
    outputs, left, _ = extent(width, columns, stride, 1, padding)
    firsts = [*range(0, columns - STRIP, STRIP), columns - STRIP]  # the last overlaps: so of five columns none is cut off x
    strips = []
    for first, following in zip(firsts, [*firsts[1:], columns], strict=True):
        start, end = first - left, first - left + (outputs - 1) * stride + STRIP
        under = x[:, :, max(start, 0) : min(end, width)]
        strip = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=tf.pad(under, [[0, 0], [top, bottom], [max(-start, 0), max(end - width, 0)], [0, 0]]),
            filter_sizes=[rows, STRIP, channels, multiplier],
            out_backprop=slope,
            strides=[1, stride, stride, 1],
            padding="VALID",
        )
        strips.append(strip[:, : following - first])
    return tf.concat(strips, axis=1)


# --- batch norm ----------------------------------------------------------------------------------------------------------


def paired_batch_norm(x: Any, scale: Any, offset: Any, epsilon: float) -> Any:
    """Batch norm of (n, h, w, c) by the batch's own statistics, computed on pairs of pixels as 2c channels.

    The statistics of the 2c channels are those of each half of the pixels; the variance of all is the mean of both
    variances plus the variance of both means. Mean and variance are for moving averages: they pass no gradient on.

    Returns:
        (result, mean, variance) with the population variance.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def normalized(x: Any, scale: Any, offset: Any) -> Any:
        pairs = tf.reshape(x, [-1, x.shape[1] * x.shape[2] // 2, 1, 2 * x.shape[3]])
        one, zero = tf.ones(pairs.shape[3]), tf.zeros(pairs.shape[3])
        halves = tf.raw_ops.FusedBatchNormV3(x=pairs, scale=one, offset=zero, mean=[], variance=[], epsilon=epsilon)
        means, variances = (tf.reshape(values, [2, -1]) for values in (halves.reserve_space_1, halves.reserve_space_2))
        mean = tf.reduce_mean(means, axis=0)
        variance = tf.reduce_mean(variances + tf.square(means - mean), axis=0)
        y = tf.raw_ops.FusedBatchNormV3(
            x=pairs,
            scale=tf.tile(scale, [2]),
            offset=tf.tile(offset, [2]),
            mean=tf.tile(mean, [2]),
            variance=tf.tile(variance, [2]),
            epsilon=epsilon,
            is_training=False,
        ).y

        def gradients(slope: Any, *_: Any) -> tuple[Any, Any, Any]:
            back = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=slope,
                x=x,
                scale=scale,
                reserve_space_1=mean,
                reserve_space_2=variance,
                reserve_space_3=[],
                epsilon=epsilon,
            )
            return back.x_backprop, back.scale_backprop, back.offset_backprop

        return (tf.reshape(y, tf.shape(x)), mean, variance), gradients

    return normalized(x, scale, offset)
