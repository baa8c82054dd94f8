"""Bayesian sampler: proposes the candidate with the largest expected improvement under a surrogate of accuracy.

The surrogate sees networks and recipes (`search.tuning.bayes.features`), not parameters. Everything is read from the study's
trials, so that a resumed study goes on as if it had not been interrupted, and randomness derives from the seed of the trial.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from search.spaces.domains import Value
from search.study.config import StudyConfig
from search.tuning.bayes.acquisition import Front, expected_improvement
from search.tuning.bayes.candidates import Candidates, Point, Values
from search.tuning.bayes.observations import Observations, observe
from search.tuning.bayes.prior import Prior
from search.tuning.bayes.surrogate import Array, Prediction, Scaling, Surrogate
from search.tuning.candidate import DataFacts

STARTUP = 8  # trials before the surrogate is asked, sampled at random
STARTUP_WITH_PRIOR = 2  # the same where other studies tell of networks, should they be wrong (`benchmarks/prior_search.py`)
PRICINGS = 250  # networks that are built to find the random candidates of a proposal
RANDOM = 100  # random candidates, at most
ROUNDS, NEIGHBOURS, PARENTS = 3, 60, 8  # of the search around the best candidates
OBSERVED_PARENTS = 4  # trained networks among the parents of the first round
NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Proposal:
    """Reason of a proposal, stored with its trial.

    Attributes:
        reason: "win" if the network is expected to beat the best one, "learn" if it may, "random" without a surrogate.
        note: why it is random.
        mean, low, high: predicted accuracy of one training with its 95 % interval.
        best: posterior mean of the best network trained so far.
        expected_gain: expected improvement over it.
        prior: weight of each prior study in the prediction, by the name of its run.
    """

    reason: str
    note: str = ""
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    best: float | None = None
    expected_gain: float | None = None
    prior: Mapping[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Attributes that are set, rounded to six decimals."""
        plain = {key: round(value, 6) if isinstance(value, float) else value for key, value in vars(self).items()}
        return {key: value for key, value in plain.items() if value not in (None, "")}


class BayesSampler(optuna.samplers.BaseSampler):
    """Samples whole networks by expected improvement; used inside `search.tuning.sampler.BudgetedSampler`.

    Each call of `sample_relative` for one trial returns the next best candidate. It returns no parameters where there is no
    further one.

    Args:
        prior: of other studies, in place of the first random trials.

    Attributes:
        proposal: the reason of what the last call returned.
    """

    def __init__(self, config: StudyConfig, data: DataFacts, *, seed: int, prior: Prior | None = None) -> None:
        self._config, self._data = config, data
        self._prior = prior if prior is not None and prior.runs else None
        self._generator = random.Random(seed)
        self._trial: int | None = None
        self._ranked: Iterator[tuple[Values, Proposal]] = iter(())
        self.proposal: Proposal | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole joint space."""
        return {name: domain.distribution() for name, domain in self._config.parameters.items()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next best candidate for this trial; empty if there is none."""
        if self._trial != trial.number:
            self._trial, self._ranked = trial.number, self._rank(study, trial)
        values, self.proposal = next(self._ranked, ({}, None))
        return values

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Sample a parameter that is no part of the space."""
        return optuna.samplers.RandomSampler(seed=self._generator.randrange(2**31)).sample_independent(
            study, trial, param_name, param_distribution
        )

    def reseed_rng(self) -> None:
        self._generator.seed()

    def _rank(self, study: optuna.Study, trial: FrozenTrial) -> Iterator[tuple[Values, Proposal]]:
        """Candidates for a trial, the best first."""
        fixed: dict[str, Value] = trial.system_attrs.get("fixed_params", {})
        candidates = Candidates(self._config, self._data, self._generator, fixed | self._config.declared(fixed))
        observations = observe(self._config, study.get_trials(deepcopy=False), trial.number)
        startup = STARTUP if self._prior is None else STARTUP_WITH_PRIOR
        if len(observations.ended) < startup:
            yield from _random(candidates, f"one of the first {startup} trials")
            return
        search = _Search(self._config, candidates, observations, self._generator, self._prior)
        if len(observations.ended) >= STARTUP and not search.is_informed:
            yield from _random(candidates, "the surrogate explains nothing yet")
            return
        yield from search.ranked()


def _random(candidates: Candidates, note: str) -> Iterator[tuple[Values, Proposal]]:
    values = candidates.random(is_alone=True)
    while values is not None:
        yield values, Proposal("random", note)
        values = candidates.random(is_alone=True)


class _Search:
    """The search for the best candidate of one proposal."""

    def __init__(
        self,
        config: StudyConfig,
        candidates: Candidates,
        observations: Observations,
        generator: random.Random,
        prior: Prior | None = None,
    ) -> None:
        self._config, self._candidates, self._generator, self._prior = config, candidates, generator, prior
        known = [candidates.observed(observation.values) for observation in observations.ended]
        kept = [index for index, point in enumerate(known) if point is not None]
        self._observed = [point for point in known if point is not None]
        self._is_final = np.array([observations.ended[index].is_final for index in kept])
        pending = [point for values in observations.pending if (point := candidates.observed(values)) is not None]
        self._pool = self._random_points()
        scaling = Scaling.of([point.features for point in (*self._observed, *self._pool)])
        x = scaling([point.features for point in self._observed])
        trends, borrowed = self._trends(self._observed), None if prior is None else prior.deviation
        surrogate = Surrogate(scaling, x, observations.accuracies[kept], observations.variances[kept], trends, borrowed)
        self.is_informed = surrogate.is_informative
        if pending:  # other workers train them: they are taken to reach what is expected (kriging believer)
            waiting = scaling([point.features for point in pending])
            expected = self._trends(pending)
            surrogate = surrogate.conditioned(waiting, surrogate.predict(waiting, expected).mean, expected)
        self._surrogate, self._scaling = surrogate, scaling
        means = surrogate.predict(x, trends).mean
        self._means = means
        self._best = float(means[self._is_final].max() if self._is_final.any() else means.max())
        self._front = None
        if config.cost_metrics:
            costs = [point.costs for point in self._observed]
            pool = [point.costs for point in self._pool]
            self._front = Front.of(costs, list(means), pool, generator)
        self._seen = {row.tobytes() for row in x}
        self._seen |= {row.tobytes() for row in scaling([point.features for point in pending])} if pending else set()

    def ranked(self) -> Iterator[tuple[Values, Proposal]]:
        """Random candidates and neighbours of the best, by value."""
        points, values, predictions = self._judged(self._pool)
        order = np.argsort(-self._means, kind="stable")[:OBSERVED_PARENTS]
        parents = [self._observed[index] for index in order]
        for _ in range(ROUNDS):
            best = np.argsort(-values, kind="stable")[:PARENTS]
            new = self._neighbours([*parents, *(points[index] for index in best)])
            more_points, more_values, more_predictions = self._judged(new)
            points, values = points + more_points, np.concatenate([values, more_values])
            predictions = predictions + more_predictions
            parents = []
        for index in np.argsort(-values, kind="stable"):
            yield points[index].values, self._proposal(*predictions[index])

    def _random_points(self) -> list[Point]:
        points = list[Point]()
        self._candidates.priced = 0
        while self._candidates.priced < PRICINGS and len(points) < RANDOM:
            values = self._candidates.random()
            if values is None:
                break
            point = self._candidates.point(values)
            if point is not None:
                points.append(point)
        return points

    def _neighbours(self, parents: Sequence[Point]) -> list[Point]:
        points = list[Point]()
        for index in range(NEIGHBOURS):
            values = self._candidates.neighbour(parents[index % len(parents)].values)
            point = self._candidates.point(values)
            if point is not None:
                points.append(point)
        return points

    def _judged(self, points: Sequence[Point]) -> tuple[list[Point], Array, list[tuple[float, float]]]:
        """The new ones among these candidates, the value of each, and the mean and deviation predicted for it."""
        new, rows = list[Point](), list[Array]()
        for point, row in zip(points, self._scaling([point.features for point in points]), strict=True):
            if row.tobytes() not in self._seen:
                self._seen.add(row.tobytes())
                new.append(point)
                rows.append(row)
        if not new:
            return [], np.zeros(0), []
        prediction = self._surrogate.predict(np.array(rows), self._trends(new))
        return new, self._value(new, prediction), list(zip(prediction.mean, prediction.deviation, strict=True))

    def _trends(self, points: Sequence[Point]) -> Array | None:
        return None if self._prior is None else self._prior.trends([point.features for point in points])

    def _value(self, points: Sequence[Point], prediction: Prediction) -> Array:
        costs = [point.costs for point in points]
        if self._front is not None:
            return self._front.expected_growth(costs, prediction)
        return expected_improvement(prediction, self._best)

    def _proposal(self, mean: float, deviation: float) -> Proposal:
        prior = None
        if self._prior is not None:
            prior = dict(zip(self._prior.runs, self._surrogate.coefficients.round(2).tolist(), strict=True))
        half = NORMAL_95 * math.hypot(deviation, self._surrogate.noise)
        gain = expected_improvement(Prediction(np.array([mean]), np.array([deviation])), self._best)[0]
        reason = "win" if mean > self._best else "learn"
        return Proposal(
            reason,
            mean=float(mean),
            low=max(float(mean - half), 0.0),
            high=min(float(mean + half), 1.0),
            best=self._best,
            expected_gain=float(gain),
            prior=prior,
        )
