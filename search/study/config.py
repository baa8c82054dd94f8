"""The configuration of a study as checked records, one for each table of a study file; unknown keys are rejected.

The effective configuration (file and overrides, defaults filled in) is stored with the study; on resume only keys that
cannot change a result may differ from it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from search.budget.limits import Budget
from search.budget.metrics import ALWAYS_STORED
from search.data.folds import COURSE_FOLDS
from search.files import safe_name
from search.spaces import recipe as recipe_space
from search.spaces.domains import Choices, Dimension, Domain, Range, Value
from search.spaces.recipe import RecipeSpace
from search.study.tables import STRICT, DataConfig, LogConfig, SearchConfig, StopConfig
from search.training.measures import MEASURES
from search.training.recipe import DECAYING, NAMES_OF_DECAYING, Recipe
from space import AnySpace, parameters

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "studies"
REFERENCES = STUDIES / "references"

# What may change on resume: no key of it can alter the result of a trial.
FREE = frozenset(
    {"data.path", "search.trials", "search.recycle_after", "search.stall_minutes", "search.grace_minutes"}
    | {f"stop.{rule}" for rule in ("hours", "device_hours", "accuracy", "patience", "expected_gain")}
    | {"log.to"}
)
DEEPEST = 50  # tables and lists inside each other in a study file
TRIALS = 20  # trained, where a study does not say; a grid's default is all of it

OPTIONS = {  # of the command line, by the key that they override
    "data.path": "--data",
    "data.images": "--images",
    "recipe.epochs": "--epochs",
    "recipe.batch_size": "--batch-size",
    "search.trials": "--trials",
    "search.seed": "--seed",
}


class StudyConfig(BaseModel):
    """A study file, with its overrides and defaults."""

    model_config = STRICT
    protocol: Literal["course", "holdout"] = Field(
        default="holdout", description="holdout: rank on held-out training images; course: rank on the test split."
    )
    base: str | float = Field(
        description="Network to beat: a reference, an architecture file, or an accuracy (value of the metric) such as 0.84."
    )
    data: DataConfig = Field(description="Images and their splits.")
    budget: Budget = Field(description="Limits on the networks.")
    space: AnySpace = Field(description="Search space.")
    recipe: RecipeSpace = Field(default=RecipeSpace(), description="Training recipe.")
    search: SearchConfig = Field(default=SearchConfig(), description="Search settings.")
    stop: StopConfig = Field(default=StopConfig(), description="Limits on the study.")
    # Left out of a stored configuration where it says nothing, so that it is the same as that of earlier versions.
    log: LogConfig = Field(default=LogConfig(), exclude_if=lambda log: not log.to, description="Copies of every trial.")

    @field_validator("base", mode="before")
    @classmethod
    def _base(cls, value: object) -> object:
        if isinstance(value, bool) or (isinstance(value, int | float) and not 0 < value < 1):
            raise ValueError(f"an accuracy to beat is a fraction between 0 and 1, not {value!r}")
        return value

    @model_validator(mode="after")
    def _searchable(self) -> StudyConfig:
        if self.restarts:
            for schedule in self.recipe.schedules or (self.recipe.schedule,):
                if not isinstance(schedule, DECAYING):
                    kind = f"the {schedule.kind} schedule"
                    raise ValueError(f"search.rungs: {kind} does not decay to zero by a rung; take {NAMES_OF_DECAYING}")
        if self.search.rungs and not self.rungs:
            first = self.search.rungs.first
            if folds := self.data.folds:
                raise ValueError(
                    f"search.rungs: the first is after {first} epochs, in the last of {folds} folds of {self.recipe.epochs} "
                    "epochs; take a lower first, or leave rungs out"
                )
            raise ValueError(
                f"search.rungs: the first is after {first} epoch{'s' if first > 1 else ''}, and recipe.epochs is "
                f"{self.recipe.epochs}; take at least {first + 1} epochs, a lower first, or leave rungs out"
            )
        if self.data.folds:
            self._check_folds()
        functions = getattr(self.space, "activation", None)
        possible = functions.domains if isinstance(functions, Dimension) else ()
        if self.search.rank_by == "int8" and any(isinstance(one, Choices) and "elu" in one.values for one in possible):
            raise ValueError("search.rank_by: elu is computed in floats only; take another space.activation, or float")
        if self.stop.expected_gain is not None and (self.search.sampler != "bayes" or self.search.directions):
            predicts = f"the {self.search.sampler} sampler predicts none"
            why = "it is of accuracy alone, and directions has more" if self.search.sampler == "bayes" else predicts
            raise ValueError(f'stop.expected_gain: {why}; take sampler = "bayes" without directions, or stop.patience')
        if not self.parameters and self.trials > 1:
            raise ValueError("space: nothing is searched, as every value is fixed; give one a list or a range")
        if self.search.sampler == "grid":
            endless = [name for name, domain in self.parameters.items() if domain.count is None]
            if endless:
                raise ValueError(f"{endless[0]}: a grid cannot list a range without a step; give it one, or a list")
        return self

    def _check_folds(self) -> None:
        """Raise ValueError for settings that do not go with folds."""
        if self.protocol == "course":
            raise ValueError(f"data.folds: {COURSE_FOLDS}")
        kept = "is measured on the network of one epoch, and folds keep that of the first alone"
        if self.search.rank_by == "int8":
            raise ValueError(f'data.folds: the int8 accuracy {kept}; take search.rank_by = "float", or leave folds out')
        if self.search.flip_average:
            raise ValueError(f"data.folds: flip_average {kept}; leave one of them out")

    @property
    def base_name(self) -> str | None:
        """The name of the base in the study of references, None where the base is a plain accuracy."""
        return safe_name(Path(self.base).stem) if isinstance(self.base, str) else None

    @cached_property
    def parameters(self) -> dict[str, Domain]:
        """The domain of every searched parameter by name, the same for every trial."""
        repeats: dict[str, Domain] = {"repeat": Range(0, self.search.repeats - 1, 1)} if self.search.repeats > 1 else {}
        return repeats | parameters(self.space) | recipe_space.parameters(self.recipe)

    @property
    def measure(self) -> str:
        """The name of the figure that is ranked, in words: `validation macro F1 in int8`."""
        return f"validation {self.metric_label}" + (" in int8" if self.search.rank_by == "int8" else "")

    @property
    def metric_label(self) -> str:
        """The name of the measure that is ranked, in words: `macro F1`."""
        return MEASURES[self.search.metric].label

    @property
    def trials(self) -> int:
        """Number of trained trials: as given, else the whole grid, else TRIALS."""
        whole = self.size if self.search.sampler == "grid" else TRIALS
        return self.search.trials or whole or TRIALS

    @property
    def size(self) -> int | None:
        """Number of points of the search; None where a range is continuous."""
        counts = [domain.count for domain in self.parameters.values()]
        return None if None in counts else math.prod(count or 0 for count in counts)

    def declared(self, params: Mapping[str, Any]) -> dict[str, Value]:
        """Parameters as the study file writes their values: 0.15, where Optuna stores 0.15000000000000002."""
        found = {name: self.parameters[name].find(value) for name, value in params.items() if name in self.parameters}
        return {name: value for name, value in found.items() if value is not None}

    def recipe_of(self, values: Mapping[str, Value]) -> Recipe:
        """The recipe of a trial with these parameters, its schedule begun anew at every rung."""
        recipe = recipe_space.complete(self.recipe, values, self.data.normalize)
        return recipe.model_copy(update={"restarts": self.restarts})

    @property
    def cost_metrics(self) -> tuple[str, ...]:
        """Metrics minimised beside accuracy; none in a study of one objective."""
        return self.search.directions.cost_metrics if self.search.directions else ()

    @property
    def recorded_metrics(self) -> tuple[str, ...]:
        """Metrics stored with each trial: those of every study, then those that this one limits or minimises."""
        return tuple(dict.fromkeys((*ALWAYS_STORED, *self.budget.limits, *self.cost_metrics)))

    @property
    def planned_epochs(self) -> int:
        """Number of epochs of a candidate that is not pruned, of all folds."""
        return self.recipe.epochs * (self.data.folds or 1)

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which a candidate may be pruned; those beyond the first fold are at the end of a fold."""
        if not self.search.rungs:
            return ()
        epochs, rungs = self.recipe.epochs, self.search.rungs.before(self.planned_epochs)
        ends = (rung if rung < epochs else -(-rung // epochs) * epochs for rung in rungs)
        return tuple(end for end in ends if end < self.planned_epochs)

    @property
    def restarts(self) -> tuple[int, ...]:
        """The epochs of a training at which its schedule begins anew: the rungs that are not at the end of a fold."""
        return tuple(rung for rung in self.rungs if rung < self.recipe.epochs)

    def dump(self) -> dict[str, Any]:
        """All of it as plain JSON values; `parse` reads it back."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over everything that can change a result."""
        fixed = {key: value for key, value in flat(self.dump()) if key not in FREE}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:16]


def flat(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) for every leaf of nested tables."""
    for key, value in plain.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
