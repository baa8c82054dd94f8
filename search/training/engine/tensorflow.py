"""The engine on TensorFlow: one compiled call runs a loop of steps on images that stay on the device.

On a GPU only control crosses between host and device inside the loop: the step's number, bounds of slices and the key of the
random numbers. TensorFlow places what has no GPU kernel on the host without notice, so that every operation below is chosen
by its kernels: uint8 is gathered from a variable only, int32 computes on the host, and sizes are numbers known when tracing.
`benchmarks/gpu_placement` measures it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from search.data.dataset import Dataset
from search.data.preprocessing import Pixels
from search.networks.architecture import Architecture
from search.training import device
from search.training.engine.augment import DRAWS, augment, mixup, normalize
from search.training.engine.base import (
    Arrays,
    Evaluation,
    Sums,
    class_weights_of,
    evaluation,
    evaluation_of_confusion,
    losses,
    optimizer_of,
    validation_of,
)
from search.training.engine.epoch import EpochPlan
from search.training.engine.flat import FlatWeights, to_array
from search.training.engine.tensorflow_layers import TensorFlowDraws, layers_of
from search.training.model import build
from search.training.recipe import Recipe

AUGMENT_STREAM = 0


@functools.lru_cache(maxsize=1)
def _on_device(data: Dataset) -> tuple[Any, ...]:
    """Copy the images and one-hot targets of a data set to the device, once for all trainings of a process."""
    targets = np.eye(data.classes, dtype=np.float32)[data.y_train]
    validation = validation_of(data)
    images = tf.Variable(data.x_train, trainable=False)  # a gather of uint8 has a GPU kernel for variables alone
    return images, tf.constant(targets), validation, *map(tf.constant, validation[:3])


class TensorFlowEngine:
    """See `search.training.engine.base.Engine`.

    Args:
        confusion: count the validation images by true and predicted class, in the same compiled call.
    """

    _is_jit: bool | None = None  # True: compiled by XLA; None: TensorFlow's own choice, which is no
    _seed_device: str | None = "CPU"

    def __init__(
        self,
        architecture: Architecture,
        data: Dataset,
        recipe: Recipe,
        pixels: Pixels,
        *,
        seed: int,
        dtype: str = "float32",
        confusion: bool = False,
    ) -> None:
        started = time.monotonic()
        self.recipe, self.pixels, self.draws = recipe, pixels, TensorFlowDraws()
        self._classes, self._has_confusion = data.classes, confusion
        class_weights = class_weights_of(data, recipe)
        self.class_weights = None if class_weights is None else tf.constant(class_weights)
        layers = self._layers()
        self.model = build(architecture, seed=seed, initializer=recipe.initializer, layers=layers, dtype=dtype)
        seen = len(data.x_train) * recipe.augment.passes
        for layer in self.model.layers:
            if hasattr(layer, "draw"):
                layer.draw(min(recipe.batch_size, seen))
        self.flat = FlatWeights(self.model)
        self.optimizer = optimizer_of(recipe)
        self.optimizer.build(self.flat.trainable)
        self.averages = [tf.Variable(vector.value) for vector in self.flat.vectors] if recipe.ema else []
        self.images, self.targets, self.validation, *self.validation_tensors = _on_device(data)
        self.full_steps, self.remainder = divmod(seen, recipe.batch_size)
        steps = self.full_steps + bool(self.remainder)
        self.order = tf.Variable(np.zeros(seen, np.int64))
        self.flipped = tf.Variable(np.zeros(seen, bool))
        self.rates, self.shares = (tf.Variable(np.zeros(steps, np.float32)) for _ in range(2))
        self.sums = tf.Variable(np.zeros(2))  # of loss and correct
        with tf.device(self._seed_device):
            self.seed = tf.Variable(0, dtype=tf.int64)
        self._train = {size: self._compile(functools.partial(self._steps, size), 2) for size in self._batch_sizes()}
        self._evaluate = self._compile(self._validate, 1)
        self.compile_seconds = time.monotonic() - started

    def begin(self, plan: EpochPlan) -> None:
        self.order.assign(plan.order.astype(np.int64))
        self.flipped.assign(plan.flipped)
        self.rates.assign(plan.rates)
        self.shares.assign(plan.shares)
        self.seed.assign(plan.seed)
        self.sums.assign(np.zeros(2))

    def train(self, first: int, last: int) -> Sums:
        for size, start, end in self._calls(first, last):
            self._train[size](tf.constant(start), tf.constant(end))
        return Sums(*self.sums.numpy().tolist())

    def evaluate(self, *, averaged: bool = False) -> Evaluation:
        if not averaged:
            return self._measure()
        raw = [tf.identity(vector.value) for vector in self.flat.vectors]
        self._assign(self.averages)
        measured = self._measure()
        self._assign(raw)
        return measured

    def weights(self, *, averaged: bool = False) -> Arrays:
        return self.flat.split(self.averages if averaged else self.flat.vectors)

    def state(self) -> Arrays:
        """Weights, the optimizer's variables and the moving average, as Keras orders them for single weights."""
        iterations, rate, *slots = self.optimizer.variables
        averages = self.flat.split(self.averages) if self.averages else []
        scalars = [to_array(iterations), to_array(rate)]
        return [*self.weights(), *scalars, *self.flat.split_slots(slots), *averages]

    def restore(self, state: Arrays) -> None:
        iterations, rate, *slots = self.optimizer.variables
        count = len(self.model.weights)
        weights, rest = state[:count], state[count:]
        averages = rest[len(rest) - count :] if self.averages else []
        iterations.assign(rest[0])
        rate.assign(rest[1])
        self._assign(self.flat.join(weights))
        values = self.flat.join_slots(rest[2 : len(rest) - len(averages)])
        for variable, value in zip(slots, values, strict=True):
            variable.assign(value)
        if averages:
            for variable, value in zip(self.averages, self.flat.join(averages), strict=True):
                variable.assign(value)

    def batch(self, step: Any, size: int | None = None) -> tuple[Any, Any]:
        """Images float32 (n, h, w, c) and targets (n, classes) of a step.

        Args:
            size: images of the batch, if the graph is traced for batches of one size.
        """
        self.draws.at(self.seed, step)
        first = step * self.recipe.batch_size
        count = size or tf.minimum(self.recipe.batch_size, self.order.shape[0] - first)
        chosen, flipped = self._part(self.order, first, count), self._part(self.flipped, first, count)
        images = tf.cast(tf.gather(self.images, chosen), tf.float32)  # before flip and crop: uint8 has no gather on a GPU
        targets = tf.gather(self.targets, chosen)
        uniform = self.draws.uniform([count, DRAWS], AUGMENT_STREAM)
        images = augment(images, flipped, uniform, self.recipe.augment, self.pixels)
        return mixup(images, targets, self.shares[step]) if self.recipe.augment.mixup else (images, targets)

    def _batch_sizes(self) -> list[int | None]:
        """Sizes of batch to trace the training steps for; None for a graph that takes any.

        On a GPU each size has its own graph, as sizes computed in the graph are computed on the host.
        """
        if not device.is_accelerated():
            return [None]
        return [size for size in (self.recipe.batch_size * bool(self.full_steps), self.remainder) if size]

    def _calls(self, first: int, last: int) -> Iterator[tuple[int | None, int, int]]:
        """Yield (size of batch, first, last) of the compiled calls for these steps."""
        if None in self._train:
            yield None, first, last
            return
        if first < self.full_steps:
            yield self.recipe.batch_size, first, min(last, self.full_steps)
        if last > self.full_steps:
            yield self.remainder, max(first, self.full_steps), last

    def _compile(self, function: Any, arguments: int) -> Any:
        """Trace a function of int32 scalars, and run it once without any iteration, which optimises and places its graph."""
        scalar = tf.TensorSpec([], tf.int32)
        traced = tf.function(function, autograph=False, jit_compile=self._is_jit)
        compiled = traced.get_concrete_function(*[scalar] * arguments)
        compiled(*[tf.constant(0)] * arguments)
        return compiled

    def _steps(self, size: int | None, first: Any, last: Any) -> None:
        def body(step: Any) -> Any:
            self._step(step, size)
            return [step + 1]

        tf.while_loop(lambda step: step < last, body, [first], parallel_iterations=1)

    def _step(self, step: Any, size: int | None) -> None:
        images, targets = self.batch(step, size)
        vectors = self.flat.trainable
        with tf.GradientTape() as tape:
            probabilities, rest = self.model.stateless_call(*self.flat.tensors(), images, training=True)
            each = losses(targets, probabilities, self.recipe)
            if self.class_weights is not None:
                each = each * tf.gather(self.class_weights, tf.argmax(targets, axis=-1))
            loss = tf.reduce_mean(each)
        self.optimizer.learning_rate = self.rates[step]
        self.optimizer.apply(tape.gradient(loss, [vector.value for vector in vectors]), vectors)
        self.flat.assign_rest(rest)
        if self.averages:
            self._average()
        hits = tf.cast(_hits(targets, probabilities), tf.float32)
        self.sums.assign_add(tf.cast([tf.reduce_sum(each), tf.reduce_sum(hits)], tf.float64))

    def _average(self) -> None:
        done = tf.cast(self.optimizer.iterations, tf.float32)
        decay = tf.minimum(self.recipe.ema, done / (done + 9))  # short at first, so that the start is forgotten
        for average, vector in zip(self.averages, self.flat.vectors, strict=True):
            average.assign_add((vector.value - average) * (1 - decay))

    def _measure(self) -> Evaluation:
        loss, *counted = self._evaluate(tf.constant(self.validation.batches))
        if self._has_confusion:
            return evaluation_of_confusion(float(loss), counted[0].numpy())
        hits, count = counted
        return evaluation(float(loss), float(count), float(hits))

    def _validate(self, batches: Any) -> Any:
        images, targets, counts = self.validation_tensors
        size = self.validation.size

        def body(index: Any, loss: Any, *totals: Any) -> Any:
            inputs, expected, count = (self._part(values, index * size, size) for values in (images, targets, counts))
            inputs = normalize(inputs, self.pixels)
            probabilities, _ = self.model.stateless_call(*self.flat.tensors(), inputs, training=False)
            each = losses(expected, probabilities, self.recipe)
            counted = self._count(expected, probabilities, count)
            summed = (total + value for total, value in zip(totals, counted, strict=True))
            return index + 1, loss + tf.reduce_sum(each * count), *summed

        zero = tf.constant(0.0)
        totals = (tf.zeros([self._classes, self._classes]),) if self._has_confusion else (zero, zero)
        start = (tf.constant(0), zero, *totals)
        return tf.while_loop(lambda index, *_: index < batches, body, start, parallel_iterations=1)[1:]

    def _count(self, expected: Any, probabilities: Any, count: Any) -> tuple[Any, ...]:
        """Hits and images of a batch, or its images by true and predicted class; `count` (n,) is 1, of padding 0."""
        if self._has_confusion:
            predicted = tf.one_hot(tf.argmax(probabilities, axis=-1), self._classes)
            return (tf.matmul(expected * count[:, None], predicted, transpose_a=True),)
        hit = tf.cast(_hits(expected, probabilities), tf.float32)
        return tf.reduce_sum(hit * count), tf.reduce_sum(count)

    def _layers(self) -> Any:
        """Layer classes of the model."""
        return layers_of(self.draws)

    def _part(self, values: Any, first: Any, count: Any) -> Any:
        """`count` rows from `first` on, of known shape if `count` is a number; tf.slice has no GPU kernel for uint8."""
        part = values[first : first + count]
        if isinstance(count, int):
            part.set_shape([count, *values.shape[1:]])
        return part

    def _assign(self, values: Sequence[Any]) -> None:
        for vector, value in zip(self.flat.vectors, values, strict=True):
            vector.assign(value)


def _hits(targets: Any, probabilities: Any) -> Any:
    """True for each image (n,) classified correctly; a mixed target counts as its larger part."""
    return tf.argmax(targets, axis=-1) == tf.argmax(probabilities, axis=-1)
