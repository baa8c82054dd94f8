"""Trains one network under one recipe, on Keras. Knows nothing of Optuna, studies or files.

`fit` is the seam behind which a faster engine can come: images and a recipe in, one record an epoch out. Every random
draw - order, augmentation, dropout, weights - comes from the seed, so that the same seed on the same machine, versions
and threads gives the same training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from search.augment import augment
from search.data import Dataset, channel_statistics
from search.pixels import Pixels
from search.recipe import Plateau, Recipe, rate_at
from search.seeds import generator

VALIDATION_BATCH = 500

Outcome = Literal["diverged", "out_of_memory", "failed"]


class TrialOver(Exception):
    """This trial has come to its end, and the study goes on."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Epoch:
    """One row of a training log; the learning rate is that of the epoch's last step.

    Accuracies are fractions. Loss and accuracy are means over the epoch's images, while the weights move.
    """

    epoch: int  # from 1
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Training:
    """What a training leaves: its log, and the weights of the epoch with the best validation accuracy."""

    history: tuple[Epoch, ...]
    best: Epoch
    best_weights: tuple[npt.NDArray[np.float32], ...]
    pixels: Pixels


def fit(
    model: keras.Model,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> Training:
    """Train the model in place for all epochs of the recipe, the partial last batch of each included.

    Args:
        on_epoch: called after each epoch's validation; what it raises ends the training.
        on_step: called with (steps done, steps in all) after each step.

    Raises:
        TrialOver: the loss or a validation figure is not finite, or memory ran out.
    """
    try:
        return _fit(model, data, recipe, seed, on_epoch, on_step)
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
            raise TrialOver("out_of_memory", f"out of memory at batch size {recipe.batch_size}") from error
        raise


def pixels_of(data: Dataset, recipe: Recipe) -> Pixels:
    """How the recipe prepares pixels; statistics are those of the training images."""
    if not recipe.normalize:
        return Pixels()
    mean, std = channel_statistics(data.x_train)
    return Pixels(tuple(mean.tolist()), tuple(std.tolist()))


def _fit(
    model: keras.Model,
    data: Dataset,
    recipe: Recipe,
    seed: int,
    on_epoch: Callable[[Epoch], None],
    on_step: Callable[[int, int], None],
) -> Training:
    pixels = pixels_of(data, recipe)
    steps = math.ceil(len(data.x_train) / recipe.batch_size)
    labels = np.eye(data.classes, dtype=np.float32)
    validation = (pixels.apply(data.x_val), labels[data.y_val])
    compile_model(model, recipe)
    plateau = _PlateauCuts(recipe)
    history: list[Epoch] = []
    best: tuple[Epoch, Any] | None = None
    for number in range(recipe.epochs):
        started = time.monotonic()
        sums = np.zeros(2)  # of loss and accuracy over images; Keras' own start anew with every train_on_batch
        for index, images, targets in _batches(data, recipe, seed, number):
            rate = rate_at(recipe, number * steps + index, steps) * plateau.factor
            model.optimizer.learning_rate = rate
            logs = model.train_on_batch(pixels.apply(images), labels[targets], return_dict=True)
            sums += len(images) * np.array([float(logs["loss"]), float(logs["accuracy"])])
            _check("loss", float(logs["loss"]), number, index)
            on_step(number * steps + index + 1, recipe.epochs * steps)
        found = model.evaluate(*validation, batch_size=VALIDATION_BATCH, verbose=0, return_dict=True)
        _check("validation loss", float(found["loss"]), number, steps - 1)
        loss, accuracy = (sums / len(data.x_train)).tolist()
        val_loss, val_accuracy = float(found["loss"]), float(found["accuracy"])
        epoch = Epoch(number + 1, loss, accuracy, val_loss, val_accuracy, rate, time.monotonic() - started)
        history.append(epoch)
        if best is None or epoch.val_accuracy > best[0].val_accuracy:
            best = epoch, tuple(model.get_weights())
        plateau.see(epoch.val_loss)
        on_epoch(epoch)
    assert best is not None
    return Training(tuple(history), *best, pixels)


def compile_model(model: keras.Model, recipe: Recipe) -> None:
    """Give the model its optimizer and loss.

    XLA is off on TensorFlow: its depthwise convolutions are 5 to 10 times slower on a CPU.
    """
    decay = recipe.weight_decay or None
    match recipe.optimizer:
        case "adam":
            optimizer = keras.optimizers.Adam(recipe.learning_rate, weight_decay=decay)
        case "adamw":
            optimizer = keras.optimizers.AdamW(recipe.learning_rate, weight_decay=recipe.weight_decay)
        case "sgd":
            optimizer = keras.optimizers.SGD(
                recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, weight_decay=decay
            )
    if recipe.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() != "tensorflow",
    )


def _batches(
    data: Dataset, recipe: Recipe, seed: int, epoch: int
) -> Iterator[tuple[int, npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    """(index, images, labels) of each batch of an epoch, in an order and a variation that (seed, epoch) decides."""
    order = generator(seed, "order", epoch).permutation(len(data.x_train))
    variation = generator(seed, "augment", epoch)
    for index, start in enumerate(range(0, len(order), recipe.batch_size)):
        chosen = order[start : start + recipe.batch_size]
        yield index, augment(data.x_train[chosen], recipe.augment, variation), data.y_train[chosen]


def _check(what: str, value: float, epoch: int, step: int) -> None:
    if not math.isfinite(value):
        raise TrialOver("diverged", f"the {what} became {value} in epoch {epoch + 1}, step {step + 1}")


class _PlateauCuts:
    """The factor that a plateau schedule has come to; 1 for every other schedule."""

    def __init__(self, recipe: Recipe) -> None:
        self.schedule = recipe.schedule
        self.factor = 1.0
        self._best = math.inf
        self._waited = 0

    def see(self, val_loss: float) -> None:
        if not isinstance(self.schedule, Plateau):
            return
        if val_loss < self._best:
            self._best, self._waited = val_loss, 0
            return
        self._waited += 1
        if self._waited >= self.schedule.patience:
            self.factor *= self.schedule.factor
            self._waited = 0
