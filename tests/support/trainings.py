"""Shared by the tests of train and train_steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from search.data.dataset import Dataset, load_dataset
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
from search.training.engine.base import Evaluation, Sums
from search.training.engine.epoch import EpochPlan
from search.training.model import build
from search.training.recipe import Recipe
from search.training.train import Training, fit, pixels_of

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
