"""Operations of a training step arranged so that oneDNN, TensorFlow's library on x86 CPUs, has a fast kernel for them.

Results are those of the plain operations up to rounding. `benchmarks/kernel_speed.py` measures both.
"""

from __future__ import annotations

import math
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
LARGE = 8_192  # values of an image: from here on a batch of 64 does not fit into the cache of a core


def has_strips() -> bool:
    """True where gradients of wide depthwise kernels are computed in strips: on an x86 CPU."""
    return platform.machine().lower() in ("x86_64", "amd64") and not device.is_accelerated()


def group_of(channels: int, pixels: int) -> int:
    """Number of neighbouring pixels that batch norm takes as one of so many times the channels; 1: the plain operation.

    With AVX-512 a multiple of 16 channels has fast kernels. Others take two to twelve times as long; those of 4, 12, 20, ...
    channels do so only where images are too large for the processor's cache.
    """
    group = VECTOR // math.gcd(channels, VECTOR)
    is_small = group == 4 and channels * pixels < LARGE
    is_possible = pixels % group == 0 and has_avx512() and not device.is_accelerated()
    return group if is_possible and not is_small else 1


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


def grouped_batch_norm(x: Any, scale: Any, offset: Any, epsilon: float, group: int) -> Any:
    """Batch norm of (n, h, w, c) by the batch's own statistics, computed on `group` pixels at a time as group * c channels.

    The statistics of the group * c channels are those of one pixel in `group` each; the variance of all is the mean of their
    variances plus the variance of their means. Mean and variance are for moving averages: they pass no gradient on.

    Returns:
        (result, mean, variance) with the population variance.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def normalized(x: Any, scale: Any, offset: Any) -> Any:
        grouped = _grouped(x, group)
        one, zero = tf.ones(grouped.shape[3]), tf.zeros(grouped.shape[3])
        parts = tf.raw_ops.FusedBatchNormV3(x=grouped, scale=one, offset=zero, mean=[], variance=[], epsilon=epsilon)
        means, variances = (tf.reshape(values, [group, -1]) for values in (parts.reserve_space_1, parts.reserve_space_2))
        mean = tf.reduce_mean(means, axis=0)
        variance = tf.reduce_mean(variances + tf.square(means - mean), axis=0)
        y = _line(grouped, [tf.tile(values, [group]) for values in (scale, offset, mean, variance)], epsilon)

        def gradients(slope: Any, *_: Any) -> tuple[Any, Any, Any]:
            if x.shape[3] % 4:
                return _grouped_gradients(slope, x, (scale, mean, variance), epsilon, group)
            return _gradients(slope, x, (scale, mean, variance), epsilon)

        return (tf.reshape(y, tf.shape(x)), mean, variance), gradients

    return normalized(x, scale, offset)


def _grouped_gradients(slope: Any, x: Any, norm: Sequence[Any], epsilon: float, group: int) -> tuple[Any, Any, Any]:
    """Gradients by (x, scale, offset), where the operation that gives all three has no fast kernel.

    With r = (variance + epsilon)^-1/2 and m values of a channel, the gradient by x is that with mean and variance held,
    less scale r (offset' + (x - mean) r scale') / m, where offset' and scale' are the other two gradients (Ioffe and
    Szegedy, "Batch Normalization", 2015). What is subtracted is a line in x, as batch norm by given statistics is.
    """
    scale, mean, variance = norm
    tiled = [tf.tile(values, [group]) for values in norm]
    held, *parts = _gradients(_grouped(slope, group), _grouped(x, group), tiled, epsilon, is_training=False)
    by_scale, by_offset = (tf.reduce_sum(tf.reshape(part, [group, -1]), axis=0) for part in parts)
    count = tf.cast(tf.size(x) // x.shape[3], tf.float32)
    factor = -scale * tf.math.rsqrt(variance + epsilon) / count
    line = [tf.tile(values, [group]) for values in (factor * by_scale, factor * by_offset, mean, variance)]
    return tf.reshape(held + _line(_grouped(x, group), line, epsilon), tf.shape(x)), by_scale, by_offset


def _grouped(x: Any, group: int) -> Any:
    return tf.reshape(x, [-1, x.shape[1] * x.shape[2] // group, 1, group * x.shape[3]])


def _line(x: Any, line: Sequence[Any], epsilon: float) -> Any:
    """scale * (x - mean) / (variance + epsilon)^1/2 + offset by given (scale, offset, mean, variance)."""
    scale, offset, mean, variance = line
    return tf.raw_ops.FusedBatchNormV3(
        x=x, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=epsilon, is_training=False
    ).y


def _gradients(slope: Any, x: Any, norm: Sequence[Any], epsilon: float, *, is_training: bool = True) -> tuple[Any, Any, Any]:
    """Gradients by (x, scale, offset) of batch norm by (scale, mean, variance) of the batch, or by held ones."""
    scale, mean, variance = norm
    back = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=slope,
        x=x,
        scale=scale,
        reserve_space_1=mean,
        reserve_space_2=variance,
        reserve_space_3=[],
        epsilon=epsilon,
        is_training=is_training,
    )
    return back.x_backprop, back.scale_backprop, back.offset_backprop
