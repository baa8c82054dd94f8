"""The engine on TensorFlow: a graph with the loop over steps inside, on images that lie on the device."""

from __future__ import annotations

import functools
import math
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.networks.architecture import Architecture
from search.seeds import derive
from search.training.device import is_accelerated
from search.training.engine.augment import DRAWS, augment, mixup, normalize
from search.training.engine.base import Arrays, Sums, class_weights_of, correct, losses, optimizer_of, validation_of
from search.training.engine.epoch import EpochPlan
from search.training.engine.layers import fast_layers
from search.training.model import build
from search.training.recipe import Recipe

LEAST_EPSILON = 1.001e-5  # that the fused operation takes on a GPU
AUGMENT_STREAM = 0
LINE = 16  # values of a mask that lie in one line of memory
WINDOWS = 65_536  # places at which a mask may begin


class TensorFlowDraws:
    """Counter-based random numbers (Salmon et al., "Parallel random numbers", 2011): no state to keep or to restore."""

    def at(self, seed: Any, step: Any) -> None:
        self.seed, self.step = tf.cast(seed, tf.int64), tf.cast(step, tf.int64)

    def uniform(self, shape: Any, stream: int) -> Any:
        return tf.random.stateless_uniform(shape, self._key(stream))

    def bits(self, shape: Any, stream: int) -> Any:
        count = tf.reduce_prod(shape)
        words = tf.random.stateless_uniform([(count + 1) // 2], self._key(stream), None, None, tf.uint32)
        return tf.reshape(tf.reshape(tf.bitcast(words, tf.uint16), [-1])[:count], shape)

    def _key(self, stream: int) -> Any:
        return tf.stack([self.seed + (stream << 32), self.step])


def pooled_dropout_of(draws: TensorFlowDraws) -> type[keras.layers.Layer]:
    """A Dropout layer for a CPU, where random numbers cost more than the convolution before them.

    Its masks are drawn once, and each step multiplies by a window of them at a random place: every mask is of independent
    values; only that two steps' windows may overlap, shifted, tells it from masks drawn anew.
    """

    class Dropout(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self, rate: float, seed: int, **rest: Any) -> None:
            super().__init__(**rest)
            self.rate, self.seed = rate, seed
            self.stream = derive(0, "dropout", self.name)

        def draw(self, images: int) -> None:
            """Draw the masks, for batches of up to so many images."""
            if self.rate:
                size = images * math.prod(self.input.shape[1:])
                uniform = tf.random.stateless_uniform([-(-size // LINE) + WINDOWS, LINE], [self.seed, 0])
                self.masks = tf.cast(tf.cast(uniform >= self.rate, tf.float32) / (1 - self.rate), self.compute_dtype)

        def mask_of(self, shape: Any) -> Any:
            """The mask of the step that the draws stand at."""
            count = tf.reduce_prod(shape)
            first = tf.cast(draws.uniform([], self.stream) * WINDOWS, tf.int32)
            lines = self.masks[first : first + (count + LINE - 1) // LINE]  # whole lines of memory: no copy is made
            return tf.reshape(tf.reshape(lines, [-1])[:count], shape)

        def call(self, inputs: Any, training: bool = False) -> Any:
            return inputs * self.mask_of(tf.shape(inputs)) if training and self.rate else inputs

    return Dropout


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _apart(x: Any) -> Any:
    """The same, kept from being fused with what comes next."""
    return tf.raw_ops.Snapshot(input=x), lambda gradient: gradient


class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalisation in one operation each way, for (n, h, w, c); other inputs take Keras' way.

    It gives the unbiased variance n / (n - 1) * v, and Keras' moving average is of v.
    """

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest | {"dtype": "float32"}, autocast=False)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if len(inputs.shape) != 4 or self.epsilon < LEAST_EPSILON:
            return tf.cast(super().call(tf.cast(inputs, tf.float32), training=training), inputs.dtype)
        narrow = inputs.dtype != tf.float32 and inputs.shape[-1] % 16 and not is_accelerated()
        x = tf.cast(inputs, tf.float32) if narrow else inputs  # bfloat16 falls back to a slow path there
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
            n = tf.cast(tf.size(x) // x.shape[-1], tf.float32)
            self._move(self.moving_mean, mean)
            self._move(self.moving_variance, variance * ((n - 1) / n))
            if x.shape[-1] % 8:  # fused with the activation it is slower still, on a CPU
                y = _apart(y)
        return tf.cast(y, inputs.dtype)

    def _move(self, average: Any, value: Any) -> None:
        average.assign(average.value * self.momentum + value * (1 - self.momentum))


@functools.lru_cache(maxsize=1)
def _on_device(data: Dataset) -> tuple[Any, ...]:
    """The data set's images and one-hot targets, put on the device once for all trainings of a process."""
    targets = np.eye(data.classes, dtype=np.float32)[data.y_train]
    validation = validation_of(data)
    return tf.constant(data.x_train), tf.constant(targets), validation, *map(tf.constant, validation[:3])


class TensorFlowEngine:
    """See `search.training.engine.base.Engine`."""

    def __init__(
        self, architecture: Architecture, data: Dataset, recipe: Recipe, pixels: Pixels, *, seed: int, dtype: str = "float32"
    ) -> None:
        started = time.monotonic()
        self.weights_of_classes = class_weights_of(data, recipe)
        self.recipe, self.pixels, self.draws = recipe, pixels, TensorFlowDraws()
        faster: dict[str, Any] = {"BatchNormalization": FusedBatchNormalization}
        if not is_accelerated():
            faster["Dropout"] = pooled_dropout_of(self.draws)
        layers = fast_layers(self.draws, **faster)
        self.model = build(architecture, seed=seed, initializer=recipe.initializer, layers=layers, dtype=dtype)
        for layer in self.model.layers:
            if hasattr(layer, "draw"):
                layer.draw(min(recipe.batch_size, len(data.x_train) * recipe.augment.passes))
        self.optimizer = optimizer_of(recipe)
        self.optimizer.build(self.model.trainable_variables)
        self.averages = [tf.Variable(weight.value) for weight in self.model.weights] if recipe.ema else []
        self.images, self.targets, self.validation, *self.validation_tensors = _on_device(data)
        seen = len(data.x_train) * recipe.augment.passes
        steps = -(-seen // recipe.batch_size)
        with tf.device("CPU"):  # small, and read step by step by the loop's control
            self.order = tf.Variable(tf.zeros([seen], tf.int32))
            self.flipped = tf.Variable(tf.zeros([seen], tf.bool))
            self.rates, self.shares = tf.Variable(tf.zeros([steps])), tf.Variable(tf.zeros([steps]))
            self.sums = tf.Variable(tf.zeros([2], tf.float64))  # of loss and correct
        self.seed = tf.Variable(0, dtype=tf.int64)
        whole = tf.TensorSpec([], tf.int32)
        self._train = tf.function(self._steps, autograph=False).get_concrete_function(whole, whole)
        self._evaluate = tf.function(self._validate, autograph=False).get_concrete_function(whole)
        self._train(tf.constant(0), tf.constant(0))  # no step: optimises and places the graph
        self._evaluate(tf.constant(0))
        self.compile_seconds = time.monotonic() - started

    def begin(self, plan: EpochPlan) -> None:
        for variable, value in zip(
            (self.order, self.flipped, self.rates, self.shares, self.seed, self.sums),
            (plan.order, plan.flipped, plan.rates, plan.shares, plan.seed, np.zeros(2)),
            strict=True,
        ):
            variable.assign(value)

    def train(self, first: int, last: int) -> Sums:
        self._train(tf.constant(first), tf.constant(last))
        return Sums(*self.sums.numpy().tolist())

    def evaluate(self, *, averaged: bool = False) -> tuple[float, float]:
        raw = self._swap_in_averages() if averaged else None
        loss, hits, count = (float(total) for total in self._evaluate(tf.constant(self.validation.batches)))
        if raw:
            self.model.set_weights(raw)
        return loss / count, hits / count

    def weights(self, *, averaged: bool = False) -> Arrays:
        return [np.array(one) for one in (self.averages if averaged else self.model.get_weights())]

    def state(self) -> Arrays:
        return [np.array(variable) for variable in self._variables()]

    def restore(self, state: Arrays) -> None:
        for variable, value in zip(self._variables(), state, strict=True):
            variable.assign(value)

    def batch(self, step: Any) -> tuple[Any, Any]:
        """The images float32 (n, h, w, c) and targets (n, classes) that a step trains on."""
        self.draws.at(self.seed, step)
        first = step * self.recipe.batch_size
        last = tf.minimum(first + self.recipe.batch_size, self.order.shape[0])
        chosen = self.order[first:last]
        images, targets = tf.gather(self.images, chosen), tf.gather(self.targets, chosen)
        uniform = self.draws.uniform([last - first, DRAWS], AUGMENT_STREAM)
        images = augment(images, self.flipped[first:last], uniform, self.recipe.augment, self.pixels)
        return mixup(images, targets, self.shares[step]) if self.recipe.augment.mixup else (images, targets)

    def _steps(self, first: Any, last: Any) -> None:
        def body(step: Any) -> Any:
            self._step(step)
            return [step + 1]

        tf.while_loop(lambda step: step < last, body, [first], parallel_iterations=1)

    def _step(self, step: Any) -> None:
        images, targets = self.batch(step)
        weights = self.model.trainable_variables
        with tf.GradientTape() as tape:
            probabilities = self.model(images, training=True)
            each = losses(targets, probabilities, self.recipe, self.weights_of_classes)
            loss = tf.reduce_mean(each)
        self.optimizer.learning_rate = self.rates[step]
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        if self.averages:
            self._average()
        self.sums.assign_add(tf.cast([tf.reduce_sum(each), correct(targets, probabilities)], tf.float64))

    def _average(self) -> None:
        done = tf.cast(self.optimizer.iterations, tf.float32)
        decay = tf.minimum(self.recipe.ema, done / (done + 9))  # short at first, so that the start is forgotten
        for average, weight in zip(self.averages, self.model.weights, strict=True):
            average.assign_add((weight.value - average) * (1 - decay))

    def _validate(self, batches: Any) -> Any:
        images, targets, counts = self.validation_tensors
        size = self.validation.size

        def body(index: Any, loss: Any, hits: Any, seen: Any) -> Any:
            place = slice(index * size, (index + 1) * size)
            probabilities = self.model(normalize(images[place], self.pixels), training=False)
            each = losses(targets[place], probabilities, self.recipe)
            hit = tf.argmax(targets[place], axis=-1) == tf.argmax(probabilities, axis=-1)
            new = (each, tf.cast(hit, tf.float32), tf.ones_like(each))
            return index + 1, *(
                total + tf.reduce_sum(one * counts[place]) for total, one in zip((loss, hits, seen), new, strict=True)
            )

        zero = tf.constant(0.0)
        start = (tf.constant(0), zero, zero, zero)
        return tf.while_loop(lambda index, *_: index < batches, body, start, parallel_iterations=1)[1:]

    def _variables(self) -> list[Any]:
        return [*self.model.weights, *self.optimizer.variables, *self.averages]

    def _swap_in_averages(self) -> Arrays:
        raw = self.model.get_weights()
        self.model.set_weights([np.array(average) for average in self.averages])
        return list(raw)
