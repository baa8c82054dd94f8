"""The engine on JAX: compiled calls from state to state with the loop over steps inside, on images on the device."""

from __future__ import annotations

import functools
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

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
from search.training.engine.layers import SHIFTED, dropout_of, fast_layers
from search.training.model import build
from search.training.recipe import Recipe

AUGMENT_STREAM = 0


class JaxDraws:
    """Counter-based random numbers by XLA's own generator, several times as fast as Threefry; no state to save.

    Repeatable on one kind of device and one version of XLA.
    """

    def at(self, seed: Any, step: Any) -> None:
        self.key = jax.random.fold_in(jax.random.key(seed, impl="rbg"), step)

    def uniform(self, shape: Any, stream: int) -> Any:
        return jax.random.uniform(jax.random.fold_in(self.key, stream), shape)

    def bits(self, shape: Any, stream: int) -> Any:
        count = int(np.prod(shape))
        words = jax.random.bits(jax.random.fold_in(self.key, stream), [(count + 1) // 2], np.uint32)
        return lax.bitcast_convert_type(words, np.uint16).reshape(-1)[:count].reshape(shape)


class State(NamedTuple):
    """State from step to step; `train` donates the arrays, so that the new ones reuse their memory."""

    trainable: list[Any]
    rest: list[Any]  # of the weights: batch norm's moving averages
    optimizer: list[Any]
    averages: list[Any]  # of trainable and rest, in this order; empty without `ema`


class Plan(NamedTuple):
    """An `EpochPlan` on the device."""

    order: Any
    flipped: Any
    rates: Any
    shares: Any
    seed: Any


@functools.lru_cache(maxsize=1)
def _on_device(data: Dataset) -> tuple[Any, ...]:
    """Copy the images and one-hot targets of a data set to the device, once for all trainings of a process."""
    targets = np.eye(data.classes, dtype=np.float32)[data.y_train]
    validation = validation_of(data)
    return (jnp.array(data.x_train), jnp.array(targets)), validation, tuple(map(jnp.array, validation[:3]))


class JaxEngine:
    """See `search.training.engine.base.Engine`.

    The Keras model only defines the network: its own weights keep their initial values.

    Args:
        confusion: count the validation images by true and predicted class, in the same compiled call.
    """

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
        self._classes, self._has_confusion = data.classes, confusion
        class_weights = class_weights_of(data, recipe)
        self.class_weights = None if class_weights is None else jnp.array(class_weights)
        self.recipe, self.pixels, self.draws = recipe, pixels, JaxDraws()
        layers = fast_layers(Dropout=dropout_of(self.draws), **SHIFTED)
        self.model = build(architecture, seed=seed, initializer=recipe.initializer, layers=layers, dtype=dtype)
        self.optimizer = optimizer_of(recipe)
        self.optimizer.build(self.model.trainable_variables)
        self._rate = _index(self.optimizer.learning_rate, self.optimizer.variables)
        self._done = _index(self.optimizer.iterations, self.optimizer.variables)
        weights = [*self.model.trainable_variables, *self.model.non_trainable_variables]
        self._order = [_index(weight, weights) for weight in self.model.weights]
        self._state = State(
            _copies(self.model.trainable_variables),
            _copies(self.model.non_trainable_variables),
            _copies(self.optimizer.variables),
            _copies(weights if recipe.ema else []),
        )
        self.data, self.validation, self._validation = _on_device(data)
        seen = len(data.x_train) * recipe.augment.passes
        self._full, self._remainder = divmod(seen, recipe.batch_size)
        steps = self._full + bool(self._remainder)
        self._plan = Plan(jnp.zeros(seen, int), jnp.zeros(seen, bool), jnp.zeros(steps), jnp.zeros(steps), jnp.int32(0))
        self._sums = jnp.zeros([steps, len(Sums._fields)])  # of each step, so that they add up alike however calls are cut
        self._prepare = jax.jit(self._batch, static_argnums=3)
        sizes = {size for size in (recipe.batch_size * bool(self._full), self._remainder) if size}
        self._train = {size: self._compile(size) for size in sizes}
        self._evaluate = self._compiled(jax.jit(self._validate), *self._state[:2], *self._validation)
        self.compile_seconds = time.monotonic() - started

    def begin(self, plan: EpochPlan) -> None:
        new = (plan.order, plan.flipped, plan.rates, plan.shares, plan.seed)
        self._plan = Plan(*(jnp.array(value, old.dtype) for value, old in zip(new, self._plan, strict=True)))
        self._sums = jnp.zeros_like(self._sums)

    def train(self, first: int, last: int) -> Sums:
        whole = (self.recipe.batch_size, first, min(last, self._full))
        for size, start, end in (whole, (self._remainder, max(first, self._full), last)):
            if start < end:
                # All that a call sends to the device; explicit, so that a transfer guard allows this and nothing else.
                bounds = jax.device_put((np.int32(start), np.int32(end)))
                carried = (self._state, self._sums)
                self._state, self._sums = self._train[size](carried, self._plan, self.data, *bounds)
        return Sums(*np.array(self._sums, np.float64).sum(axis=0).tolist())

    def evaluate(self, *, averaged: bool = False) -> Evaluation:
        loss, *counted = self._evaluate(*self._parts(averaged), *self._validation)
        if self._has_confusion:
            return evaluation_of_confusion(float(loss), np.array(counted[0]))
        hits, count = counted
        return evaluation(float(loss), float(count), float(hits))

    def weights(self, *, averaged: bool = False) -> Arrays:
        trainable, rest = self._parts(averaged)
        both = [*trainable, *rest]
        return [np.array(both[index]) for index in self._order]

    def state(self) -> Arrays:
        return [np.array(value) for value in jax.tree.leaves(self._state)]

    def restore(self, state: Arrays) -> None:
        self._state = jax.tree.unflatten(jax.tree.structure(self._state), _copies(state))

    def batch(self, step: int) -> tuple[Any, Any]:
        """Images float32 (n, h, w, c) and targets (n, classes) of a step."""
        size = self.recipe.batch_size if step < self._full else self._remainder
        images, targets = self._prepare(self._plan, self.data, jnp.int32(step), size)
        return images, targets

    def _compile(self, size: int) -> Any:
        """Compile the loop over any number of steps on batches of one size."""
        steps = jax.jit(functools.partial(self._steps, size), donate_argnums=0)
        return self._compiled(steps, (self._state, self._sums), self._plan, self.data, np.int32(0), np.int32(0))

    def _compiled(self, function: Any, *arguments: Any) -> Any:
        is_chosen = self.recipe.deterministic and device.is_accelerated()
        options = {"xla_gpu_deterministic_ops": True} if is_chosen else None
        return function.lower(*arguments).compile(compiler_options=options)

    def _batch(self, plan: Plan, data: Any, step: Any, size: int) -> tuple[Any, Any]:
        self.draws.at(plan.seed, step)
        options, first = self.recipe.augment, step * self.recipe.batch_size
        chosen, flipped = (lax.dynamic_slice_in_dim(values, first, size) for values in (plan.order, plan.flipped))
        images, targets = (values[chosen] for values in data)
        images = augment(images, flipped, self.draws.uniform([size, DRAWS], AUGMENT_STREAM), options, self.pixels)
        return mixup(images, targets, plan.shares[step]) if options.mixup else (images, targets)

    def _steps(self, size: int, carried: Any, plan: Plan, data: Any, first: Any, last: Any) -> Any:
        def body(step: Any, carried: Any) -> Any:
            state, sums = carried
            images, targets = self._batch(plan, data, step, size)
            after, *more = self._step(state, plan.rates[step], images, targets)
            return after, sums.at[step].set(jnp.stack(more))

        return lax.fori_loop(first, last, body, carried)

    def _step(self, state: State, rate: Any, images: Any, targets: Any) -> tuple[State, Any, Any]:
        def mean_loss(trainable: list[Any]) -> Any:
            probabilities, rest = self.model.stateless_call(trainable, state.rest, images, training=True)
            each = losses(targets, probabilities, self.recipe)
            if self.class_weights is not None:
                each = each * self.class_weights[jnp.argmax(targets, axis=-1)]
            return jnp.mean(each), (jnp.sum(each), jnp.sum(_hits(targets, probabilities), dtype=jnp.float32), rest)

        gradients, (loss, hits, rest) = jax.grad(mean_loss, has_aux=True)(state.trainable)
        optimizer = list(state.optimizer)
        optimizer[self._rate] = rate
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, state.trainable)
        return State(trainable, rest, optimizer, self._averaged(state.averages, [*trainable, *rest], optimizer)), loss, hits

    def _averaged(self, averages: list[Any], weights: list[Any], optimizer: list[Any]) -> list[Any]:
        if not averages:
            return []
        done = jnp.float32(optimizer[self._done])
        decay = jnp.minimum(self.recipe.ema, done / (done + 9))  # short at first, so that the start is forgotten
        return [average + (weight - average) * (1 - decay) for average, weight in zip(averages, weights, strict=True)]

    def _validate(self, trainable: Any, rest: Any, images: Any, targets: Any, counts: Any) -> Any:
        size = self.validation.size

        def body(index: Any, totals: Any) -> Any:
            x, y, n = (lax.dynamic_slice_in_dim(values, index * size, size) for values in (images, targets, counts))
            probabilities, _ = self.model.stateless_call(trainable, rest, normalize(x, self.pixels), training=False)
            each = losses(y, probabilities, self.recipe)
            if self._has_confusion:
                loss, confusion = totals
                predicted = jax.nn.one_hot(jnp.argmax(probabilities, axis=-1), self._classes)
                return loss + jnp.sum(each * n), confusion + (y * n[:, None]).T @ predicted
            new = (each, _hits(y, probabilities), 1)
            return tuple(total + jnp.sum(value * n) for total, value in zip(totals, new, strict=True))

        zero = jnp.float32(0)
        totals = (zero, jnp.zeros([self._classes, self._classes])) if self._has_confusion else (zero,) * 3
        return lax.fori_loop(0, self.validation.batches, body, totals)

    def _parts(self, averaged: bool) -> tuple[list[Any], list[Any]]:
        """Trainable weights and the rest, or their averages."""
        if not averaged:
            return self._state.trainable, self._state.rest
        count = len(self._state.trainable)
        return self._state.averages[:count], self._state.averages[count:]


def _copies(values: Any) -> list[Any]:
    """Copy arrays to the device: those donated to a compiled step must not be shared."""
    return [jnp.array(getattr(value, "value", value)) for value in values]


def _index(variable: Any, variables: list[Any]) -> int:
    return next(index for index, candidate in enumerate(variables) if candidate is variable)


def _hits(targets: Any, probabilities: Any) -> Any:
    """True for each image (n,) classified correctly; a mixed target counts as its larger part."""
    return jnp.argmax(targets, axis=-1) == jnp.argmax(probabilities, axis=-1)
