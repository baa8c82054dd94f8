"""Protocol of a trainer, and its implementation with Keras; importing it does not load Keras."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from search.data.dataset import Dataset
from search.networks.architecture import Architecture
from search.training.device import backend, dtype_policy, prepare_device
from search.training.recipe import Recipe
from search.training.result import Epoch, Training


class Trainer(Protocol):
    """Trains networks in this process: Keras, or a stand-in for tests and benchmarks."""

    def prepare(self) -> str:
        """Set up the process before its first training; describe the device in one line."""

    def policy(self, precision: str) -> str:
        """Keras' dtype policy of a recipe's precision in this process, once it is prepared."""

    def fit(
        self,
        architecture: Architecture,
        data: Dataset,
        recipe: Recipe,
        *,
        seed: int,
        metric: str,
        checkpoint: Path,
        on_epoch: Callable[[Epoch], bool],
        on_step: Callable[[int, int], None],
    ) -> Training:
        """Train a network; the arguments are those of `search.training.train.fit`."""


class KerasTrainer:
    """Trains with Keras on its configured backend, which is loaded by the first call.

    Raises:
        UserError: there is no engine on the backend; nothing has been stored yet.
    """

    def __init__(self) -> None:
        backend()

    def prepare(self) -> str:
        return prepare_device().description

    def policy(self, precision: str) -> str:
        return dtype_policy(precision)

    def fit(
        self,
        architecture: Architecture,
        data: Dataset,
        recipe: Recipe,
        *,
        seed: int,
        metric: str,
        checkpoint: Path,
        on_epoch: Callable[[Epoch], bool],
        on_step: Callable[[int, int], None],
    ) -> Training:
        from search.training import train

        return train.fit(
            architecture,
            data,
            recipe,
            seed=seed,
            metric=metric,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            on_step=on_step,
        )
