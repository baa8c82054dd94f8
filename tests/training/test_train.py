"""One training: that it learns, that its seed decides it, what its log and weights hold, and how it can end."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from search.data.dataset import Dataset, channel_statistics, load_dataset
from search.networks.architecture import Architecture
from search.networks.layers import (
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
from search.training import train
from search.training.engine.base import Evaluation, Sums, optimizer_of
from search.training.engine.epoch import EpochPlan, plan_epoch
from search.training.measures import confusion_matrix, measure_all
from search.training.model import build
from search.training.recipe import Augment, Linear, Plateau, Recipe
from search.training.train import Epoch, Training, TrialOver, fit, pixels_of

ROOT = Path(__file__).parents[2]
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
STILL: dict[str, Any] = {"learning_rate": 1e-12, "optimizer": "sgd", "epochs": 1}  # the weights stay as they begin
Arrays = list[npt.NDArray[np.float32]]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", None, protocol="holdout", holdout=0.1, images=300)


def trained(data: Dataset, recipe: Recipe, network: Architecture = LINEAR, **rest: Any) -> Training:
    return fit(network, data, recipe, seed=0, **rest)


def same(training: Training, other: Training) -> bool:
    """To the bit, but for the time that it took."""
    figures = [[asdict(epoch) | {"seconds": 0} for epoch in one.history] for one in (training, other)]
    weights = [[weight.tobytes() for weight in one.best_weights] for one in (training, other)]
    return figures[0] == figures[1] and weights[0] == weights[1] and training.best.epoch == other.best.epoch


def measured(network: Architecture, weights: Any, data: Dataset, recipe: Recipe, images: str = "val") -> tuple[float, float]:
    """Mean loss and accuracy of a standard Keras model with these weights."""
    model = build(network)
    model.set_weights(list(weights))
    x, y = (data.x_val, data.y_val) if images == "val" else (data.x_train, data.y_train)
    probabilities = model.predict(pixels_of(data, recipe).apply(x), verbose=0)
    smoothing = recipe.label_smoothing
    targets = np.eye(data.classes)[y] * (1 - smoothing) + smoothing / data.classes
    return -(targets * np.log(probabilities)).sum(axis=1).mean(), np.mean(probabilities.argmax(axis=1) == y)


class Recorder:
    """Stand-in for an engine: keeps its arguments, and answers as configured."""

    def __init__(
        self, answers: Callable[[int], float] = lambda step: 1.0, val_losses: Any = (), accuracies: Any = ()
    ) -> None:
        self.answers, self.val_losses, self.accuracies = answers, list(val_losses), list(accuracies)
        self.compile_seconds = 0.0
        self.plans: list[EpochPlan] = []
        self.calls: list[list[tuple[int, int]]] = []  # of each epoch
        self.steps = 0

    def begin(self, plan: EpochPlan) -> None:
        self.plans.append(plan)
        self.calls.append([])
        self.loss = 0.0

    def train(self, first: int, last: int) -> Sums:
        self.calls[-1].append((first, last))
        for _ in range(first, last):
            self.steps += 1
            self.loss += self.answers(self.steps)
        return Sums(self.loss, 0.5 * self.loss)

    def evaluate(self, *, averaged: bool = False) -> Evaluation:
        loss = self.val_losses.pop(0) if self.val_losses else 1.0
        return Evaluation(loss, self.accuracies.pop(0) if self.accuracies else 0.5)

    def weights(self, *, averaged: bool = False) -> Arrays:
        return [np.array([len(self.plans), averaged], np.float32)]

    @property
    def rates(self) -> Arrays:
        return [plan.rates for plan in self.plans]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Recorder, Training]]:
    def run(data: Dataset, recipe: Recipe, hooks: dict[str, Any] | None = None, **answers: Any) -> tuple[Recorder, Training]:
        recorder = Recorder(**answers)
        monkeypatch.setattr(train, "open_engine", lambda *words, **named: recorder)
        return recorder, trained(data, recipe, **(hooks or {}))

    return run


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The real engines that trainings open."""
    engines: list[Any] = []
    real = train.open_engine

    def keep(*words: Any, **named: Any) -> Any:
        engines.append(real(*words, **named))
        return engines[-1]

    monkeypatch.setattr(train, "open_engine", keep)
    return engines


@pytest.fixture
def followed(opened: list[Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Training, list[Arrays]]]:
    """Trains step by step; the weights before the first and after each."""

    def run(data: Dataset, recipe: Recipe, network: Architecture = LINEAR) -> tuple[Training, list[Arrays]]:
        monkeypatch.setattr(train, "CALL_SECONDS", 0.0)
        steps = [build(network, seed=0).get_weights()]
        training = trained(data, recipe, network, on_step=lambda *step: steps.append(opened[-1].weights()))
        return training, steps

    return run


# --- it learns, the same each time -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_loss_falls_and_most_digits_are_told_apart(digits: Dataset) -> None:
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
from tests.training.test_train import SMALL
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
def test_a_training_goes_on_where_on_epoch_says_nothing(said: Any, digits: Dataset, recorded: Any) -> None:
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


@pytest.mark.slow
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


# --- what the network is fed -----------------------------------------------------------------------------------------


def test_an_engine_gets_the_plan_of_each_epoch(digits: Dataset, recorded: Any) -> None:
    recipe = Recipe.model_validate(
        {
            "epochs": 3,
            "batch_size": 100,
            "schedule": {"kind": "cosine"},
            "augment": {"passes": 2, "flip": "alternating", "mixup": 0.2},
        }
    )
    recorder, training = recorded(digits, recipe)
    assert len(recorder.plans) == 3
    for number, plan in enumerate(recorder.plans):
        expected = plan_epoch(recipe, 300, 0, number)
        for name in ("order", "flipped", "rates", "shares", "seed"):
            np.testing.assert_array_equal(getattr(plan, name), getattr(expected, name))
        assert training.history[number].learning_rate == expected.rates[-1]
    assert recorder.steps == 18
    assert len(recorder.plans[0].order) == 600


VARIED = {
    "flip": Augment(flip=True),
    "alternating": Augment(flip="alternating"),
    "crop": Augment(crop=4),
    "warp": Augment(shift=0.5, zoom=0.5, rotation=90.0),
    "cutout": Augment(cutout=4),
    "mixup": Augment(mixup=1.0),
}


@pytest.fixture(scope="module")
def plain(digits: Dataset) -> Epoch:
    return trained(digits, Recipe(batch_size=64, **STILL)).history[0]


@pytest.mark.parametrize("how", VARIED)
def test_training_images_are_varied_and_validation_images_never_are(how: str, plain: Epoch, digits: Dataset) -> None:
    (epoch,) = trained(digits, Recipe(batch_size=64, augment=VARIED[how], **STILL)).history
    assert math.isfinite(epoch.loss)
    assert abs(epoch.loss - plain.loss) > 1e-3
    assert (epoch.val_loss, epoch.val_accuracy) == pytest.approx((plain.val_loss, plain.val_accuracy), rel=1e-6)


def test_another_measure_decides_on_the_best_epoch_and_changes_nothing_else(digits: Dataset, tmp_path: Path) -> None:
    kept = [place for place, label in enumerate(digits.y_val) if label not in (1, 2, 3) or place % 3 == 0]
    data = replace(digits, x_val=digits.x_val[kept], y_val=digits.y_val[kept])
    recipe = Recipe(epochs=6, batch_size=32, learning_rate=0.03, class_weights="balanced", ema=0.5)

    def stop(epoch: Epoch) -> None:
        if epoch.epoch == 4:
            raise InterruptedError

    plain = trained(data, recipe)
    whole = trained(data, recipe, metric="macro_f1")
    with pytest.raises(InterruptedError):
        trained(data, recipe, metric="macro_f1", checkpoint=tmp_path / "a.npz", on_epoch=stop)
    resumed = trained(data, recipe, metric="macro_f1", checkpoint=tmp_path / "a.npz")
    assert same(whole, resumed) and plain.confusion is None
    for training in (whole, resumed):
        assert training.best.val_macro_f1 == max(epoch.score("macro_f1") for epoch in training.history)
        given = (LINEAR, training.best_weights, training.pixels, data.x_val, data.y_val)
        assert np.array_equal(training.confusion, train.confusion_of(*given))
        assert measure_all(train.confusion_of(*given)) == {
            name: training.best.score(name) for name in ("accuracy", "balanced_accuracy", "macro_f1")
        }
        assert all(epoch.raw_val_macro_f1 is not None for epoch in training.history)
    others = ("val_balanced_accuracy", "val_macro_f1", "raw_val_balanced_accuracy", "raw_val_macro_f1")
    for one, other in zip(plain.history, whole.history, strict=True):
        assert not set(others) & one.to_dict().keys()
        assert one.to_dict() | {"seconds": 0} == {key: other.to_dict()[key] for key in one.to_dict()} | {"seconds": 0}


def test_accuracy_with_flip_averaging_is_that_of_the_mean_probabilities(digits: Dataset) -> None:
    recipe = Recipe(epochs=3, batch_size=32, learning_rate=0.01, normalize=True)
    training, images, labels = trained(digits, recipe), digits.x_test, digits.y_test
    assert images is not None and labels is not None
    model = build(LINEAR)
    model.set_weights(list(training.best_weights))
    seen = [np.asarray(model(training.pixels.apply(one), training=False)) for one in (images, images[:, :, ::-1])]
    given = (LINEAR, training.best_weights, training.pixels, images, labels)
    for averaged, probabilities in ((False, seen[0]), (True, (seen[0] + seen[1]) / 2)):
        confusion = train.confusion_of(*given, flip_average=averaged)
        assert np.array_equal(confusion, confusion_matrix(labels, probabilities.argmax(-1), 10))
    assert np.trace(train.confusion_of(*given)) != np.trace(train.confusion_of(*given, flip_average=True))


def test_a_recipe_that_normalises_does_so_by_the_training_images_alone(digits: Dataset) -> None:
    shifted = replace(digits, x_val=np.full_like(digits.x_val, 255))
    recipe = Recipe(batch_size=64, normalize=True, **STILL)
    training = trained(shifted, recipe)
    mean, std = channel_statistics(digits.x_train)
    assert training.pixels.mean == pytest.approx(mean.tolist())
    assert training.pixels.std == pytest.approx(std.tolist())
    first = build(LINEAR, seed=0).get_weights()
    assert training.best.val_loss == pytest.approx(measured(LINEAR, first, shifted, recipe)[0], rel=1e-4)
    assert training.best.loss == pytest.approx(measured(LINEAR, first, shifted, recipe, "train")[0], rel=1e-4)
    assert pixels_of(digits, Recipe()).mean == ()


# --- optimizer, schedule, loss ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_each_optimizer_runs(optimizer: str, decay: float, digits: Dataset, opened: list[Any]) -> None:
    recipe = Recipe.model_validate(
        {"epochs": 2, "batch_size": 100, "optimizer": optimizer, "weight_decay": decay, "learning_rate": 0.05}
    )
    training = trained(digits, recipe)
    assert training.history[1].loss < training.history[0].loss
    assert type(opened[0].optimizer).__name__.lower() == optimizer
    assert float(opened[0].optimizer.weight_decay or 0) == pytest.approx(decay)


def test_the_rate_of_each_step_reaches_the_weights(digits: Dataset, followed: Any) -> None:
    """Plain gradient descent with clipped gradients that are all longer: each step is as long as its rate."""
    plain = {"epochs": 2, "batch_size": 100, "optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.5, "clip_norm": 1e-3}
    _, steps = followed(digits, Recipe.model_validate(plain | {"schedule": {"kind": "linear", "warmup": 0.5}}))
    expected = [0.5 * share * 1e-3 for share in (1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3)]
    assert [length(after, before) for before, after in pairwise(steps)] == pytest.approx(expected, rel=1e-2)


def test_clipping_bounds_the_gradient_over_all_weights_together(digits: Dataset, followed: Any) -> None:
    """The bound is between the lengths that gradients have without it, so that some are clipped and some are not."""
    plain = Recipe(epochs=4, batch_size=50, optimizer="sgd", momentum=0.0, learning_rate=0.5)
    free = [length(after, before) / 0.5 for before, after in pairwise(followed(digits, plain)[1])]
    bound = sorted(free)[len(free) // 2]
    _, steps = followed(digits, plain.model_copy(update={"clip_norm": bound}))
    clipped = [length(after, before) / 0.5 for before, after in pairwise(steps)]
    assert max(clipped) <= bound * (1 + 1e-4)
    assert 0 < sum(one > bound * (1 - 1e-4) for one in clipped) < len(clipped)
    assert max(free) > 1.05 * bound


def length(weights: Arrays, others: Arrays) -> float:
    return math.sqrt(sum(float(np.square(one - other).sum()) for one, other in zip(weights, others, strict=True)))


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
    patience: int, val_losses: tuple[float, ...], cuts: tuple[int, ...], digits: Dataset, recorded: Any
) -> None:
    """`cuts`: how many have been made when each epoch begins."""
    schedule = Plateau(factor=0.1, patience=patience)
    recipe = Recipe(epochs=len(val_losses), batch_size=150, learning_rate=1.0, schedule=schedule)
    recorder, training = recorded(digits, recipe, val_losses=tuple(map(float, val_losses)))
    expected = 0.1 ** np.array(cuts, float)
    np.testing.assert_allclose(recorder.rates, np.stack([expected, expected], axis=1), rtol=1e-6)
    assert [epoch.learning_rate for epoch in training.history] == pytest.approx(expected.tolist(), rel=1e-6)


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
    model, keras_own = build(DECAYED, seed=0), optimizer_of(recipe)
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, 2.0, np.float32))
    keras_own.build(model.trainable_variables)
    keras_own.apply([keras.ops.zeros(variable.shape) for variable in model.trainable_variables])
    shrunk = {variable.path: float(np.max(variable.numpy())) for variable in model.trainable_variables}
    kernels = {path for path in shrunk if path.endswith("kernel")}
    assert {path.rsplit("/", 1)[-1] for path in shrunk.keys() - kernels} == {"bias", "gamma", "beta"}
    assert len(kernels) == 4
    for path, value in shrunk.items():
        assert value == pytest.approx(2.0 * (1 - 0.5 * 0.1) if path in kernels else 2.0), path


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_are_smoothed_in_the_loss(smoothing: float, digits: Dataset) -> None:
    recipe = Recipe(batch_size=300, label_smoothing=smoothing, **STILL)
    (epoch,) = trained(digits, recipe).history
    first = build(LINEAR, seed=0).get_weights()
    assert epoch.loss == pytest.approx(measured(LINEAR, first, digits, recipe, "train")[0], rel=1e-4)
    assert epoch.val_loss == pytest.approx(measured(LINEAR, first, digits, recipe)[0], rel=1e-4)


# --- average and precision -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_average_of_the_weights_is_what_is_ranked_and_kept(digits: Dataset, followed: Any) -> None:
    """Against the average of the weights as each step left them, batch normalisation's statistics among them."""
    recipe = Recipe(epochs=3, batch_size=32, learning_rate=0.01, ema=0.6)  # reached after 14 of 30 steps
    training, (average, *steps) = followed(digits, recipe, SMALL)
    ends = []
    for done, weights in enumerate(steps, 1):
        decay = min(0.6, done / (done + 9))
        average = [decay * old + (1 - decay) * new for old, new in zip(average, weights, strict=True)]
        if done % 10 == 0:
            ends.append((average, weights))
    assert len(ends) == 3
    kept, raw = ends[training.best.epoch - 1]
    for ours, expected, apart in zip(training.best_weights, kept, raw, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)
        assert np.abs(apart - expected).max() > 1e-4
    for epoch, (averaged, weights) in zip(training.history, ends, strict=True):
        assert (epoch.val_loss, epoch.val_accuracy) == pytest.approx(measured(SMALL, averaged, digits, recipe), rel=1e-3)
        assert (epoch.raw_val_loss, epoch.raw_val_accuracy) == pytest.approx(
            measured(SMALL, weights, digits, recipe), rel=1e-3
        )


def test_the_average_decides_best_and_plateau_and_not_the_raw_weights(digits: Dataset, recorded: Any) -> None:
    """Figures of raw and average in turn."""
    recipe = Recipe(epochs=3, batch_size=300, learning_rate=1.0, ema=0.9, schedule=Plateau(factor=0.1, patience=1))
    recorder, training = recorded(digits, recipe, val_losses=(1, 9, 2, 8, 1, 8), accuracies=(0.9, 0.1, 0.2, 0.3, 0.1, 0.2))
    assert [epoch.val_loss for epoch in training.history] == [9, 8, 8]
    assert [epoch.raw_val_loss for epoch in training.history] == [1, 2, 1]
    assert [epoch.raw_val_accuracy for epoch in training.history] == [0.9, 0.2, 0.1]
    assert training.best == training.history[1]
    assert training.best_weights[0].tolist() == [2, 1]
    assert np.concatenate(recorder.rates).tolist() == [1, 1, 1]


def test_bfloat16_computes_narrow_and_keeps_float32(digits: Dataset) -> None:
    wide, narrow = (
        trained(digits, Recipe(epochs=2, batch_size=50, learning_rate=0.01, precision=precision), SMALL)  # type: ignore[arg-type]
        for precision in ("float32", "bfloat16")
    )
    assert (wide.precision, narrow.precision) == ("float32", "mixed_bfloat16")
    assert {weight.dtype for weight in narrow.best_weights} == {np.dtype(np.float32)}
    for ours, theirs in zip(narrow.history, wide.history, strict=True):
        assert math.isfinite(ours.loss)
        assert ours.loss != theirs.loss
        assert ours.loss == pytest.approx(theirs.loss, rel=0.05)


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
