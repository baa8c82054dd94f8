"""Ways to search: samplers that are compared by `search_methods.py`, those of the product and others."""

from __future__ import annotations

import math
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import optuna
from accuracy_model import rows_of_space
from ground_spaces import EPOCHS, FACTOR, FACTS, SPACES, Values, candidate, draw, mutate
from ground_spaces import study as study_of
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine

from search.seeds import derive
from search.storage.attributes import INDEX, KEY, OUTCOME
from search.storage.claims import Claims
from search.study.config import StudyConfig
from search.training.result import Outcome
from search.tuning.bayes.features import network_features, recipe_features
from search.tuning.bayes.prior import MOST_TRIALS, Prior, Trend
from search.tuning.candidate import Candidate, canonical_recipe, judge
from search.tuning.pruner import make_pruner
from search.tuning.sampler import STARTUP_TRIALS, BudgetedSampler, make_sampler

POPULATION, TOURNAMENT = 20, 5  # of regularised evolution; a tenth of the usual 100 and 25 would leave no selection
RANDOM_CANDIDATES, NEIGHBOUR_CANDIDATES, GOOD_SHARE = 60, 30, 0.2  # of TPE on features


@dataclass(frozen=True)
class Contender:
    """A sampler by its name in a study file, or one of this module; colours are Okabe and Ito's.

    Attributes:
        pruner: of weak networks at the rung of a long training, "gain" (the product's) or "halving" (Optuna's); such a
            contender takes part in studies of long trainings only.
        prior: real trainings that it knows before: "budgets", the table's of the same space under other budgets; "space",
            those of the other space under any budget.
    """

    name: str
    sampler: str
    fit: str
    colour: str
    dash: str = "solid"
    inner: Callable[[str, int, int], optuna.samplers.BaseSampler] | None = None  # of (space, budget, seed)
    pruner: str = ""
    prior: str = ""

    def make(self, config: StudyConfig, space: str, claims: Claims, seed: int) -> BudgetedSampler:
        """Its sampler for one trial."""
        if self.inner is None:
            prior = table_prior(self.prior, space, config.budget.params) if self.prior else None
            return make_sampler(config, FACTS, claims, seed=seed, prior=prior)
        return BudgetedSampler(self.inner(space, config.budget.params, seed), config, FACTS, claims, seed=seed)


@cache
def table_prior(kind: str, space: str, budget: int) -> Prior:
    """The prior of a contender, from the table's first trainings."""
    spaces = [space] if kind == "budgets" else [other for other in SPACES if other != space]
    rows = [(name, row) for name in spaces for row in rows_of_space(name) if kind != "budgets" or row["budget"] != budget]
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), MOST_TRIALS)).round().astype(int)
    known = [(described_by(name, row["values"]), row["accuracy"]["0"]) for name, row in (rows[index] for index in chosen)]
    return Prior([Trend.of(kind, [features for features, _ in known], np.array([accuracy for _, accuracy in known]))])


class ContenderStudy:
    """A study in memory, in which a contender proposes networks of one space one after the other.

    Attributes:
        seconds: CPU time of the proposals.
    """

    def __init__(self, contender: Contender, space: str, budget: int, seed: int, *, has_rungs: bool = False) -> None:
        self._contender, self._space, self._seed = contender, space, seed
        self.config = study_of(space, budget, contender.sampler, contender.fit, has_rungs)
        self.study = optuna.create_study(direction="maximize", storage=optuna.storages.InMemoryStorage())
        match contender.pruner if self.config.search.rungs else "":
            case "gain":
                self.study.pruner = make_pruner(self.config)
            case "halving":
                self.study.pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=EPOCHS, reduction_factor=FACTOR)
        self._claims = Claims(create_engine("sqlite://"), self.study._study_id)
        self.asked, self.seconds = 0, 0.0

    def ask(self) -> tuple[optuna.Trial, Candidate, Values]:
        """The next trial, its network and its parameters.

        Raises:
            RuntimeError: the contender proposed a network that cannot exist or breaks the budget.
        """
        started = time.process_time()
        seed = derive(self._seed, "sampler", self.asked)
        self.study.sampler = self._contender.make(self.config, self._space, self._claims, seed)
        trial = self.study.ask()
        trial.set_user_attr(INDEX, self.asked)
        values = {name: domain.suggest(trial, name) for name, domain in self.config.parameters.items()}
        self.asked += 1
        self.seconds += time.process_time() - started
        proposal = judge(self.config, FACTS, values)
        if not isinstance(proposal, Candidate):
            raise RuntimeError(f"{self._contender.name} proposed what {proposal.rule}: {values}")
        trial.set_user_attr(KEY, proposal.key)
        return trial, proposal, values

    @contextmanager
    def by(self, contender: Contender) -> Iterator[None]:
        """Let another contender propose."""
        before = self._contender, self.config
        self._contender = contender
        self.config = study_of(self._space, self.config.budget.params, contender.sampler, contender.fit)
        try:
            yield
        finally:
            self._contender, self.config = before

    def tell(self, trial: optuna.Trial, accuracy: float | None) -> None:
        """Store the accuracy of a trained network, or None of a pruned one."""
        pruned = accuracy is None
        trial.set_user_attr(OUTCOME, Outcome.PRUNED_AT_RUNG if pruned else Outcome.TRAINED)
        self.study.tell(trial, accuracy, state=TrialState.PRUNED if pruned else TrialState.COMPLETE)


class _Relative(optuna.samplers.BaseSampler, ABC):
    """A sampler of whole points, inside `BudgetedSampler`, which draws the points that this one leaves empty."""

    def __init__(self, space: str, budget: int, seed: int) -> None:
        self.space, self.budget, self.generator = space, budget, random.Random(seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A point after the first trials; empty before, for a uniform draw."""
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return {} if len(complete) < STARTUP_TRIALS else self.propose(complete)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise AssertionError(f"{param_name}: BudgetedSampler draws single parameters itself")

    @abstractmethod
    def propose(self, complete: Sequence[FrozenTrial]) -> Values:
        """The next point, from the complete trials."""


class Evolution(_Relative):
    """Regularised evolution (Real et al., "Regularized Evolution for Image Classifier Architecture Search", 2019).

    A neighbour of the best of a few of the youngest networks.
    """

    def propose(self, complete: Sequence[FrozenTrial]) -> Values:
        young = sorted(complete, key=lambda trial: trial.number)[-POPULATION:]
        parent = max(self.generator.sample(young, min(TOURNAMENT, len(young))), key=lambda trial: trial.value or 0.0)
        return mutate(self.space, self.budget, dict(parent.params), self.generator)


class FeatureTpe(_Relative):
    """Tree-structured Parzen estimator on the features of networks (Bergstra et al., 2011), over random candidates.

    Densities of good and other networks are products of one Gaussian kernel density a feature, bandwidth by Scott's rule.
    """

    def propose(self, complete: Sequence[FrozenTrial]) -> Values:
        ranked = sorted(complete, key=lambda trial: -(trial.value or 0.0))
        good = max(2, math.ceil(GOOD_SHARE * len(ranked)))
        ways = ("filled", "narrower", "uniform")
        points = [draw(self.space, self.budget, ways[i % 3], self.generator) for i in range(RANDOM_CANDIDATES)]
        parents = [dict(trial.params) for trial in ranked[:good]]
        points += [mutate(self.space, self.budget, parents[i % good], self.generator) for i in range(NEIGHBOUR_CANDIDATES)]
        described = [described_by(self.space, values) for values in [*[dict(t.params) for t in ranked], *points]]
        table = feature_table(described)
        ratio = density(table[: len(ranked)][:good], table[len(ranked) :]) - density(
            table[good : len(ranked)], table[len(ranked) :]
        )
        return points[int(np.argmax(ratio))]


def described_by(space: str, values: Values) -> dict[str, float]:
    """The product's features of a candidate."""
    proposal = candidate(space, values)
    return network_features(proposal.cost) | recipe_features(canonical_recipe(proposal.recipe, FACTS))


def feature_table(described: Sequence[dict[str, float]]) -> Any:
    """Standardised features, shape (n, columns); those that do not vary are left out."""
    names = sorted({name for features in described for name in features})
    table = np.array([[features.get(name, 0.0) for name in names] for features in described])
    deviation = table.std(axis=0)
    return (table[:, deviation > 1e-9] - table.mean(axis=0)[deviation > 1e-9]) / deviation[deviation > 1e-9]


def density(sample: Any, points: Any) -> Any:
    """Logarithm of the product of kernel densities at points, shape (m,)."""
    bandwidth = np.maximum(sample.std(axis=0), 0.2) * len(sample) ** -0.2
    distances = (points[:, None, :] - sample[None, :, :]) / bandwidth
    kernels = np.exp(-0.5 * distances**2) / bandwidth
    return np.log(kernels.mean(axis=1) + 1e-6).sum(axis=1)


class WidthCma(_Relative):
    """Optuna's CMA-ES for the widths; everything else is drawn uniformly. Needs the package `cmaes`."""

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        widths = study_of(self.space, self.budget).space.widths
        sampler = optuna.samplers.CmaEsSampler(
            seed=self.generator.randrange(2**31), n_startup_trials=STARTUP_TRIALS, warn_independent_sampling=False
        )
        sampled: dict[str, Any] = sampler.sample_relative(study, trial, {name: search_space[name] for name in widths})
        return sampled


CONTENDERS = (
    Contender("random, fill", "random", "fill", "#000000", "dash"),
    Contender("random, reject", "random", "reject", "#999999", "dash"),
    Contender("TPE, fill", "tpe", "fill", "#56B4E9"),
    Contender("bayes", "bayes", "fill", "#D55E00"),
    Contender("bayes, prior of other budgets", "bayes", "fill", "#CC79A7", prior="budgets"),
    Contender("bayes, prior of other space", "bayes", "fill", "#CC79A7", "dash", prior="space"),
    Contender("evolution", "random", "reject", "#009E73", "solid", Evolution),
    Contender("TPE on features", "random", "reject", "#0072B2", "dot", FeatureTpe),
    Contender("CMA-ES for widths", "random", "fill", "#E69F00", "dot", WidthCma),
    Contender("random, halving", "random", "fill", "#000000", "dot", pruner="halving"),
    Contender("TPE, halving", "tpe", "fill", "#56B4E9", "dot", pruner="halving"),
    Contender("bayes, halving", "bayes", "fill", "#D55E00", "dot", pruner="halving"),
    Contender("random, gain", "random", "fill", "#000000", "solid", pruner="gain"),
    Contender("TPE, gain", "tpe", "fill", "#56B4E9", "solid", pruner="gain"),
    Contender("bayes, gain", "bayes", "fill", "#D55E00", "solid", pruner="gain"),
)
BASE = CONTENDERS[0].name
