"""Training loop of one network under one recipe; the arithmetic is in `search.training.engine`.

All random numbers come from (seed, epoch): the same seed on the same machine, versions and threads gives the same training,
also when it was stopped after any epoch and resumed from its checkpoint. On a GPU this needs `recipe.deterministic`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.data.dataset import Dataset, channel_statistics
from search.data.preprocessing import Pixels
from search.networks.architecture import Architecture
from search.training import checkpoint as checkpoints
from search.training.checkpoint import Checkpoint
from search.training.device import backend, dtype_policy, set_deterministic
from search.training.engine.base import Engine, Evaluation
from search.training.engine.epoch import plan_epoch
from search.training.measures import ACCURACY, confusion_matrix, measure_all
from search.training.model import build, flip_averaged
from search.training.recipe import Plateau, Recipe
from search.training.result import Epoch, Outcome, Training, TrialOver, Weights, memory_ends_the_trial

EVALUATION_BATCH = 500
CALL_SECONDS = 1.0  # of one compiled call: a signal waits so long


def fit(
    architecture: Architecture,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int,
    metric: str = ACCURACY,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Epoch], bool | None] = lambda epoch: None,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> Training:
    """Train the network for all epochs of the recipe, the partial last batch of each included.

    Args:
        metric: the measure that decides which epoch is the best; another than accuracy has all of them measured.
        checkpoint: written after each epoch; if it holds an earlier part of the same training, that is resumed.
        on_epoch: called after each epoch, those from a checkpoint included; the training ends if it returns True.
        on_step: called with (steps done, steps in all) after each compiled call: about once a second.

    Raises:
        TrialOver: the loss or a validation figure is not finite, or memory ran out.
    """
    with memory_ends_the_trial(recipe.batch_size):
        return _fit(architecture, data, recipe, seed, metric, checkpoint, on_epoch, on_step)


def pixels_of(data: Dataset, recipe: Recipe) -> Pixels:
    """Preprocessing of pixels by the recipe, with the statistics of the training images."""
    if not recipe.normalize:
        return Pixels()
    mean, std = channel_statistics(data.x_train)
    return Pixels(tuple(mean.tolist()), tuple(std.tolist()))


def confusion_of(
    architecture: Architecture,
    weights: Weights | list[npt.NDArray[Any]],
    pixels: Pixels,
    images: Any,
    labels: Any,
    *,
    flip_average: bool = False,
) -> npt.NDArray[np.int64]:
    """Confusion matrix of a trained network on images, uint8 (n, height, width, channels).

    Args:
        flip_average: average the probabilities of each image and of its mirror image.
    """
    predicted = probabilities(architecture, weights, pixels, images, flip_average=flip_average).argmax(axis=1)
    return confusion_matrix(labels, predicted, architecture.classes)


def probabilities(
    architecture: Architecture,
    weights: Weights | list[npt.NDArray[Any]],
    pixels: Pixels,
    images: Any,
    *,
    flip_average: bool = False,
) -> npt.NDArray[np.float32]:
    """Class probabilities (n, classes) by a trained network for images, uint8 (n, height, width, channels)."""
    model = build(architecture)
    model.set_weights(list(weights))
    model = flip_averaged(model) if flip_average else model
    batches = []
    for first in range(0, len(images), EVALUATION_BATCH):
        batch = pixels.apply(images[first : first + EVALUATION_BATCH])
        batches.append(np.asarray(model(batch, training=False), np.float32))
    return np.concatenate(batches)


def _fit(
    architecture: Architecture,
    data: Dataset,
    recipe: Recipe,
    seed: int,
    metric: str,
    checkpoint: Path | None,
    on_epoch: Callable[[Epoch], bool | None],
    on_step: Callable[[int, int], None],
) -> Training:
    pixels, policy = pixels_of(data, recipe), dtype_policy(recipe.precision)
    engine = open_engine(architecture, data, recipe, pixels, seed=seed, dtype=policy, confusion=metric != ACCURACY)
    identity = checkpoints.identity(architecture, data, recipe, seed, policy, metric)
    history: list[Epoch] = []
    best: tuple[Epoch, Weights] | None = None
    best_confusion = None
    plateau, checkpoint_seconds, stop = _PlateauCuts(recipe), 0.0, False
    stored = checkpoints.read(checkpoint, identity)
    if stored is not None:
        engine.restore(stored.state)
        history = [Epoch(**row) for row in stored.history]
        best, best_confusion = (history[stored.best], stored.best_weights), stored.best_confusion
        for epoch in history:
            plateau.see(epoch.val_loss)
            stop = bool(on_epoch(epoch))
    call_length = CallLength()
    for number in range(len(history), recipe.epochs):
        if stop:
            break
        started = time.monotonic()
        plan = plan_epoch(recipe, len(data.x_train), seed, number, factor=plateau.factor)
        engine.begin(plan)
        for first, last in call_length.calls(plan.steps):
            sums = engine.train(first, last)
            _check("loss", sums.loss, number, last)
            on_step(number * plan.steps + last, recipe.epochs * plan.steps)
        raw = engine.evaluate()
        ranked = engine.evaluate(averaged=True) if recipe.ema else raw
        _check("validation loss", ranked.loss, number, plan.steps)
        seen = len(plan.order)
        epoch = Epoch(
            epoch=number + 1,
            loss=sums.loss / seen,
            accuracy=sums.correct / seen,
            val_loss=ranked.loss,
            val_accuracy=ranked.accuracy,
            learning_rate=float(plan.rates[-1]),
            seconds=time.monotonic() - started,
            raw_val_loss=raw.loss if recipe.ema else None,
            raw_val_accuracy=raw.accuracy if recipe.ema else None,
            **_other_measures(ranked, "val"),
            **(_other_measures(raw, "raw_val") if recipe.ema else {}),
        )
        history.append(epoch)
        if best is None or epoch.score(metric) > best[0].score(metric):
            best, best_confusion = (epoch, tuple(engine.weights(averaged=recipe.ema > 0))), ranked.confusion
            for weight in best[1]:  # an infinite variance in batch normalisation leaves every figure finite
                _check("largest weight", float(np.abs(weight).max(initial=0)), number, plan.steps)
        plateau.see(epoch.val_loss)
        if checkpoint and number + 1 < recipe.epochs:
            rows = [row.to_dict() for row in history]
            written = Checkpoint(tuple(engine.state()), rows, best[0].epoch - 1, best[1], best_confusion)
            checkpoint_seconds += checkpoints.write(checkpoint, identity, written)
        stop = bool(on_epoch(epoch))
    assert best is not None
    return Training(tuple(history), *best, pixels, policy, engine.compile_seconds, checkpoint_seconds, best_confusion)


def _other_measures(evaluated: Evaluation, prefix: str) -> dict[str, float]:
    """The measures beside accuracy as fields of an `Epoch`; none where there is no confusion matrix."""
    if evaluated.confusion is None:
        return {}
    values = measure_all(evaluated.confusion)
    return {f"{prefix}_{name}": value for name, value in values.items() if name != ACCURACY}


def _check(name: str, value: float, epoch: int, step: int) -> None:
    if not math.isfinite(value):
        raise TrialOver(Outcome.DIVERGED, f"the {name} became {value} in epoch {epoch + 1}, by step {step}")


class CallLength:
    """The number of steps of one compiled call, as many as fit into CALL_SECONDS: limits and signals wait no longer."""

    def __init__(self) -> None:
        self.length = 1

    def calls(self, steps: int) -> Iterator[tuple[int, int]]:
        """Yield (first, last) of each call of an epoch; the result of the training does not depend on them."""
        first = 0
        while first < steps:
            last = min(steps, first + self.length)
            started = time.monotonic()
            yield first, last
            step_seconds = (time.monotonic() - started) / (last - first)
            self.length = max(1, min(4 * self.length, int(CALL_SECONDS / max(step_seconds, 1e-6))))
            first = last


class _PlateauCuts:
    """Current factor of a plateau schedule; 1 for every other schedule."""

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


def open_engine(
    architecture: Architecture,
    data: Dataset,
    recipe: Recipe,
    pixels: Pixels,
    *,
    seed: int,
    dtype: str,
    confusion: bool = False,
) -> Engine:
    """Build and compile a training of the network on the current backend.

    Args:
        seed: of the initial weights; all other random numbers come with the plan of an epoch.
        dtype: Keras dtype policy of compute, "float32" or "mixed_bfloat16"; weights are float32 in both.
        confusion: count the validation images by true and predicted class in each evaluation.
    """
    if recipe.deterministic:
        set_deterministic()
    if backend() == "jax":
        from search.training.engine.jax import JaxEngine

        return JaxEngine(architecture, data, recipe, pixels, seed=seed, dtype=dtype, confusion=confusion)
    from search.training.engine.tensorflow import TensorFlowEngine

    return TensorFlowEngine(architecture, data, recipe, pixels, seed=seed, dtype=dtype, confusion=confusion)
