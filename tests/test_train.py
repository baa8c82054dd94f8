"""One training: that it learns, that its seed decides it, what its log and weights hold, and how it can end."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from search import train
from search.architecture import Architecture
from search.data import Dataset, channel_statistics, load_dataset
from search.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    SeparableConv,
    Softmax,
)
from search.model import build
from search.recipe import Augment, Plateau, Recipe, rate_at
from search.train import Epoch, Training, TrialOver, compile_model, fit, pixels_of

ROOT = Path(__file__).parent.parent
SMALL = Architecture(
    (8, 8, 1),
    10,
    (
        *(SeparableConv(16), BatchNorm(), Activation("relu"), MaxPool(), Dropout(0.1)),
        *(Conv(16, use_bias=True), Activation("relu"), GlobalAveragePool(), Dense(10), Softmax()),
    ),
    "small",
)
LINEAR = Architecture((8, 8, 1), 10, (Flatten(), Dense(10), Softmax()), "linear")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", None, protocol="holdout", holdout=0.1, images=300)


def trained(
    data: Dataset, recipe: Recipe, network: Architecture = LINEAR, seed: int = 0, **hooks: Any
) -> tuple[Training, keras.Model]:
    model = build(network, seed=seed)
    return fit(model, data, recipe, seed=seed, **hooks), model


class Spy:
    """Stands in for a Keras model: keeps what it is given, and answers as it is told."""

    def __init__(self, answers: Callable[[int], float] = lambda step: 1.0, val_losses: tuple[float, ...] = ()) -> None:
        self.answers, self.val_losses = answers, list(val_losses)
        self.batches: list[npt.NDArray[np.float32]] = []
        self.targets: list[npt.NDArray[np.float32]] = []
        self.validations: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []
        self.rates: list[float] = []
        self.optimizer = type("Optimizer", (), {"learning_rate": 0.0})()

    def reset_metrics(self) -> None: ...

    def train_on_batch(self, images: Any, targets: Any, return_dict: bool) -> dict[str, float]:
        assert return_dict
        self.batches.append(images)
        self.targets.append(targets)
        self.rates.append(self.optimizer.learning_rate)
        return {"loss": self.answers(len(self.batches)), "accuracy": 0.5}

    def evaluate(self, images: Any, labels: Any, **rest: Any) -> dict[str, float]:
        self.validations.append((images, labels))
        return {"loss": self.val_losses.pop(0) if self.val_losses else 1.0, "accuracy": 0.5}

    def get_weights(self) -> list[npt.NDArray[np.float32]]:
        return []


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Spy, Training]]:
    monkeypatch.setattr(train, "compile_model", lambda model, recipe: None)

    def run(data: Dataset, recipe: Recipe, seed: int = 0, **answers: Any) -> tuple[Spy, Training]:
        spy = Spy(**answers)
        return spy, fit(spy, data, recipe, seed=seed)  # type: ignore[arg-type]

    return run


# --- it learns, the same each time -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_loss_falls_and_most_digits_are_told_apart(digits: Dataset) -> None:
    training, _ = trained(digits, Recipe(epochs=15, batch_size=16, learning_rate=0.003), SMALL)
    losses = [epoch.loss for epoch in training.history]
    assert losses[-1] < 0.5 * losses[0]
    assert training.best.val_accuracy > 0.5
    assert training.history[-1].accuracy > 0.6


REPEAT = """
import json, sys
from search.device import prepare_device
prepare_device()
import numpy as np
from search.data import load_dataset
from search.model import build
from search.recipe import Augment, Recipe
from search.train import fit
from tests.test_train import SMALL
data = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=300)
recipe = Recipe(epochs=2, batch_size=32, learning_rate=0.01, augment=Augment(flip=True, crop=1, rotation=10.0))
found = []
for seed in map(int, sys.argv[1:]):
    training = fit(build(SMALL, seed=seed), data, recipe, seed=seed)
    found.append([[(e.loss, e.accuracy, e.val_loss, e.val_accuracy, e.learning_rate) for e in training.history],
                  [weight.tobytes().hex() for weight in training.best_weights]])
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_seed_gives_the_same_training_bit_for_bit_and_another_seed_another() -> None:
    """Within a process and in a new one, set up as the worker is."""

    def run(*seeds: str) -> list[Any]:
        words = [sys.executable, "-c", REPEAT, *seeds]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout.splitlines()[-1]))

    first, again, other = run("5", "5", "6")
    assert first == again
    assert first[0] != other[0]
    assert first[1] != other[1]
    assert run("5") == [first]


# --- log and weights -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logged(digits: Dataset) -> tuple[Training, keras.Model, list[Epoch], list[tuple[int, int]]]:
    epochs: list[Epoch] = []
    steps: list[tuple[int, int]] = []
    recipe = Recipe(epochs=6, batch_size=64, learning_rate=0.5, optimizer="sgd", momentum=0.0, normalize=True)
    training, model = trained(digits, recipe, on_epoch=epochs.append, on_step=lambda *step: steps.append(step))
    return training, model, epochs, steps


def test_the_history_has_every_epoch_in_order(logged: Any) -> None:
    training, _, epochs, steps = logged
    assert [epoch.epoch for epoch in training.history] == [1, 2, 3, 4, 5, 6]
    assert epochs == list(training.history)
    assert steps == [(step, 30) for step in range(1, 31)]  # 300 images make five steps of 64
    for epoch in epochs:
        assert all(math.isfinite(value) for value in (epoch.loss, epoch.val_loss))
        assert 0 <= epoch.accuracy <= 1
        assert 0 <= epoch.val_accuracy <= 1
        assert epoch.seconds > 0
        assert epoch.learning_rate == 0.5


def test_the_best_is_the_first_with_the_highest_validation_accuracy(logged: Any) -> None:
    training = logged[0]
    accuracies = [epoch.val_accuracy for epoch in training.history]
    assert training.best == training.history[accuracies.index(max(accuracies))]


def test_the_best_weights_give_the_best_validation_accuracy(logged: Any, digits: Dataset) -> None:
    training, model, _, _ = logged
    model.set_weights(list(training.best_weights))
    predicted = model.predict(training.pixels.apply(digits.x_val), verbose=0).argmax(axis=-1)
    assert np.mean(predicted == digits.y_val) == pytest.approx(training.best.val_accuracy, abs=1e-6)


def test_the_best_weights_are_a_copy_of_that_epoch(digits: Dataset) -> None:
    """Whatever comes after the best epoch leaves them as they were."""
    kept: list[list[npt.NDArray[np.float32]]] = []
    accuracies = [0.1, 0.9, 0.3, 0.9]
    model = build(LINEAR, seed=0)
    model.evaluate = lambda *words, **rest: {"loss": 1.0, "accuracy": accuracies[len(kept)]}

    def keep(epoch: Epoch) -> None:
        kept.append([weight.copy() for weight in model.get_weights()])

    training = fit(model, digits, Recipe(epochs=4, batch_size=64, learning_rate=0.1), seed=0, on_epoch=keep)
    assert training.best.epoch == 2
    for epoch, weights in enumerate(kept, 1):
        same = all(np.array_equal(ours, theirs) for ours, theirs in zip(training.best_weights, weights, strict=True))
        assert same == (epoch == 2)


def test_the_loss_of_an_epoch_is_the_mean_over_its_images(digits: Dataset) -> None:
    """Hand-made: the weights barely move at such a rate, so every batch has the loss of the first weights."""
    training, model = trained(digits, Recipe(epochs=1, batch_size=128, learning_rate=1e-12, optimizer="sgd"))
    probabilities = model.predict(pixels_of(digits, Recipe()).apply(digits.x_train), verbose=0)
    expected = -np.log(probabilities[np.arange(len(digits.y_train)), digits.y_train]).mean()
    assert training.history[0].loss == pytest.approx(expected, rel=1e-4)


def test_what_on_epoch_raises_ends_the_training(digits: Dataset) -> None:
    def stop(epoch: Epoch) -> None:
        raise KeyError(epoch.epoch)

    with pytest.raises(KeyError, match="1"):
        trained(digits, Recipe(epochs=3, batch_size=128), on_epoch=stop)


# --- what the network is fed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "sizes"), [(64, [64, 64, 64, 64, 44]), (300, [300]), (299, [299, 1]), (999, [300])])
def test_each_image_is_trained_on_once_an_epoch_the_partial_last_batch_too(
    batch_size: int, sizes: list[int], digits: Dataset, spied: Any
) -> None:
    spy, _ = spied(digits, Recipe(epochs=2, batch_size=batch_size))
    assert [len(batch) for batch in spy.batches] == sizes * 2
    expected = np.sort(digits.x_train.reshape(300, -1) / np.float32(255), axis=0)
    for epoch in range(2):
        fed = np.concatenate(spy.batches[epoch * len(sizes) : (epoch + 1) * len(sizes)])
        np.testing.assert_allclose(np.sort(fed.reshape(300, -1), axis=0), expected, atol=1e-6)


def test_images_keep_their_labels_and_come_in_a_new_order_each_epoch(digits: Dataset, spied: Any) -> None:
    spy, _ = spied(digits, Recipe(epochs=2, batch_size=300))
    labels = {image.tobytes(): label for image, label in zip(digits.x_train, digits.y_train, strict=True)}
    assert len(labels) == 300
    for batch, targets in zip(spy.batches, spy.targets, strict=True):
        assert batch.dtype == targets.dtype == np.float32
        for image, target in zip(np.rint(batch * 255).astype(np.uint8), targets, strict=True):
            assert target.sum() == target[labels[image.tobytes()]] == 1
    assert not np.array_equal(spy.batches[0], spy.batches[1])
    again, _ = spied(digits, Recipe(epochs=2, batch_size=300))
    other, _ = spied(digits, Recipe(epochs=2, batch_size=300), seed=1)
    np.testing.assert_array_equal(again.batches[1], spy.batches[1])
    assert not np.array_equal(other.batches[1], spy.batches[1])


def test_validation_images_are_never_augmented(digits: Dataset, spied: Any) -> None:
    augmented = Recipe(epochs=3, batch_size=300, augment=Augment(flip=True, crop=4, shift=0.5, zoom=0.5, rotation=90.0))
    spy, _ = spied(digits, augmented)
    plain, _ = spied(digits, replace_augment(augmented))
    assert len(spy.validations) == 3
    for images, labels in spy.validations:
        np.testing.assert_allclose(images, digits.x_val / 255, atol=1e-7)
        np.testing.assert_array_equal(labels.argmax(axis=1), digits.y_val)
    assert not np.array_equal(spy.batches[0], plain.batches[0])
    assert not np.array_equal(spy.batches[0], spy.batches[1])


def replace_augment(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"augment": Augment()})


def test_a_recipe_that_normalises_does_so_by_the_training_images_alone(digits: Dataset, spied: Any) -> None:
    shifted = replace(digits, x_val=np.full_like(digits.x_val, 255))
    spy, training = spied(shifted, Recipe(epochs=1, batch_size=300, normalize=True))
    mean, std = channel_statistics(digits.x_train)
    assert abs(spy.batches[0].mean()) < 1e-4
    assert abs(spy.batches[0].std() - 1) < 1e-4
    np.testing.assert_allclose(spy.validations[0][0], np.full(digits.x_val.shape, (1 - mean) / std), rtol=1e-5)
    assert training.pixels.mean == pytest.approx(mean.tolist())
    assert pixels_of(digits, Recipe()).mean == ()


# --- optimizer, schedule, loss ---------------------------------------------------------------------------------------

SCHEDULES: list[dict[str, Any]] = [
    {"kind": "constant"},
    {"kind": "inverse-time", "rate": 0.3},
    {"kind": "cosine"},
    {"kind": "one-cycle"},
    {"kind": "plateau", "patience": 1},
]


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_each_optimizer_runs(optimizer: str, decay: float, digits: Dataset) -> None:
    recipe = Recipe.model_validate(
        {"epochs": 2, "batch_size": 100, "optimizer": optimizer, "weight_decay": decay, "learning_rate": 0.05}
    )
    training, model = trained(digits, recipe)
    assert training.history[1].loss < training.history[0].loss
    assert type(model.optimizer).__name__.lower() == optimizer
    assert float(model.optimizer.weight_decay or 0) == pytest.approx(decay)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: str(schedule["kind"]))
def test_each_step_takes_its_rate_from_the_schedule(schedule: dict[str, Any], digits: Dataset, spied: Any) -> None:
    recipe = Recipe.model_validate({"epochs": 3, "batch_size": 100, "learning_rate": 0.1, "schedule": schedule})
    spy, training = spied(digits, recipe, val_losses=(3.0, 2.0, 1.0))
    assert spy.rates == [rate_at(recipe, step, 3) for step in range(9)]
    assert [epoch.learning_rate for epoch in training.history] == spy.rates[2::3]


def test_the_rate_reaches_the_optimizer(digits: Dataset) -> None:
    recipe = Recipe.model_validate({"epochs": 2, "batch_size": 100, "learning_rate": 0.1, "schedule": {"kind": "cosine"}})
    training, model = trained(digits, recipe)
    assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(training.history[-1].learning_rate)


@pytest.mark.parametrize(
    ("patience", "val_losses", "cuts"),
    [
        (1, (5, 4, 3, 2, 1), (0, 0, 0, 0, 0)),
        (1, (5, 5, 5, 4, 5), (0, 0, 1, 2, 2)),
        (2, (5, 6, 7, 4, 4, 4, 4), (0, 0, 0, 1, 1, 1, 2)),
        (2, (5, 6, 4, 5, 3, 9, 9, 9), (0, 0, 0, 0, 0, 0, 0, 1)),
    ],
)
def test_a_plateau_cuts_the_rate(
    patience: int, val_losses: tuple[float, ...], cuts: tuple[int, ...], digits: Dataset, spied: Any
) -> None:
    """`cuts`: how many have been made when each epoch begins."""
    schedule = Plateau(factor=0.1, patience=patience)
    recipe = Recipe(epochs=len(val_losses), batch_size=300, learning_rate=1.0, schedule=schedule)
    spy, _ = spied(digits, recipe, val_losses=tuple(map(float, val_losses)))
    np.testing.assert_allclose(spy.rates, 0.1 ** np.array(cuts, float), rtol=1e-9)


DECAYED = Architecture(
    (8, 8, 1),
    10,
    (
        SeparableConv(4, use_bias=True),
        BatchNorm(),
        Activation("relu"),
        Conv(4, use_bias=True),
        Flatten(),
        Dense(10),
        Softmax(),
    ),
)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_weight_decay_shrinks_kernels_and_nothing_else(optimizer: str) -> None:
    recipe = Recipe.model_validate({"optimizer": optimizer, "weight_decay": 0.5, "learning_rate": 0.1})
    model = build(DECAYED, seed=0)
    compile_model(model, recipe)
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, 2.0, np.float32))
    model.optimizer.build(model.trainable_variables)
    model.optimizer.apply([keras.ops.zeros(variable.shape) for variable in model.trainable_variables])
    shrunk = {variable.path: float(np.max(variable.numpy())) for variable in model.trainable_variables}
    kernels = {path for path in shrunk if path.endswith("kernel")}
    assert {path.rsplit("/", 1)[-1] for path in shrunk.keys() - kernels} == {"bias", "gamma", "beta"}
    assert len(kernels) == 4
    for path, value in shrunk.items():
        assert value == pytest.approx(2.0 * (1 - 0.5 * 0.1) if path in kernels else 2.0), path


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_are_smoothed_in_the_loss(smoothing: float, digits: Dataset) -> None:
    recipe = Recipe(epochs=1, batch_size=300, label_smoothing=smoothing, learning_rate=1e-12, optimizer="sgd")
    training, model = trained(digits, recipe)
    logarithms = np.log(model.predict(pixels_of(digits, recipe).apply(digits.x_train), verbose=0))
    targets = np.eye(10)[digits.y_train] * (1 - smoothing) + smoothing / 10
    assert training.history[0].loss == pytest.approx(-(targets * logarithms).sum(axis=1).mean(), rel=1e-4)


# --- how it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_trial_where_it_came(value: float, digits: Dataset, spied: Any) -> None:
    with pytest.raises(TrialOver) as caught:
        spied(digits, Recipe(epochs=3, batch_size=100), answers=lambda step: value if step == 5 else 1.0)
    assert caught.value.outcome == "diverged"
    assert caught.value.reason == f"the loss became {value} in epoch 2, step 2"


def test_a_validation_loss_that_is_not_finite_ends_the_trial(digits: Dataset, spied: Any) -> None:
    with pytest.raises(TrialOver, match=r"the validation loss became nan in epoch 2") as caught:
        spied(digits, Recipe(epochs=3, batch_size=100), val_losses=(1.0, math.nan))
    assert caught.value.outcome == "diverged"


def test_a_learning_rate_of_a_billion_diverges(digits: Dataset) -> None:
    deep = Architecture((8, 8, 1), 10, (*[Conv(8)] * 4, GlobalAveragePool(), Dense(10), Softmax()))
    with pytest.raises(TrialOver) as caught:
        trained(digits, Recipe(epochs=9, batch_size=50, learning_rate=1e9, optimizer="sgd"), deep)
    assert caught.value.outcome == "diverged"


def test_memory_that_ran_out_ends_the_trial(digits: Dataset, spied: Any) -> None:
    def exhaust(step: int) -> float:
        raise MemoryError

    with pytest.raises(TrialOver, match=r"out of memory at batch size 100") as caught:
        spied(digits, Recipe(epochs=1, batch_size=100), answers=exhaust)
    assert caught.value.outcome == "out_of_memory"


def test_tensorflow_saying_that_memory_ran_out_ends_the_trial(digits: Dataset, spied: Any) -> None:
    import tensorflow as tf

    def exhaust(step: int) -> float:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    with pytest.raises(TrialOver) as caught:
        spied(digits, Recipe(epochs=1, batch_size=100), answers=exhaust)
    assert caught.value.outcome == "out_of_memory"


def test_any_other_error_is_not_hidden(digits: Dataset, spied: Any) -> None:
    def fail(step: int) -> float:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        spied(digits, Recipe(epochs=1), answers=fail)
