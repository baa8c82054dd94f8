"""Shared by the tests of checkpoint and checkpoint_file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from search.data.dataset import Dataset, load_dataset
from search.networks.architecture import Architecture
from search.networks.layers import Activation, BatchNorm, Conv, Dense, Dropout, GlobalAveragePool, SeparableConv, Softmax
from search.training import train
from search.training.engine.base import Evaluation, Sums
from search.training.engine.epoch import EpochPlan
from search.training.recipe import Augment, Plateau, Recipe
from search.training.train import Epoch, Training, fit

ROOT = Path(__file__).parents[2]
NETWORK = Architecture(
    (8, 8, 1),
    10,
    (
        *(SeparableConv(8), BatchNorm(), Activation("relu"), Dropout(0.2)),
        *(Conv(8, use_bias=True), BatchNorm(), GlobalAveragePool(), Dense(10), Softmax()),
    ),
)


EVERYTHING = Recipe(  # that has a state of its own
    epochs=4,
    batch_size=32,
    learning_rate=0.05,
    ema=0.9,
    schedule=Plateau(factor=0.5, patience=1),
    augment=Augment(flip="alternating", crop=1, mixup=0.2),
)


Arrays = tuple[npt.NDArray[Any], ...]


class Stopped(Exception):
    """Ends a training from its on_epoch, as a signal would."""


def digits_of(images: int) -> Dataset:
    return load_dataset("digits", None, protocol="holdout", holdout=0.1, images=images)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return digits_of(300)


def begun(run: Callable[..., Training], path: Path, epochs: int) -> list[Epoch]:
    """The first epochs of a training, after which it ends."""
    seen: list[Epoch] = []

    def stop(epoch: Epoch) -> None:
        seen.append(epoch)
        if epoch.epoch == epochs:
            raise Stopped

    with pytest.raises(Stopped):
        run(checkpoint=path, on_epoch=stop)
    return seen


class Chain:
    """Stands in for an engine: all it gives depends on all plans so far, through what `state` holds."""

    compile_seconds = 0.0

    def __init__(self, seed: int) -> None:
        self.momentum, self.steps = np.full(3, seed / 7), np.array(0)

    def begin(self, plan: EpochPlan) -> None:
        self.plan, self.loss = plan, 0.0

    def train(self, first: int, last: int) -> Sums:
        for step in range(first, last):
            seen = [*self.plan.order[:9].tolist(), *self.plan.flipped[:9].astype(int).tolist()]
            sampled = np.random.default_rng([self.plan.seed, step, *seen]).random(3)
            self.momentum = self.momentum * 0.5 + sampled * self.plan.rates[step] * self.plan.shares[step]
            self.steps = self.steps + 1
            self.loss += float(self.momentum.sum())
        return Sums(self.loss, self.loss / 100)

    def evaluate(self, *, averaged: bool = False) -> Evaluation:
        return Evaluation(float(self.momentum[int(averaged)]), float(np.sin(1e5 * self.momentum[2]) ** 2))

    def weights(self, *, averaged: bool = False) -> list[npt.NDArray[np.float32]]:
        return [self.momentum.astype(np.float32), np.float32([[averaged]])]

    def state(self) -> list[npt.NDArray[Any]]:
        return [self.momentum, self.steps]

    def restore(self, state: Arrays) -> None:
        self.momentum, self.steps = state
        assert self.steps.shape == ()


class Pretence(NamedTuple):
    run: Callable[..., Training]
    path: Path
    engines: list[Chain]


@pytest.fixture
def pretence(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretence:
    engines: list[Chain] = []

    def open_engine(*words: Any, seed: int, dtype: str, confusion: bool) -> Chain:
        engines.append(Chain(seed))
        return engines[-1]

    monkeypatch.setattr(train, "open_engine", open_engine)

    def run(
        recipe: Recipe = EVERYTHING, network: Architecture = NETWORK, data: Dataset = digits, seed: int = 10, **rest: Any
    ) -> Training:
        return fit(network, data, recipe, seed=seed, **rest)

    return Pretence(run, tmp_path / "deep" / "one.npz", engines)
