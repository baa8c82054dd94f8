"""An Optuna sampler that never proposes over the budget, nor what is trained or in flight already.

It wraps another one (TPE, random, NSGA-II), asks it for whole points of the joint space from the first trial on, and judges
each before Optuna stores it. What is refused is drawn again at once and only tallied. A sampler that keeps missing is left
for uniform draws, these for draws whose widths are scaled down until they fit; a study ends for want of networks only when
those find nothing new either. A grid is listed here, cell by cell.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from copy import copy
from itertools import product
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from search.spaces.domains import Domain, Value
from search.storage.attributes import INDEX, KEY, OUTCOME, REASON, REFUSED, REFUSED_PARAMS
from search.storage.claims import Claims
from search.storage.optuna_internals import StudyView, base_storage_of, trial_id_of
from search.study.config import StudyConfig
from search.training.result import Outcome
from search.tuning.candidate import DataFacts, Refusal, fits, judge
from search.tuning.scaling import LOOK_AHEAD, largest_that_fits
from space import widths

SAMPLED = 30  # proposals taken from the wrapped sampler, then
UNIFORM = 300  # uniform ones, then
SHRUNK = 1_000  # uniform ones whose widths are scaled down until they fit, and drawn below that, then
ENUMERATED = 100_000  # every point, where there are no more
KEPT = 8  # refused proposals of a trial of which the size is kept

Values = dict[str, Value]


class Exhausted(Exception):
    """The space holds no network that is new and fits."""


class BudgetedSampler(optuna.samplers.BaseSampler):
    """Proposes for one trial; every proposal is complete, fits the budget and is claimed for the trial.

    Optuna asks only for parameters that are not fixed: a queued trial that has all of them is the objective's to judge.

    Args:
        inner: the sampler that proposes.
        seed: of the draws that are not the inner sampler's.
    """

    def __init__(
        self,
        inner: optuna.samplers.BaseSampler,
        config: StudyConfig,
        data: DataFacts,
        claims: Claims,
        *,
        seed: int = 0,
    ) -> None:
        self._inner = inner
        self._config = config
        self._data = data
        self._claims = claims
        self._generator = random.Random(seed)
        self._is_grid = config.search.sampler == "grid"
        self._domains = config.parameters
        self._distributions: dict[str, BaseDistribution] = {
            name: domain.distribution() for name, domain in self._domains.items()
        }

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole joint space, which Optuna's own samplers know only after the first trials."""
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A complete proposal that fits and is new, claimed for this trial.

        Where a person has fixed some of the parameters and nothing completes them so, it is what the objective will reject.

        Raises:
            Exhausted: there is none.
        """
        fixed = self._fixed(trial)
        index = trial.user_attrs.get(INDEX, trial.number)
        held = self._queued(study, trial) | self._claims.held()
        seen, refused, sizes = set[str](), Counter[str](), list[int]()
        values: Values = {}
        for values in self._proposals(study, trial, fixed):
            found = judge(self._config, self._data, values)
            if isinstance(found, Refusal):
                refused[found.rule] += 1
                sizes += [found.cost.params] if found.cost else []
            elif held.get(found.key, index) == index and self._claims.claim(found.key, index):
                _note(study, trial, {REFUSED: dict(refused), REFUSED_PARAMS: sizes[:KEPT]} if refused else {})
                return values
            elif self._is_grid and found.key not in seen:  # another trial's cell, which has told what stands before it
                seen.add(found.key)
                refused, sizes = Counter(), []
            else:
                refused["same network"] += 1
        if fixed:
            return values
        reason = f"no new network was found under {self._config.budget.words}"
        _note(study, trial, {OUTCOME: Outcome.INTERRUPTED, REASON: reason})
        raise Exhausted(reason + "".join(f", {count:,} proposals: {rule}" for rule, count in refused.items()))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter that is no part of the space: there is none but where a person asks for one."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._inner.before_trial(study, trial)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self._inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._inner.reseed_rng()
        self._generator.seed()

    def _queued(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, int]:
        """The networks that a person queued and that no worker has come to claim yet: theirs, whoever is faster."""
        found: dict[str, int] = {}
        for other in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            fixed = self._fixed(other)
            if other.number != trial.number and KEY not in other.user_attrs and fixed.keys() == self._domains.keys():
                judged = judge(self._config, self._data, fixed)
                found |= {} if isinstance(judged, Refusal) else {judged.key: other.user_attrs.get(INDEX, -1)}
        return found

    # --- proposals, in the order in which they are tried ---

    def _proposals(self, study: optuna.Study, trial: FrozenTrial, fixed: Values) -> Iterator[Values]:
        fills = self._config.search.fit == "fill"
        free = {name: domain for name, domain in self._domains.items() if name not in fixed}
        told: Any = StudyView(study, _without_curves) if self._config.cost_metrics else study
        if not self._is_grid:
            for _ in range(SAMPLED):
                drawn = self._inner.sample_relative(told, trial, self._distributions)
                values = self._uniform() | self._config.declared(drawn) | fixed
                yield self._scaled(values, fixed) if fills else values
            for _ in range(UNIFORM):
                values = self._uniform() | fixed
                yield self._scaled(values, fixed) if fills else values
            for _ in range(SHRUNK):
                values = self._scaled(self._uniform() | fixed, fixed)
                yield values
                if not fills:
                    yield self._narrower(values) | fixed
        if self._is_grid or _is_short(free):
            for values in points(free):
                yield self._scaled(values | fixed, fixed) if fills else values | fixed

    def _fixed(self, trial: FrozenTrial) -> Values:
        """What a person has set of this trial."""
        given: Values = trial.system_attrs.get("fixed_params", {})
        return given | self._config.declared(given)

    def _uniform(self) -> Values:
        return {name: domain.draw(self._generator) for name, domain in self._domains.items()}

    def _scaled(self, values: Values, fixed: Values) -> Values:
        """With the widths scaled to the largest network that fits; as it is where even the narrowest does not."""

        def fit(at: Mapping[str, Value]) -> bool:
            return fits(self._config, self._data, {**at, **fixed})

        look_ahead = 0 if self._config.budget.is_monotone else LOOK_AHEAD
        return (largest_that_fits(self._config.space, values, fit, look_ahead) or values) | fixed

    def _narrower(self, values: Values) -> Values:
        """With every width drawn from those up to it: what is never the largest that fits is found too."""
        drawn = {}
        for name in widths(self._config.space):
            domain = self._domains[name]
            drawn[name] = domain.at(self._generator.randint(0, domain.place(float(values[name]))))
        return values | drawn


def _without_curves(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Trials of several objectives as Optuna's samplers expect them: pruned ones, which diverged, have no learning curves.

    TPE ranks such trials by their last value, and asks for the one direction of the study, which has several.
    """
    return [_bare(trial) for trial in trials]


def _bare(trial: FrozenTrial) -> FrozenTrial:
    if trial.state != TrialState.PRUNED or not trial.intermediate_values:
        return trial
    bare = copy(trial)
    bare.intermediate_values = {}
    return bare


def points(domains: Mapping[str, Domain]) -> Iterator[Values]:
    """Every point of a finite joint space, the first parameter changing last."""
    listed = [list(domain.declared()) for domain in domains.values()]
    for combination in product(*listed):
        yield dict(zip(domains, combination, strict=True))


def _is_short(domains: Mapping[str, Domain]) -> bool:
    """Whether the joint space can be listed."""
    counts = [domain.count or math.inf for domain in domains.values()]
    return math.prod(counts) <= ENUMERATED


def _note(study: optuna.Study, trial: FrozenTrial, attributes: Mapping[str, Any]) -> None:
    """Set user attributes of a trial that is at work, for its objective to see too."""
    for name, value in attributes.items():
        base_storage_of(study).set_trial_user_attr(trial_id_of(trial), name, value)
        trial.user_attrs[name] = value
