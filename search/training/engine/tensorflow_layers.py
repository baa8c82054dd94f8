"""Random numbers and fast layers of the TensorFlow engine; weights are those of the Keras layers they replace."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from search.seeds import derive
from search.training import device
from search.training.engine.fused import COMPOSED, fused, is_fused
from search.training.engine.layers import Gate, dropout_of, fast_layers
from search.training.engine.onednn import (
    StripDepthwiseConv2D,
    StripSeparableConv2D,
    group_of,
    grouped_batch_norm,
    has_strips,
)

LEAST_EPSILON = 1.001e-5  # smallest epsilon that the fused operation accepts on a GPU
LINE = 16  # mask values in one line of memory
WINDOWS = 65_536  # offsets at which a mask may begin


class TensorFlowDraws:
    """Counter-based random numbers (Salmon et al., "Parallel random numbers", 2011): no state to save or restore.

    Keys are computed on the host, where the operation reads them; the numbers are generated on the device.
    """

    def at(self, seed: Any, step: Any) -> None:
        with tf.device("CPU"):
            self.seed, self.step = tf.cast(seed, tf.int64), tf.cast(step, tf.int64)

    def uniform(self, shape: Any, stream: int) -> Any:
        return tf.random.stateless_uniform(shape, self._key(stream))

    def bits(self, shape: Any, stream: int) -> Any:
        count = math.prod(shape)
        words = tf.random.stateless_uniform([(count + 1) // 2], self._key(stream), None, None, tf.uint32)
        return tf.reshape(tf.reshape(tf.bitcast(words, tf.uint16), [-1])[:count], shape)

    def _key(self, stream: int) -> Any:
        with tf.device("CPU"):
            return tf.stack([self.seed + (stream << 32), self.step])


def layers_of(draws: TensorFlowDraws) -> Any:
    """Layer classes for `search.training.model.build`: the fast ones of this module, Keras' own for the rest."""
    dropout = dropout_of(draws) if device.is_accelerated() else pooled_dropout_of(draws)
    wide = {"DepthwiseConv2D": StripDepthwiseConv2D, "SeparableConv2D": StripSeparableConv2D} if has_strips() else {}
    return fast_layers(
        Activation=FusedActivation, BatchNormalization=FusedBatchNormalization, Dropout=dropout, Gate=FusedGate, **wide
    )


def pooled_dropout_of(draws: TensorFlowDraws) -> type[keras.layers.Layer]:
    """Create a Dropout layer class for a CPU, where random numbers cost more than the convolution before them.

    Masks are sampled once, and each step multiplies by a window of them at a random offset. All values of a mask are
    independent; unlike fresh masks, the windows of two steps may overlap, shifted against each other.
    """

    class Dropout(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self, rate: float, seed: int, **rest: Any) -> None:
            super().__init__(**rest)
            self.rate, self.seed = rate, seed
            self.stream = derive(0, "dropout", self.name)

        def draw(self, images: int) -> None:
            """Sample the masks, for batches of at most `images` images."""
            if self.rate:
                size = images * math.prod(self.input.shape[1:])
                uniform = tf.random.stateless_uniform([-(-size // LINE) + WINDOWS, LINE], [self.seed, 0])
                self.masks = tf.cast(tf.cast(uniform >= self.rate, tf.float32) / (1 - self.rate), self.compute_dtype)

        def mask_of(self, shape: Any) -> Any:
            """The mask for the step that the draws are set to."""
            count = tf.reduce_prod(shape)
            first = tf.cast(draws.uniform([], self.stream) * WINDOWS, tf.int32)
            lines = self.masks[first : first + (count + LINE - 1) // LINE]  # whole lines of memory: no copy is made
            return tf.reshape(tf.reshape(lines, [-1])[:count], shape)

        def call(self, inputs: Any, training: bool = False) -> Any:
            return inputs * self.mask_of(tf.shape(inputs)) if training and self.rate else inputs

    return Dropout


class FusedActivation(keras.layers.Activation):  # type: ignore[misc]
    """An activation compiled into one operation each way, if TensorFlow has none for it, in training.

    In inference grappler fuses a convolution, batch norm and tanh to an operation without a kernel, and fails on a CPU:
    "Fusion is not implemented: [FusedBatchNorm,Tanh]". That is prevented.
    """

    def __init__(self, activation: str, **rest: Any) -> None:
        super().__init__(activation, **rest)
        self.function = activation

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training and self.function in COMPOSED and is_fused(inputs.shape):
            return fused(self.activation, inputs)
        is_unfused = self.function == "tanh" and not training
        return self.activation(_unfused(inputs) if is_unfused else inputs)


class FusedGate(Gate):
    """A gate compiled into one operation each way, in training."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        return fused(self.gated, inputs) if training and is_fused(inputs.shape) else self.gated(inputs)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _unfused(x: Any) -> Any:
    """Return x unchanged, and keep grappler from fusing it with the next operation."""
    return tf.raw_ops.Snapshot(input=x), lambda gradient: gradient


class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalisation in one operation each way for (n, h, w, c); other inputs take Keras' path.

    The operation returns the unbiased variance n / (n - 1) * v; Keras averages v.
    """

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest | {"dtype": "float32"}, autocast=False)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if len(inputs.shape) != 4 or self.epsilon < LEAST_EPSILON:
            return tf.cast(super().call(tf.cast(inputs, tf.float32), training=training), inputs.dtype)
        channels = inputs.shape[-1]
        is_slow = inputs.dtype != tf.float32 and channels % 16 and not device.is_accelerated()
        x = tf.cast(inputs, tf.float32) if is_slow else inputs  # bfloat16 has a fast path for multiples of 16 only
        if training and (group := group_of(channels, math.prod(x.shape[1:3]))) > 1:
            y, mean, variance = grouped_batch_norm(x, self.gamma.value, self.beta.value, self.epsilon, group)
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, variance)
            return tf.cast(y, inputs.dtype)
        moving = ([], []) if training else (self.moving_mean.value, self.moving_variance.value)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=moving[0],
            variance=moving[1],
            epsilon=self.epsilon,
            is_training=bool(training),
        )
        if training:
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, variance * _bias_of_variance(x))
            if channels % 8 and not device.is_accelerated():  # fused with the activation it is slower, on a CPU
                y = _unfused(y)
        return tf.cast(y, inputs.dtype)

    def _move(self, average: Any, value: Any) -> None:
        average.assign(average.value * self.momentum + value * (1 - self.momentum))


def _bias_of_variance(x: Any) -> Any:
    """(n - 1) / n for the n values of each channel: a number where the batch size is known."""
    if x.shape[0] is None:
        n = tf.cast(tf.size(x) // x.shape[-1], tf.float32)
        return (n - 1) / n
    n = math.prod(x.shape[:-1])
    return (n - 1) / n
