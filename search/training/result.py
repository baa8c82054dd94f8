"""Result types and errors of a training, independent of the backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from search.data.preprocessing import Pixels
from search.errors import ControlFlow

Weights = tuple[npt.NDArray[np.float32], ...]


class Outcome(StrEnum):
    """Outcome of a trial; the values are stored with the trial and shown to users."""

    TRAINED = "trained"  # for all its epochs
    PRUNED_AT_RUNG = "pruned_at_rung"  # worse than others after the same epochs
    REJECTED = "rejected"  # never built: over budget, impossible, or known already
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # replaced by a retry of the same index
    LOST = "lost"  # no heartbeat; stored as interrupted where it is retried, else as failed
    RUNNING = "running"  # has not ended; never stored


class TrialOver(ControlFlow):
    """Ends this trial with an outcome and its reason; the run continues with the next."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


OUT_OF_MEMORY = (  # parts of the messages of TensorFlow, JAX and CUDA's libraries
    *("resourceexhausted", "resource_exhausted", "out of memory", "out_of_memory", "oom when allocating"),
    *("alloc_failed", "allocation_failed", "failed to allocate", "cannot allocate memory"),
)


@contextmanager
def memory_ends_the_trial(batch_size: int) -> Iterator[None]:
    """End the trial if memory of the host or of the device runs out inside the block.

    Raises:
        TrialOver: it ran out.
    """
    try:
        yield
    except Exception as error:
        message = f"{type(error).__name__} {error}".lower()
        if isinstance(error, MemoryError) or any(part in message for part in OUT_OF_MEMORY):
            raise TrialOver(Outcome.OUT_OF_MEMORY, f"out of memory at batch size {batch_size}") from error
        raise


@dataclass(frozen=True, slots=True)
class Epoch:
    """One row of a training log; the learning rate is that of the epoch's last step.

    Accuracies are fractions. Loss and accuracy are means over the epoch's images, while the weights change. With a moving
    average in the recipe the validation figures are those of the average, and the `raw_` ones those of the weights. The last
    four are measured where a study ranks by another measure than accuracy (`search.training.measures`), else None.
    """

    epoch: int  # from 1
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float
    raw_val_loss: float | None = None
    raw_val_accuracy: float | None = None
    val_balanced_accuracy: float | None = None
    val_macro_f1: float | None = None
    raw_val_balanced_accuracy: float | None = None
    raw_val_macro_f1: float | None = None

    def score(self, metric: str) -> float:
        """The validation figure of a measure that was asked for, by which epochs are compared."""
        return float(getattr(self, log_key(metric)))

    def to_dict(self) -> dict[str, Any]:
        """The fields as a row of a log, without measures that were not asked for."""
        row = asdict(self)
        absent = [key for key in _OTHER_MEASURES if row[key] is None]
        return {key: value for key, value in row.items() if key not in absent}


def log_key(metric: str) -> str:
    """The field of `Epoch`, and of a row of a log, that holds a measure on the validation images."""
    return f"val_{metric}"


_OTHER_MEASURES = ("val_balanced_accuracy", "val_macro_f1", "raw_val_balanced_accuracy", "raw_val_macro_f1")


@dataclass(frozen=True, slots=True)
class Training:
    """A finished training: its log, and the weights of the epoch with the best value of the study's measure."""

    history: tuple[Epoch, ...]
    best: Epoch
    best_weights: Weights
    pixels: Pixels
    precision: str  # Keras dtype policy of compute
    compile_seconds: float
    checkpoint_seconds: float
    confusion: npt.NDArray[np.int64] | None = None  # of the best epoch on the validation images, where it was asked for
    folds: tuple[tuple[Epoch, ...], ...] = ()  # log of each fold, where `history` is their mean (`search.training.folds`)

    @property
    def epochs(self) -> int:
        """Number of epochs trained, of all folds."""
        return sum(map(len, self.folds)) if self.folds else len(self.history)

    @property
    def seconds(self) -> float:
        """Duration of the training with compilation and checkpoints."""
        return self.compile_seconds + self.checkpoint_seconds + sum(epoch.seconds for epoch in self.history)
