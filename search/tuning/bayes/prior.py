"""Prior of a study: trends of accuracy over networks, learnt from the trials of other studies.

A trend is the posterior mean of a Gaussian process that is fitted to the trials of another study, standardised within that
study: only its order and proportions matter, so that other data, epochs and measures may have other accuracies. Its
coefficient in the new study is a part of the surrogate there (`search.tuning.bayes.surrogate`), so that trials that
contradict it take its weight away.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from search.study import study_file
from search.tuning.bayes.candidates import Candidates
from search.tuning.bayes.features import Features
from search.tuning.bayes.observations import Observation
from search.tuning.bayes.surrogate import Array, Scaling, Surrogate
from search.tuning.candidate import DataFacts

LEAST_TRIALS = 8  # of a study that a trend is fitted to
MOST_TRIALS = 300  # of a study, evenly taken of more, as each proposal's time grows with them


@dataclass(frozen=True)
class PriorStudy:
    """The observations of another study, complete in itself, so that they can be stored with the study that uses them.

    Attributes:
        run: short name of its run.
        config: its configuration as plain JSON values.
        data: facts of its images, as `search.study.dataset.data_facts` stores them.
    """

    run: str
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    observations: tuple[Observation, ...]

    def to_dict(self) -> dict[str, Any]:
        """The observations as plain JSON values."""
        names = list(self.observations[0].values) if self.observations else []
        trials = [
            [entry.number, [entry.values[name] for name in names], entry.accuracy, entry.variance, entry.is_final]
            for entry in self.observations
        ]
        return {"run": self.run, "config": dict(self.config), "data": dict(self.data), "parameters": names, "trials": trials}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> PriorStudy:
        """The observations that `to_dict` wrote."""
        names = plain["parameters"]
        observations = tuple(
            Observation(number, dict(zip(names, values, strict=True)), accuracy, variance, is_final)
            for number, values, accuracy, variance, is_final in plain["trials"]
        )
        return cls(plain["run"], plain["config"], plain["data"], observations)

    def sample(self) -> tuple[list[Features], Array, Array]:
        """Features, accuracies and variances of the trials whose networks can be built, MOST_TRIALS at most."""
        config = study_file.parse(self.config, f"prior {self.run}")
        images = (self.data.get("images") or {}).get("training")
        facts = DataFacts(tuple(self.data["input"]), self.data["classes"], self.data["fingerprint"], images)
        candidates = Candidates(config, facts, random.Random(0), {})
        last = len(self.observations) - 1
        chosen = np.linspace(0, last, min(last + 1, MOST_TRIALS)).round().astype(int)
        pairs = [(self.observations[index], candidates.observed(self.observations[index].values)) for index in chosen]
        built = [(observation, point.features) for observation, point in pairs if point is not None]
        accuracies = np.array([observation.accuracy for observation, _ in built])
        variances = np.array([observation.variance for observation, _ in built])
        return [features for _, features in built], accuracies, variances


@dataclass(frozen=True)
class Trend:
    """Knowledge of one study: its surrogate, and the share of its trials' variance that this explains."""

    run: str
    trials: int
    explained: float
    surrogate: Surrogate | None  # None where it explains nothing, or the trials are too few

    @classmethod
    def of(cls, run: str, features: Sequence[Features], accuracies: Array, variances: Array | None = None) -> Trend:
        """Fit the trend of a study's trials."""
        if len(features) < LEAST_TRIALS:
            return cls(run, len(features), 0.0, None)
        scaling = Scaling.of(features)
        surrogate = Surrogate(scaling, scaling(features), accuracies, variances)
        explained = surrogate.explained()
        return cls(run, len(features), explained, surrogate if surrogate.is_informative else None)

    @property
    def text(self) -> str:
        """The trend in words."""
        if self.surrogate is None:
            why = f"fewer than {LEAST_TRIALS}" if self.trials < LEAST_TRIALS else "which show no pattern"
            return f"{self.run} ({self.trials} trials, {why}: not used)"
        return f"{self.run} ({self.trials} trials, {self.explained:.0%} of their variance explained)"


class Prior:
    """The trends of the studies that a study names in `search.prior`; fitted when they are first needed.

    Args:
        sources: studies, or trends that are fitted already.
    """

    def __init__(self, sources: Sequence[PriorStudy | Trend]) -> None:
        self._sources = tuple(sources)

    @cached_property
    def fitted(self) -> tuple[Trend, ...]:
        """A trend for each study, those that are not used included."""
        return tuple(
            source if isinstance(source, Trend) else Trend.of(source.run, *source.sample()) for source in self._sources
        )

    @property
    def text(self) -> str:
        """The prior in a line."""
        return f"Prior: {'; '.join(trend.text for trend in self.fitted)}."

    @property
    def runs(self) -> list[str]:
        """Names of the runs whose trends are used."""
        return [run for run, _ in self._used]

    @property
    def deviation(self) -> float:
        """Standard deviation of the accuracies of the studies, on average."""
        return float(np.mean([surrogate.deviation for _, surrogate in self._used]))

    def trends(self, features: Sequence[Features]) -> Array:
        """Standardised accuracy that each study predicts of networks, shape (len(features), len(runs))."""
        columns = [surrogate.standardised_mean(surrogate.scaling(features)) for _, surrogate in self._used]
        return np.array(columns).reshape(len(self._used), len(features)).T

    @property
    def _used(self) -> list[tuple[str, Surrogate]]:
        return [(trend.run, trend.surrogate) for trend in self.fitted if trend.surrogate is not None]
