"""Observations of a study's trials for the surrogate: trained ones, forecasts of pruned ones, and those in progress."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from search.spaces.domains import Value
from search.storage.attributes import OUTCOME
from search.study.config import StudyConfig
from search.training.result import Outcome
from search.tuning.bayes.surrogate import Array

UNTRAINABLE = (Outcome.DIVERGED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY)
KNOWN = 3  # trials trained in full, from which on the accuracy at a rung is mapped by its own slope
LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class Observation:
    """A trial that the surrogate learns from.

    Attributes:
        accuracy: measured, or forecast from the last rung.
        variance: of the forecast; 0 of a measured accuracy.
        is_final: True if it was trained in full.
    """

    number: int
    values: Mapping[str, Value]
    accuracy: float
    variance: float = 0.0
    is_final: bool = True


@dataclass(frozen=True)
class Observations:
    """The observations of a study, and the parameters of trials in progress."""

    ended: tuple[Observation, ...]
    pending: tuple[Mapping[str, Value], ...]

    @property
    def accuracies(self) -> Array:
        return np.array([observation.accuracy for observation in self.ended])

    @property
    def variances(self) -> Array:
        return np.array([observation.variance for observation in self.ended])


def observe(config: StudyConfig, trials: Sequence[FrozenTrial], own: int) -> Observations:
    """The observations among these trials.

    A network that diverged, ran out of memory or took too long counts as the worst accuracy that was measured. Queued trials
    that have all parameters are in progress too.

    Args:
        own: number of the trial that is proposed, which is left out.
    """
    others = [trial for trial in trials if trial.number != own]
    trained = [
        Observation(trial.number, values, trial.values[0])
        for trial, values in _complete(config, others)
        if trial.state == TrialState.COMPLETE and trial.values
    ]
    pruned = [
        (trial, values)
        for trial, values in _complete(config, others)
        if trial.state == TrialState.PRUNED and trial.user_attrs.get(OUTCOME) == Outcome.PRUNED_AT_RUNG
    ]
    full = [trial for trial in others if trial.state == TrialState.COMPLETE and trial.values]
    ended = list(trained)
    for trial, values in pruned:
        if trial.intermediate_values:
            mean, variance = forecast(trial, full)
            ended.append(Observation(trial.number, values, mean, variance, is_final=False))
    lowest = min((observation.accuracy for observation in ended), default=0.0)
    for trial, values in _complete(config, others):
        if trial.state.is_finished() and trial.user_attrs.get(OUTCOME) in UNTRAINABLE:
            ended.append(Observation(trial.number, values, lowest, is_final=False))
    ended.sort(key=lambda observation: observation.number)
    pending = [values for trial, values in _complete(config, others) if not trial.state.is_finished()]
    return Observations(tuple(ended), tuple(pending))


def forecast(trial: FrozenTrial, full: Sequence[FrozenTrial]) -> tuple[float, float]:
    """Mean and variance of the accuracy that a trial would have reached in full, from its last epoch.

    A line through the trials in full, final accuracy over that after as many epochs; with fewer than KNOWN of them, their
    mean gain is added. Choice by the accuracy at the rung does not bias such a line, which is a function of it.
    """
    epoch = max(trial.intermediate_values)
    reached = trial.intermediate_values[epoch]
    pairs = [(other.intermediate_values[epoch], other.values[0]) for other in full if epoch in other.intermediate_values]
    if not pairs:
        return reached, 0.05**2
    early, final = np.array(pairs).T
    if len(pairs) < KNOWN or early.std() < 1e-6:
        gains = final - early
        return float(reached + gains.mean()), float(max(gains.var(), 0.03**2))
    centred = early - early.mean()
    ridge = len(pairs) * 0.02**2  # the slope is drawn towards 1 where the accuracies at the rung are alike
    slope = float((centred @ (final - final.mean()) + ridge) / (centred @ centred + ridge))
    residuals = final - final.mean() - slope * centred
    spread = float((residuals @ residuals + 0.02**2) / (len(pairs) - 1))
    distance = (reached - early.mean()) ** 2 / (centred @ centred + ridge)
    mean = float(final.mean() + slope * (reached - early.mean()))
    return mean, max(spread * (1 / len(pairs) + distance) + spread, LEAST_VARIANCE)


def _complete(config: StudyConfig, trials: Sequence[FrozenTrial]) -> Iterator[tuple[FrozenTrial, Mapping[str, Value]]]:
    """Trials that have a value for every parameter, sampled or queued, with these values."""
    for trial in trials:
        values = config.declared(trial.system_attrs.get("fixed_params", {}) | trial.params)
        if values.keys() == config.parameters.keys():
            yield trial, {name: values[name] for name in config.parameters}
