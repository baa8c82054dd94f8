"""Protocol of the training engines, and the parts that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import numpy.typing as npt

from search.data.dataset import Dataset
from search.training.engine.epoch import EpochPlan
from search.training.recipe import Recipe

Arrays = Sequence[npt.NDArray[Any]]
UNDECAYED = ("bias", "gamma", "beta")  # parts of the names of weights without weight decay


class Sums(NamedTuple):
    """Sums over the images of an epoch so far, with the weights of each step."""

    loss: float
    correct: float


class Evaluation(NamedTuple):
    """Figures of the validation images."""

    loss: float  # mean
    accuracy: float
    confusion: npt.NDArray[np.int64] | None = None  # (classes, classes), true by predicted; None if it was not asked for


class Engine(Protocol):
    """A network in training with its images, weights and optimizer on the device."""

    compile_seconds: float  # of tracing and compiling, before the first step

    def begin(self, plan: EpochPlan) -> None:
        """Set the plan of the next steps, and reset the sums."""

    def train(self, first: int, last: int) -> Sums:
        """Run the steps first to last (exclusive) of the epoch in one compiled call; the sums since `begin`.

        The result does not depend on how an epoch is divided into calls.
        """

    def evaluate(self, *, averaged: bool = False) -> Evaluation:
        """Evaluate the validation images in one compiled call, with the weights or their moving average."""

    def weights(self, *, averaged: bool = False) -> Arrays:
        """Copy the weights or their moving average, float32, in the order of Keras' `get_weights()`."""

    def state(self) -> Arrays:
        """Copy the state that the next epoch depends on: weights, optimizer, moving average."""

    def restore(self, state: Arrays) -> None:
        """Restore a state that `state` returned."""


def optimizer_of(recipe: Recipe) -> Any:
    """Create Keras' optimizer; weight decay is decoupled and of kernels only, clipping by the global norm."""
    common: dict[str, Any] = {"global_clipnorm": recipe.clip_norm or None, "weight_decay": recipe.weight_decay or None}
    match recipe.optimizer:
        case "adam":
            optimizer = keras.optimizers.Adam(recipe.learning_rate, **common)
        case "adamw":
            optimizer = keras.optimizers.AdamW(recipe.learning_rate, **common | {"weight_decay": recipe.weight_decay})
        case "sgd":
            momentum = {"momentum": recipe.momentum, "nesterov": recipe.momentum > 0}
            optimizer = keras.optimizers.SGD(recipe.learning_rate, **momentum, **common)
    if recipe.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=list(UNDECAYED))
    return optimizer


def is_decayed(weight: Any) -> bool:
    """True if `optimizer_of` lets weight decay act on a Keras variable."""
    return not any(name in weight.name for name in UNDECAYED)


def losses(targets: Any, probabilities: Any, recipe: Recipe) -> Any:
    """Cross-entropy (n,) of each image, from one-hot or mixed targets (n, classes).

    In training each is multiplied by the weight of its class, as in Keras' `fit(class_weight=...)`: a mixed target counts as
    its larger part, and the mean is over images, not over weights. Validation takes no weights.
    """
    return keras.losses.categorical_crossentropy(targets, probabilities, label_smoothing=recipe.label_smoothing)


def class_weights_of(data: Dataset, recipe: Recipe) -> npt.NDArray[np.float32] | None:
    """Weight of each class (classes,) in the loss; None if the recipe weighs all the same.

    "balanced" is n / (classes * n of the class) over the training images, as in scikit-learn, after King and Zeng, "Logistic
    regression in rare events data", 2001.
    """
    if recipe.class_weights == "none":
        return None
    counts = np.bincount(data.y_train, minlength=data.classes)
    return np.asarray(counts.sum() / (data.classes * counts), np.float32)


def evaluation(loss: float, count: float, hits: float) -> Evaluation:
    """The figures of sums over the validation images."""
    return Evaluation(loss / count, hits / count)


def evaluation_of_confusion(loss: float, confusion: npt.NDArray[np.float32]) -> Evaluation:
    """The figures of the summed loss and the counts by true and predicted class."""
    counts = np.rint(confusion).astype(np.int64)
    images = int(counts.sum())
    return Evaluation(loss / images, int(np.trace(counts)) / images, counts)


VALIDATION_BATCH = 500


class Validation(NamedTuple):
    """Validation images in equal batches; the last is padded with images that count 0."""

    images: npt.NDArray[np.uint8]  # (batches * size, height, width, channels)
    targets: npt.NDArray[np.float32]  # (batches * size, classes)
    counts: npt.NDArray[np.float32]  # (batches * size,), 1 or 0
    batches: int
    size: int


def validation_of(data: Dataset) -> Validation:
    """Arrange the validation images of a data set for one compiled call."""
    n = len(data.x_val)
    batches = -(-n // VALIDATION_BATCH)
    size = -(-n // batches)
    padded = np.minimum(np.arange(batches * size), n - 1)
    targets = np.eye(data.classes, dtype=np.float32)[data.y_val[padded]]
    counts = (np.arange(batches * size) < n).astype(np.float32)
    return Validation(data.x_val[padded], targets, counts, batches, size)
