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
from search.tuning.learning_curves import forecast, pairs_at

UNTRAINABLE = (Outcome.DIVERGED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY)


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


def observe(config: StudyConfig, trials: Sequence[FrozenTrial], own: int | None) -> Observations:
    """The observations among these trials.

    A network that diverged, ran out of memory or took too long counts as the worst accuracy that was measured. Queued trials
    that have all parameters are in progress too.

    Args:
        own: number of the trial that is proposed, which is left out; None if there is none.
    """
    others = [trial for trial in trials if trial.number != own]
    known = list(_complete(config, others))
    trained = [
        Observation(trial.number, values, trial.values[0])
        for trial, values in known
        if trial.state == TrialState.COMPLETE and trial.values
    ]
    pruned = [
        (trial, values)
        for trial, values in known
        if trial.state == TrialState.PRUNED and trial.user_attrs.get(OUTCOME) == Outcome.PRUNED_AT_RUNG
    ]
    ended = list(trained)
    for trial, values in pruned:
        if trial.intermediate_values:
            epoch = max(trial.intermediate_values)
            mean, variance = forecast(trial.intermediate_values[epoch], pairs_at(epoch, others))
            ended.append(Observation(trial.number, values, float(mean), float(variance), is_final=False))
    lowest = min((observation.accuracy for observation in ended), default=0.0)
    for trial, values in known:
        if trial.state.is_finished() and trial.user_attrs.get(OUTCOME) in UNTRAINABLE:
            ended.append(Observation(trial.number, values, lowest, is_final=False))
    ended.sort(key=lambda observation: observation.number)
    pending = [values for trial, values in known if not trial.state.is_finished()]
    return Observations(tuple(ended), tuple(pending))


def _complete(config: StudyConfig, trials: Sequence[FrozenTrial]) -> Iterator[tuple[FrozenTrial, Mapping[str, Value]]]:
    """Trials that have a value for every parameter, sampled or queued, with these values."""
    for trial in trials:
        values = config.declared(trial.system_attrs.get("fixed_params", {}) | trial.params)
        if values.keys() == config.parameters.keys():
            yield trial, {name: values[name] for name in config.parameters}
