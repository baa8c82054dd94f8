"""Adoption: which trained trials of other runs a study can take over, and why the others are left out.

A trained trial is its network and its recipe, which its files hold, its scores and its learning curve. The study can take it
over where its own space and recipe express both, within its budget, so that its own training of the same parameters would
have the same key. The spaces of the two studies, their budgets and their seeds may differ; data, protocol and the accuracy
that is ranked may not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy.typing as npt
from optuna.trial import FrozenTrial, create_trial

from search.budget.cost import compute_cost
from search.budget.limits import Breach
from search.budget.metrics import METRICS
from search.data.preprocessing import Pixels
from search.errors import UserError
from search.export.card import network_digest
from search.files import read_json
from search.networks.architecture import Architecture, fingerprint, from_json
from search.networks.layers import ArchitectureError
from search.seeds import derive
from search.spaces.base import NotInSpace
from search.spaces.domains import Value
from search.spaces.recipe import encode, first_difference
from search.storage.attributes import (
    ADOPTED,
    ATTEMPT,
    BEST_EPOCH,
    BEST_VAL_ACCURACY,
    DELTA_VS_BASE,
    FINAL_VAL_ACCURACY,
    FOLD_VALUES,
    INDEX,
    KEY,
    NETWORK,
    PROPOSAL,
    REFUSED,
    REFUSED_PARAMS,
    RETRY_OF,
    SEED,
    WARM_START,
    WORKER,
)
from search.storage.optuna_internals import generation_attribute
from search.study.config import StudyConfig
from search.study.records import last_curve, scores_of
from search.study.trained import is_own_log, own_weights
from search.text import format_count
from search.training.recipe import Recipe
from search.tuning.candidate import Candidate, DataFacts, canonical_recipe, judge
from search.tuning.sources import Source

FILES = ("history.json", "training.json", "weights.npz")  # of a trained trial; the weights last, by which it is present

_SCORES = (BEST_VAL_ACCURACY, BEST_EPOCH, FINAL_VAL_ACCURACY)
_NOT_COPIED = (  # facts of the trial in its own study
    *(ADOPTED, ATTEMPT, DELTA_VS_BASE, INDEX, PROPOSAL, REFUSED, REFUSED_PARAMS, RETRY_OF, WARM_START, WORKER),
    *("losses", "lost_after"),
)

MeasuresBreach = Callable[[Architecture, Sequence[npt.NDArray[Any]], Pixels], Breach | None]


class Reason(StrEnum):
    """Reasons why a trained trial is left out, as they are shown."""

    OTHER_EPOCHS = "of other epochs"
    OVER_BUDGET = "over the budget"
    OUTSIDE_SPACE = "outside the space"
    OTHER_RECIPE = "outside the recipe"
    OTHER_PRECISION = "of another precision"
    OTHER_SEED = "of another seed"
    TRAINED_TWICE = "of the same training as another"
    DAMAGED = "with missing or damaged files"


@dataclass(frozen=True)
class Adoptable:
    """A trial that a study can take over: its candidate there, and the finished trial as it is stored."""

    files: Path
    architecture: Architecture
    template: FrozenTrial


@dataclass(frozen=True)
class LeftOut:
    """A trained trial that a study cannot take over."""

    number: int
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Assessment:
    """Trained trials of one source that a study can take over, and the others."""

    source: Source
    adoptable: tuple[Adoptable, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials that are left out, by reason."""
        reasons = [entry.reason for entry in self.left_out]
        return {reason.value: reasons.count(reason) for reason in Reason if reason in reasons}

    def to_dict(self) -> dict[str, Any]:
        """The assessment as plain JSON values."""
        return {
            "run": self.source.name,
            "trained": len(self.source.trials),
            "adopted": len(self.adoptable),
            "left_out": self.counts,
        }

    def text(self, verb: str) -> str:
        """The number of trials, and a line for each reason with the first trial that is left out as an example.

        Args:
            verb: "adopted", or "can be adopted".
        """
        first = {entry.reason.value: entry for entry in reversed(self.left_out)}
        n = len(self.adoptable)
        lines = [f"{self.source.name}: {n:,} of {format_count(len(self.source.trials), 'trained trial')} {verb}"]
        lines += [
            f"  {count:,} {reason}, such as trial {first[reason].number}: {first[reason].detail}"
            for reason, count in self.counts.items()
        ]
        return "\n".join(lines)


def assess(
    config: StudyConfig,
    facts: DataFacts,
    sources: Sequence[Source],
    precision: str | None = None,
    measures_breach: MeasuresBreach = lambda architecture, weights, pixels: None,
) -> list[Assessment]:
    """Find the trials of each source that the study can take over.

    Args:
        precision: Keras' dtype policy of the study's own trainings; None if it is not known.
        measures_breach: the limit of the budget that the int8 file of a trained network breaks, None if it breaks none.
    """
    keys: set[str] = set()
    assessments = []
    for source in sources:
        adoptable, left_out = list[Adoptable](), list[LeftOut]()
        for trial in source.trials:
            try:
                entry = _Assessed(config, facts, source, trial).adoptable(precision, measures_breach)
                if entry.template.user_attrs[KEY] in keys:
                    raise _Unfit(Reason.TRAINED_TWICE, "its network and recipe are adopted from an earlier one")
            except _Unfit as unfit:
                left_out.append(LeftOut(trial.number, unfit.reason, unfit.detail))
            else:
                keys.add(entry.template.user_attrs[KEY])
                adoptable.append(entry)
        assessments.append(Assessment(source, tuple(adoptable), tuple(left_out)))
    return assessments


class _Unfit(Exception):
    """Raised where a trial cannot be taken over."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class _Assessed:
    """One trained trial of a source, read from its files and judged by the rules of the study.

    Raises:
        _Unfit: its files cannot be read.
    """

    def __init__(self, config: StudyConfig, facts: DataFacts, source: Source, trial: FrozenTrial) -> None:
        self._config, self._facts, self._source, self._trial = config, facts, source, trial
        self._files = source.files_of(trial.number)
        try:
            training = read_json(self._files / "training.json")
            self._architecture: Architecture = from_json(json.dumps(training["architecture"]))
            self._recipe = Recipe.model_validate(training["recipe"])
            self._pixels = Pixels.from_dict(training["pixels"])
            self._precision = training.get("precision")
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise _Unfit(Reason.DAMAGED, f"{error}") from None

    def adoptable(self, precision: str | None, measures_breach: MeasuresBreach) -> Adoptable:
        """The trial as the study takes it over.

        Raises:
            _Unfit: it cannot.
        """
        config, recipe = self._config, self._recipe
        if recipe.epochs != config.recipe.epochs:
            detail = f"{recipe.epochs} epochs, and recipe.epochs is {config.recipe.epochs}"
            raise _Unfit(Reason.OTHER_EPOCHS, detail)
        if precision not in (None, self._precision) and self._precision is not None:
            raise _Unfit(Reason.OTHER_PRECISION, f"computed in {self._precision}, and this study computes in {precision}")
        self._check_budget()
        values, candidate = self._candidate()
        weights = self._weights()
        if breach := measures_breach(self._architecture, weights, self._pixels):
            raise _Unfit(Reason.OVER_BUDGET, breach.reason)
        digest = network_digest(self._architecture, weights)
        return Adoptable(self._files, self._architecture, self._template(values, candidate, digest))

    def _check_budget(self) -> None:
        try:
            breach = self._config.budget.breach(self._architecture, compute_cost(self._architecture))
        except ArchitectureError as error:
            raise _Unfit(Reason.DAMAGED, f"{error}") from None
        if breach:
            raise _Unfit(Reason.OVER_BUDGET, breach.reason)

    def _candidate(self) -> tuple[dict[str, Value], Candidate]:
        """The parameters with which the study expresses network, recipe and seed, and their candidate."""
        config, network = self._config, fingerprint(self._architecture)
        recipe_values = encode(config.recipe, self._recipe, self._trial.params)
        for network_values in self._network_values():
            values = network_values | recipe_values | self._repeat()
            proposal = judge(config, self._facts, values)
            if isinstance(proposal, Candidate) and fingerprint(proposal.architecture) == network:
                own, other = (canonical_recipe(recipe, self._facts) for recipe in (proposal.recipe, self._recipe))
                if own.restarts != other.restarts:
                    raise _Unfit(Reason.OTHER_RECIPE, f"its rungs are after the epochs {list(other.restarts)}")
                if difference := first_difference(own, other):
                    raise _Unfit(Reason.OTHER_RECIPE, difference)
                return values, proposal
        raise _Unfit(Reason.OUTSIDE_SPACE, "no parameters of the space give its network")

    def _network_values(self) -> Iterator[dict[str, Value]]:
        """Parameters of the space that may give the network: those of the trial, then those that `encode` finds.

        Raises:
            _Unfit: the space has no such network.
        """
        space, known = self._config.space, self._trial.params
        domains = space.parameters
        declared = {name: domain.find(known[name]) for name, domain in domains.items() if name in known}
        same = {name: value for name, value in declared.items() if value is not None}
        first = {name: domain.first for name, domain in domains.items()}
        if same.keys() == domains.keys():
            yield same
        try:
            yield first | same | space.encode(self._architecture)
        except NotInSpace as error:
            raise _Unfit(Reason.OUTSIDE_SPACE, f"{error}") from None

    def _repeat(self) -> dict[str, Value]:
        """The cell's repeat with the seed of this training, where the study repeats cells.

        Raises:
            _Unfit: there is none.
        """
        search, seed = self._config.search, self._trial.user_attrs.get(SEED)
        if search.repeats == 1:
            return {}
        for repeat in range(search.repeats):
            if derive(search.seed, "repeat", repeat) == seed:
                return {"repeat": repeat}
        raise _Unfit(Reason.OTHER_SEED, f"seed {seed} is none of the {search.repeats} that each cell is repeated on")

    def _weights(self) -> list[npt.NDArray[Any]]:
        """The weights of the trial, checked by the digest that was stored at its end."""
        curve = last_curve(scores_of(self._trial), len(self._trial.user_attrs.get(FOLD_VALUES, ())))
        try:
            history = read_json(self._files / "history.json")
            if not is_own_log(history, curve, self._config.search.metric):
                raise UserError(f"{self._files / 'history.json'}: is the log of another training")
            return own_weights(self._files, self._trial, self._architecture)
        except (LookupError, TypeError, UserError) as error:
            raise _Unfit(Reason.DAMAGED, f"{error}") from None

    def _template(self, values: Mapping[str, Value], candidate: Candidate, digest: str) -> FrozenTrial:
        """The finished trial that the study stores; costs and parameters are those of the study."""
        config, trial = self._config, self._trial
        if missing := [name for name in _SCORES if name not in trial.user_attrs]:
            raise _Unfit(Reason.DAMAGED, f"{missing[0]} is missing in the database")
        costs = {name: METRICS[name].compute(candidate.cost) for name in config.recorded_metrics}
        copied = {key: value for key, value in trial.user_attrs.items() if key not in _NOT_COPIED}
        origin = {ADOPTED: {"run": self._source.name, "trial": trial.number}}
        attributes = copied | costs | origin | {KEY: candidate.key, NETWORK: digest}
        template = create_trial(
            values=[trial.user_attrs[BEST_VAL_ACCURACY], *(float(costs[name]) for name in config.cost_metrics)],
            params={name: values[name] for name in config.parameters},
            distributions={name: domain.distribution() for name, domain in config.parameters.items()},
            user_attrs=attributes,
            system_attrs=self._system_attributes(),
            intermediate_values=trial.intermediate_values,
        )
        for name, limit in config.budget.limits.items():
            template.set_constraint(name, float(METRICS[name].compute(candidate.cost) - (limit - 1)))
        return template

    def _system_attributes(self) -> dict[str, Any]:
        """Attributes by which Optuna's pruner compares at rungs, and by which its NSGA-II selects parents."""
        rungs = {key: value for key, value in self._trial.system_attrs.items() if key.startswith("completed_rung_")}
        return rungs | ({generation_attribute(): 0} if self._config.search.sampler == "nsga2" else {})
