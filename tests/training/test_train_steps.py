"""Inputs of the network in a training, and the change of its weights by each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from search.data.dataset import Dataset, channel_statistics
from search.networks.architecture import Architecture
from search.networks.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    SeparableConv,
    Softmax,
)
from search.training import train
from search.training.engine.base import optimizer_of
from search.training.engine.epoch import plan_epoch
from search.training.measures import confusion_matrix, measure_all
from search.training.model import build
from search.training.recipe import Augment, Plateau, Recipe
from search.training.train import Epoch, Training, pixels_of
from tests.support.trainings import LINEAR, SMALL, STILL, Arrays, digits, measured, opened, recorded, same, trained

__all__ = ["digits", "opened", "recorded"]


@pytest.fixture
def followed(opened: list[Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Training, list[Arrays]]]:
    """Trains step by step; the weights before the first and after each."""

    def run(data: Dataset, recipe: Recipe, network: Architecture = LINEAR) -> tuple[Training, list[Arrays]]:
        monkeypatch.setattr(train, "CALL_SECONDS", 0.0)
        steps = [build(network, seed=0).get_weights()]
        training = trained(data, recipe, network, on_step=lambda *step: steps.append(opened[-1].weights()))
        return training, steps

    return run


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
