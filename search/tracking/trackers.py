"""Observers that copy trials into trackers; a tracker that fails is dropped and never touches a training."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import optuna

from objective import Observer
from search.errors import reason
from search.networks.architecture import Architecture
from search.storage import attributes as names
from search.study.tables import LogConfig
from search.training.result import Epoch

SCORES = (names.BEST_VAL_ACCURACY, names.FINAL_VAL_ACCURACY, names.BEST_EPOCH, names.SECONDS, names.DELTA_VS_BASE)


class Tracker(Protocol):
    """Records of one trial at a time, in the order begin, epoch, ..., end."""

    def begin(self, name: str, parameters: Mapping[str, Any]) -> None:
        """A trial of this name starts, with its sampled parameters and costs."""

    def epoch(self, step: int, values: Mapping[str, float]) -> None:
        """The values of an epoch, numbered from 1."""

    def end(self, outcome: str, scores: Mapping[str, float]) -> None:
        """The trial has ended."""


class TrackerObserver(Observer):
    """Passes the progress of trials to a tracker, until one of its calls fails; then it is dropped with a line in the log.

    Args:
        name: of the tracker, for that line.
        open_tracker: makes it, at the first trial.
    """

    def __init__(self, name: str, open_tracker: Callable[[], Tracker]) -> None:
        self.name, self._open = name, open_tracker
        self._tracker: Tracker | None = None
        self.is_dropped = False

    def trial_started(self, trial: optuna.Trial) -> None:
        if self.is_dropped:
            return
        with self._guard():
            self._tracker = self._tracker or self._open()
            self._tracker.begin(trial_name(trial), {**trial.params, **_costs(trial.user_attrs)})

    def step_done(self, trial: optuna.Trial, step: int, steps: int) -> None:
        """Nothing: trackers receive whole epochs."""

    def trial_reassigned(self, trial: optuna.Trial) -> None:
        """Nothing: the trial continues in another worker, under another name."""

    def epoch_done(self, trial: optuna.Trial, epoch: Epoch, epochs: int) -> None:
        with self._guard():
            if self._tracker:
                values = epoch.to_dict()
                step = values.pop("epoch")
                self._tracker.epoch(step, {key: float(value) for key, value in values.items() if _is_number(value)})

    def trial_ended(self, trial: optuna.Trial, architecture: Architecture | None) -> None:
        with self._guard():
            attributes = trial.user_attrs
            if self._tracker and names.SEED in attributes:  # a rejected proposal never started
                scores = {key: float(attributes[key]) for key in SCORES if _is_number(attributes.get(key))}
                scores |= {f"best_epoch_{name}": value for name, value in attributes.get(names.MEASURED, {}).items()}
                self._tracker.end(str(attributes[names.OUTCOME]), scores)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.is_dropped, self._tracker = True, None
            cause = f"{type(error).__name__}: {reason(error)}"
            print(f"{self.name}: no more trials are written ({cause}); trainings continue", file=sys.stderr, flush=True)


class Observers(Observer):
    """Several observers as one, called in order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.observers = tuple(observers)

    def trial_started(self, trial: optuna.Trial) -> None:
        for observer in self.observers:
            observer.trial_started(trial)

    def step_done(self, trial: optuna.Trial, step: int, steps: int) -> None:
        for observer in self.observers:
            observer.step_done(trial, step, steps)

    def epoch_done(self, trial: optuna.Trial, epoch: Epoch, epochs: int) -> None:
        for observer in self.observers:
            observer.epoch_done(trial, epoch, epochs)

    def trial_ended(self, trial: optuna.Trial, architecture: Architecture | None) -> None:
        for observer in self.observers:
            observer.trial_ended(trial, architecture)

    def trial_reassigned(self, trial: optuna.Trial) -> None:
        for observer in self.observers:
            observer.trial_reassigned(trial)


def with_trackers(observer: Observer, log: LogConfig, study: str, folder: Path) -> Observer:
    """The observer, followed by those of the trackers that a study asks for.

    Args:
        folder: the run folder, where trackers write.
    """
    trackers = [TrackerObserver(name, _opener(name, study, folder)) for name in log.to]
    return Observers([observer, *trackers]) if trackers else observer


def trial_name(trial: optuna.Trial) -> str:
    """The name of a trial: a reference's, a finalist's with its seed, or the candidate's number."""
    attributes = trial.user_attrs
    if names.CONTENDER in attributes:
        return f"finals-{attributes[names.CONTENDER]}-{attributes[names.REPEAT]}"
    return str(attributes.get(names.REFERENCE, f"trial-{trial.number}"))


def _opener(name: str, study: str, folder: Path) -> Callable[[], Tracker]:
    def open_tracker() -> Tracker:
        if name == "tensorboard":
            from search.tracking.tensorboard import TensorBoard

            return TensorBoard(folder / "tensorboard")
        from search.tracking.mlflow import MLflow

        return MLflow(study, folder / "mlflow.db")

    return open_tracker


def _costs(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: attributes[name] for name in ("params", "macs", names.RECEPTIVE_FIELD, names.SEED) if name in attributes}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
