"""Sampler that proposes only networks that fit the budget and are not trained or in progress already.

It wraps an Optuna sampler (TPE, random, NSGA-II), asks it for whole points of the joint space from the first trial on, and
judges each before Optuna stores it. A rejected proposal is counted and replaced at once. Where the wrapped sampler keeps
failing, uniform draws follow, then uniform draws with widths scaled down until they fit; the study ends for lack of
networks only if those give nothing new either. A grid is enumerated here, cell by cell.
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
from search.storage.attributes import INDEX, KEY, OUTCOME, PROPOSAL, REASON, REFUSED, REFUSED_PARAMS
from search.storage.claims import Claims
from search.storage.optuna_internals import StudyView, base_storage_of, trial_id_of
from search.study.config import StudyConfig
from search.training.result import Outcome
from search.tuning.bayes import BayesSampler, Prior
from search.tuning.candidate import DataFacts, Rejection, fits, judge
from search.tuning.scaling import LOOK_AHEAD, largest_that_fits

STARTUP_TRIALS = 10  # trials sampled at random before a sampler uses the results of others
SAMPLED = 30  # proposals of the wrapped sampler, then
UNIFORM = 300  # uniform ones, then
SCALED = 1_000  # uniform ones with widths scaled down until they fit, and others below that, then
ENUMERATED = 100_000  # every point, if there are no more than that
NOTHING_NEW = "no new network was found"  # begins the reason of a trial for which the space held none
KEPT = 8  # rejected proposals of a trial whose size is stored

Values = dict[str, Value]


class Exhausted(Exception):
    """Raised where the space holds no new network that fits."""


def make_sampler(
    config: StudyConfig, data: DataFacts, claims: Claims, *, seed: int, prior: Prior | None = None
) -> BudgetedSampler:
    """The sampler that a study asks for, seeded for one trial.

    Args:
        prior: of the studies that it names in `search.prior`.
    """
    if config.search.sampler == "bayes":
        return BudgetedSampler(BayesSampler(config, data, seed=seed, prior=prior), config, data, claims, seed=seed)
    return BudgetedSampler(inner_sampler(config.search.sampler, seed), config, data, claims, seed=seed)


def inner_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler of this name; a grid, which `BudgetedSampler` enumerates itself, gets a random one."""
    match name:
        case "tpe":
            return optuna.samplers.TPESampler(
                seed=seed, multivariate=True, constant_liar=False, n_startup_trials=STARTUP_TRIALS
            )
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=2 * STARTUP_TRIALS)
        case _:
            return optuna.samplers.RandomSampler(seed=seed)


class BudgetedSampler(optuna.samplers.BaseSampler):
    """Samples for one trial: complete proposals that fit the budget and are claimed for the trial.

    Optuna asks only for parameters that are not fixed: a queued trial that has all of them is judged by the objective alone.

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
        self._fills = config.search.fit == "fill"
        self._reason: dict[str, Any] | None = None  # of the last proposal, where the inner sampler has one
        self._domains = config.parameters
        self._distributions: dict[str, BaseDistribution] = {
            name: domain.distribution() for name, domain in self._domains.items()
        }

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole joint space, which Optuna's samplers otherwise infer from the first trials."""
        return self._distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Sample a complete proposal that fits and is new, and claim it for this trial.

        Where the user has fixed some parameters and no completion fits, the last proposal is returned; the objective
        rejects it.

        Raises:
            Exhausted: there is none.
        """
        fixed = self._fixed(trial)
        index = trial.user_attrs.get(INDEX, trial.number)
        claimed = self._queued_keys(study, trial) | self._claims.held()
        seen, rejected, sizes = set[str](), Counter[str](), list[int]()
        values: Values = {}
        for values in self._proposals(study, trial, fixed):
            proposal = judge(self._config, self._data, values)
            if isinstance(proposal, Rejection):
                rejected[proposal.rule] += 1
                if proposal.cost:
                    sizes.append(proposal.cost.params)
                continue
            if claimed.get(proposal.key, index) == index and self._claims.claim(proposal.key, index):
                attributes: dict[str, Any] = {PROPOSAL: self._reason} if self._reason else {}
                if rejected:
                    attributes |= {REFUSED: dict(rejected), REFUSED_PARAMS: sizes[:KEPT]}
                _store(study, trial, attributes)
                return values
            if self._is_grid and proposal.key not in seen:  # another trial's cell, which has stored the count before it
                seen.add(proposal.key)
                rejected, sizes = Counter(), []
            else:
                rejected["same network"] += 1
        if fixed:
            return values
        reason = f"{NOTHING_NEW} under {self._config.budget.words}"
        _store(study, trial, {OUTCOME: Outcome.INTERRUPTED, REASON: reason})
        raise Exhausted(reason + "".join(f", {count:,} proposals: {rule}" for rule, count in rejected.items()))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Sample a parameter that is no part of the space; only a caller's own objective asks for one."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._inner.before_trial(study, trial)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self._inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._inner.reseed_rng()
        self._generator.seed()

    def _queued_keys(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, int]:
        """Keys of the networks that the user queued and no worker has claimed yet, each with its trial's index."""
        keys: dict[str, int] = {}
        for other in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)):
            fixed = self._fixed(other)
            if other.number == trial.number or KEY in other.user_attrs or fixed.keys() != self._domains.keys():
                continue
            proposal = judge(self._config, self._data, fixed)
            if not isinstance(proposal, Rejection):
                keys[proposal.key] = other.user_attrs.get(INDEX, -1)
        return keys

    # --- proposals, in the order in which they are tried ---

    def _proposals(self, study: optuna.Study, trial: FrozenTrial, fixed: Values) -> Iterator[Values]:
        free = {name: domain for name, domain in self._domains.items() if name not in fixed}
        if not self._is_grid:
            yield from self._random_proposals(study, trial, fixed)
        if self._is_grid or _is_enumerable(free):
            for values in points(free):
                yield self._filled(values | fixed, fixed)

    def _random_proposals(self, study: optuna.Study, trial: FrozenTrial, fixed: Values) -> Iterator[Values]:
        view: Any = StudyView(study, _without_curves) if self._config.cost_metrics else study
        for _ in range(SAMPLED):
            if isinstance(self._inner, BayesSampler):  # its candidates fit, at a share of the budget that it has chosen
                sampled = self._inner.sample_relative(study, trial, self._distributions)
                self._reason = self._inner.proposal.to_dict() if self._inner.proposal else None
                yield self._uniform() | sampled | fixed
            else:
                sampled = self._inner.sample_relative(view, trial, self._distributions)
                yield self._filled(self._uniform() | self._config.declared(sampled) | fixed, fixed)
        self._reason = None
        for _ in range(UNIFORM):
            yield self._filled(self._uniform() | fixed, fixed)
        for _ in range(SCALED):
            values = self._scaled(self._uniform() | fixed, fixed)
            yield values
            if not self._fills:
                yield self._narrower(values) | fixed

    def _fixed(self, trial: FrozenTrial) -> Values:
        """The parameters of this trial that the user has fixed."""
        fixed: Values = trial.system_attrs.get("fixed_params", {})
        return fixed | self._config.declared(fixed)

    def _uniform(self) -> Values:
        return {name: domain.draw(self._generator) for name, domain in self._domains.items()}

    def _filled(self, values: Values, fixed: Values) -> Values:
        """The values, scaled to the budget if the study fills it."""
        return self._scaled(values, fixed) if self._fills else values

    def _scaled(self, values: Values, fixed: Values) -> Values:
        """The values with widths scaled to the largest network that fits; unchanged where even the narrowest does not."""

        def fit(at: Mapping[str, Value]) -> bool:
            return fits(self._config, self._data, {**at, **fixed})

        look_ahead = 0 if self._config.budget.is_monotone else LOOK_AHEAD
        return (largest_that_fits(self._config.space, values, fit, look_ahead) or values) | fixed

    def _narrower(self, values: Values) -> Values:
        """The values with each width resampled from those up to it, to reach networks that are never the largest."""
        narrower = {}
        for name in self._config.space.widths:
            domain = self._domains[name]
            narrower[name] = domain.at(self._generator.randint(0, domain.index(float(values[name]))))
        return values | narrower


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


def _is_enumerable(domains: Mapping[str, Domain]) -> bool:
    """True if the joint space has at most ENUMERATED points."""
    counts = [domain.count or math.inf for domain in domains.values()]
    return math.prod(counts) <= ENUMERATED


def _store(study: optuna.Study, trial: FrozenTrial, attributes: Mapping[str, Any]) -> None:
    """Set user attributes of a running trial, in the storage and in this copy of it, which the objective reads."""
    for name, value in attributes.items():
        base_storage_of(study).set_trial_user_attr(trial_id_of(trial), name, value)
        trial.user_attrs[name] = value
