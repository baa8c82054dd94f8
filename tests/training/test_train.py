"""One training: that it learns, that its seed decides it, what its log and weights hold, and how it can end."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from search.data.dataset import Dataset
from search.networks.architecture import Architecture
from search.networks.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    GlobalAveragePool,
    Softmax,
)
from search.training import train
from search.training.engine.base import Evaluation
from search.training.model import build
from search.training.recipe import Augment, Linear, Recipe
from search.training.train import Epoch, Training, TrialOver, pixels_of
from tests.support.snippet import snippet
from tests.support.trainings import LINEAR, SMALL, STILL, Arrays, Recorder, digits, measured, opened, recorded, same, trained

__all__ = ["digits", "opened", "recorded"]
ROOT = Path(__file__).parents[2]


# --- it learns, the same each time -----------------------------------------------------------------------------------


def test_the_loss_falls_and_most_digits_are_classified_correctly(digits: Dataset) -> None:
    training = trained(digits, Recipe(epochs=15, batch_size=16, learning_rate=0.003), SMALL)
    losses = [epoch.loss for epoch in training.history]
    assert losses[-1] < 0.5 * losses[0]
    assert training.best.val_accuracy > 0.5
    assert training.history[-1].accuracy > 0.6


REPEAT = """
import json, sys
from search.training.device import prepare_device
prepare_device()
from search.data.dataset import load_dataset
from search.training.recipe import Augment, Recipe
from search.training.train import fit
from tests.support.trainings import SMALL
data = load_dataset("digits", None, protocol="holdout", holdout=0.1, images=300)
how = Augment(flip=True, crop=1, rotation=10.0, cutout=2, mixup=0.2)
recipe = Recipe(epochs=2, batch_size=32, learning_rate=0.01, ema=0.9, augment=how)
found = []
for seed in map(int, sys.argv[1:]):
    training = fit(SMALL, data, recipe, seed=seed)
    rows = [(e.loss, e.accuracy, e.val_loss, e.val_accuracy, e.learning_rate, e.raw_val_loss) for e in training.history]
    found.append([rows, [weight.tobytes().hex() for weight in training.best_weights]])
print(json.dumps(found))
"""


def test_a_seed_gives_the_same_training_bit_for_bit_and_another_seed_another() -> None:
    """Within a process and in a new one, set up as the worker is."""

    def run(*seeds: str) -> list[Any]:
        words = snippet(REPEAT, *seeds)
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
def logged(digits: Dataset) -> tuple[Training, list[Epoch], list[tuple[int, int]]]:
    epochs: list[Epoch] = []
    steps: list[tuple[int, int]] = []
    recipe = Recipe(epochs=6, batch_size=64, learning_rate=0.5, optimizer="sgd", momentum=0.0, normalize=True)
    hooks = {"on_epoch": epochs.append, "on_step": lambda *step: steps.append(step)}
    return trained(digits, recipe, SMALL, **hooks), epochs, steps


def test_the_history_has_every_epoch_in_order(logged: Any) -> None:
    training, epochs, _ = logged
    assert [epoch.epoch for epoch in training.history] == [1, 2, 3, 4, 5, 6]
    assert epochs == list(training.history)
    for epoch in epochs:
        assert all(math.isfinite(value) for value in (epoch.loss, epoch.val_loss))
        assert 0 <= epoch.accuracy <= 1
        assert 0 <= epoch.val_accuracy <= 1
        assert epoch.seconds > 0
        assert epoch.learning_rate == 0.5
        assert epoch.raw_val_loss is epoch.raw_val_accuracy is None


def test_steps_rise_to_those_of_the_whole_training(logged: Any) -> None:
    steps = [step for step, _ in logged[2]]
    assert {total for _, total in logged[2]} == {30}  # 300 images make five steps of 64
    assert steps == sorted(set(steps))
    assert set(steps) >= {5, 10, 15, 20, 25, 30}


def test_the_best_is_the_first_with_the_highest_validation_accuracy(digits: Dataset, recorded: Any) -> None:
    _, training = recorded(digits, Recipe(epochs=5), accuracies=(0.1, 0.7, 0.3, 0.7, 0.6), val_losses=(5, 4, 3, 2, 1))
    assert training.best == training.history[1]
    assert training.best_weights[0].tolist() == [2, 0]


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_best_weights_give_the_best_figures_in_a_standard_model(ema: float, digits: Dataset) -> None:
    recipe = Recipe(epochs=3, batch_size=32, learning_rate=0.01, normalize=True, ema=ema, label_smoothing=0.1)
    training = trained(digits, recipe, SMALL)
    loss, accuracy = measured(SMALL, training.best_weights, digits, recipe)
    assert loss == pytest.approx(training.best.val_loss, rel=1e-4)
    assert accuracy == pytest.approx(training.best.val_accuracy, abs=1e-6)
    assert training.pixels == pixels_of(digits, recipe)


def test_the_best_weights_are_a_copy_of_that_epoch(
    digits: Dataset, opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later epochs do not change them."""
    kept: list[Arrays] = []
    accuracies = [0.1, 0.9, 0.3, 0.9]

    def keep(epoch: Epoch) -> None:
        kept.append([weight.copy() for weight in opened[0].weights()])

    def evaluate(self: Any, *, averaged: bool = False) -> Evaluation:
        return Evaluation(1.0, accuracies[len(kept)])

    from search.training.engine.tensorflow import TensorFlowEngine

    monkeypatch.setattr(TensorFlowEngine, "evaluate", evaluate)
    training = trained(digits, Recipe(epochs=4, batch_size=64, learning_rate=0.1), on_epoch=keep)
    assert training.best.epoch == 2
    for epoch, weights in enumerate(kept, 1):
        equal = all(np.array_equal(ours, theirs) for ours, theirs in zip(training.best_weights, weights, strict=True))
        assert equal == (epoch == 2)


@pytest.mark.parametrize("how", [Augment(), Augment(passes=2)], ids=["one pass", "two passes"])
def test_the_loss_of_an_epoch_is_the_mean_over_its_images(how: Augment, digits: Dataset) -> None:
    """The weights do not move, so that every batch, and the partial last one, has the loss of the first weights."""
    recipe = Recipe(batch_size=128, augment=how, **STILL)
    (epoch,) = trained(digits, recipe).history
    loss, accuracy = measured(LINEAR, build(LINEAR, seed=0).get_weights(), digits, recipe, "train")
    assert epoch.loss == pytest.approx(loss, rel=1e-4)
    assert epoch.accuracy == pytest.approx(accuracy, abs=1e-6)


def test_the_seconds_of_a_training_are_those_of_all_its_parts(logged: Any) -> None:
    training = logged[0]
    assert training.compile_seconds > 0
    assert training.checkpoint_seconds == 0
    more = replace(training, checkpoint_seconds=3.0)
    expected = 3 + training.compile_seconds + sum(epoch.seconds for epoch in training.history)
    assert more.seconds == pytest.approx(expected)


def test_an_error_of_on_epoch_ends_the_training(digits: Dataset, recorded: Any) -> None:
    def stop(epoch: Epoch) -> None:
        seen.append(epoch.epoch)
        if epoch.epoch == 2:
            raise KeyError(epoch.epoch)

    seen: list[int] = []
    with pytest.raises(KeyError, match="2"):
        recorded(digits, Recipe(epochs=4, batch_size=128), {"on_epoch": stop})
    assert seen == [1, 2]


@pytest.mark.parametrize("said", [True, 1, "yes"])
def test_a_training_ends_with_the_epoch_at_which_on_epoch_says_so(said: Any, digits: Dataset, recorded: Any) -> None:
    """With the best of the epochs so far; a candidate ends so at a rung."""
    accuracies = (0.1, 0.7, 0.3, 0.9, 0.9)
    hooks = {"on_epoch": lambda epoch: said if epoch.epoch == 3 else None}
    recorder, training = recorded(digits, Recipe(epochs=5, batch_size=100), hooks, accuracies=accuracies)
    assert len(recorder.plans) == len(training.history) == 3
    assert training.best == training.history[1]
    assert training.best_weights[0].tolist() == [2, 0]


@pytest.mark.parametrize("said", [False, None, 0])
def test_a_training_continues_where_on_epoch_says_nothing(said: Any, digits: Dataset, recorded: Any) -> None:
    _, training = recorded(digits, Recipe(epochs=3, batch_size=100), {"on_epoch": lambda epoch: said})
    assert len(training.history) == 3


def test_a_training_that_is_over_after_its_last_epoch_is_whole(digits: Dataset, recorded: Any) -> None:
    _, training = recorded(digits, Recipe(epochs=3, batch_size=100), {"on_epoch": lambda epoch: epoch.epoch == 3})
    assert len(training.history) == 3


def test_a_schedule_that_begins_anew_is_trained_as_it_says(digits: Dataset, recorded: Any) -> None:
    """300 images make three steps of 100."""
    recipe = Recipe(epochs=4, batch_size=100, learning_rate=0.5, schedule=Linear(), restarts=(1, 2))
    recorder, training = recorded(digits, recipe)
    expected = [[3, 2, 1], [3, 2, 1], [3, 2.5, 2], [1.5, 1, 0.5]]
    np.testing.assert_allclose(np.array(recorder.rates), np.array(expected) / 6, rtol=1e-6)
    assert [epoch.learning_rate for epoch in training.history] == pytest.approx([1 / 6, 1 / 6, 2 / 6, 0.5 / 6])


# --- how an epoch is cut into calls ----------------------------------------------------------------------------------


def test_the_result_does_not_depend_on_how_an_epoch_is_cut(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    how = Augment(flip=True, crop=1, zoom=0.1, cutout=2, mixup=0.2)
    recipe = Recipe(epochs=3, batch_size=16, learning_rate=0.01, ema=0.9, augment=how)
    found, calls = [], []
    for seconds in (0.0, 1e9):
        steps: list[int] = []
        monkeypatch.setattr(train, "CALL_SECONDS", seconds)
        found.append(trained(digits, recipe, SMALL, on_step=lambda step, total, steps=steps: steps.append(step)))
        calls.append(len(steps))
    assert same(*found)
    assert calls == [57, 3 + 1 + 1]  # 19 steps an epoch, one by one; or 1, 4 and 14, and then all at once


def test_a_call_takes_as_many_steps_as_fit_into_its_time(
    digits: Dataset, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock by which a step takes an eighth of a second, and half a second after the second epoch."""
    now = [0.0]

    def pass_time(step: int) -> float:
        now[0] += 0.125 if step <= 60 else 0.5
        return 1.0

    monkeypatch.setattr(train, "time", SimpleNamespace(monotonic=lambda: now[0]))
    done: list[tuple[int, int]] = []
    hooks = {"on_step": lambda *step: done.append(step)}
    recorder, training = recorded(digits, Recipe(epochs=3, batch_size=10), hooks, answers=pass_time)
    lengths = [[last - first for first, last in calls] for calls in recorder.calls]
    assert lengths == [[1, 4, 8, 8, 8, 1], [8, 8, 8, 6], [8, *[2] * 11]]
    for calls in recorder.calls:
        assert (calls[0][0], calls[-1][1]) == (0, 30)
        assert all(one[1] == other[0] for one, other in pairwise(calls))
    ends = [epoch * 30 + last for epoch, calls in enumerate(recorder.calls) for _, last in calls]
    assert done == [(end, 90) for end in ends]
    assert [epoch.seconds for epoch in training.history] == [30 / 8, 30 / 8, 30 / 2]


# --- how it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_trial_where_it_came(value: float, digits: Dataset, recorded: Any) -> None:
    with pytest.raises(TrialOver) as caught:
        recorded(digits, Recipe(epochs=3, batch_size=100), answers=lambda step: value if step == 5 else 1.0)
    assert caught.value.outcome == "diverged"
    assert caught.value.reason.startswith(f"the loss became {value} in epoch 2, by step ")


@pytest.mark.parametrize(("ema", "val_losses"), [(0.0, (1.0, math.nan)), (0.9, (1.0, 1.0, 1.0, math.nan))])
def test_a_validation_loss_that_is_not_finite_ends_the_trial(
    ema: float, val_losses: tuple[float, ...], digits: Dataset, recorded: Any
) -> None:
    with pytest.raises(TrialOver, match=r"the validation loss became nan in epoch 2, by step 3") as caught:
        recorded(digits, Recipe(epochs=3, batch_size=100, ema=ema), val_losses=val_losses)
    assert caught.value.outcome == "diverged"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_never_the_best(
    value: float, digits: Dataset, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An infinite variance in batch normalisation makes every activation 0, and every figure finite."""
    weights = [np.ones(3, np.float32), np.array([1, value, 1], np.float32), np.zeros((0,), np.float32)]
    monkeypatch.setattr(Recorder, "weights", lambda self, averaged: weights)
    with pytest.raises(TrialOver, match=r"the largest weight became (nan|inf) in epoch 1") as caught:
        recorded(digits, Recipe(epochs=3))
    assert caught.value.outcome == "diverged"


@pytest.mark.parametrize("normalised", [False, True])
def test_a_learning_rate_of_a_billion_diverges(normalised: bool, digits: Dataset) -> None:
    layers = [layer for _ in range(4) for layer in (Conv(8), *([BatchNorm()] if normalised else []), Activation("relu"))]
    deep = Architecture((8, 8, 1), 10, (*layers, GlobalAveragePool(), Dense(10), Softmax()))
    with pytest.raises(TrialOver) as caught:
        trained(digits, Recipe(epochs=9, batch_size=50, learning_rate=1e9, optimizer="sgd"), deep)
    assert caught.value.outcome == "diverged"


def test_memory_that_ran_out_ends_the_trial(digits: Dataset, recorded: Any) -> None:
    def exhaust(step: int) -> float:
        raise MemoryError

    with pytest.raises(TrialOver, match=r"out of memory at batch size 100") as caught:
        recorded(digits, Recipe(epochs=1, batch_size=100), answers=exhaust)
    assert caught.value.outcome == "out_of_memory"


def test_memory_that_runs_out_while_compiling_ends_the_trial(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(*words: Any, **named: Any) -> Any:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")  # so says XLA

    monkeypatch.setattr(train, "open_engine", exhaust)
    with pytest.raises(TrialOver) as caught:
        trained(digits, Recipe(epochs=1))
    assert caught.value.outcome == "out_of_memory"


def test_tensorflow_saying_that_memory_ran_out_ends_the_trial(digits: Dataset, recorded: Any) -> None:
    import tensorflow as tf

    def exhaust(step: int) -> float:
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    with pytest.raises(TrialOver) as caught:
        recorded(digits, Recipe(epochs=1, batch_size=100), answers=exhaust)
    assert caught.value.outcome == "out_of_memory"


def test_any_other_error_is_not_hidden(digits: Dataset, recorded: Any) -> None:
    def fail(step: int) -> float:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        recorded(digits, Recipe(epochs=1), answers=fail)


@pytest.mark.parametrize("is_asked", [True, False])
def test_deterministic_kernels_are_chosen_if_the_recipe_says_so(
    is_asked: bool, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[bool]()
    monkeypatch.setattr(train, "set_deterministic", lambda: calls.append(True))
    recipe = Recipe(deterministic=is_asked)
    monkeypatch.setattr("search.training.engine.tensorflow.TensorFlowEngine", lambda *_, **__: None)
    train.open_engine(LINEAR, digits, recipe, pixels_of(digits, recipe), seed=0, dtype="float32")
    assert calls == [True] * is_asked
