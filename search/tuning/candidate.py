"""Judges proposals before they cost anything: a candidate to train, or a rejection with the rule that it breaks.

The sampler judges every proposal and the objective every trial, so that whatever is trained has been judged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import optuna

import space
from search.budget.cost import Cost, compute_cost
from search.data.dataset import Dataset
from search.networks.architecture import Architecture, fingerprint
from search.networks.layers import ArchitectureError
from search.spaces.domains import Value
from search.storage.attributes import INDEX, KEY
from search.storage.claims import Claims
from search.study.config import StudyConfig
from search.training.recipe import Constant, InverseTime, Linear, Plateau, Recipe

Rule = str  # "cannot exist", "same network", or a rule of the budget: "over budget", "over flash", ...


@dataclass(frozen=True, slots=True)
class DataFacts:
    """Properties of a data set that a candidate depends on.

    Attributes:
        input_shape: (height, width, channels).
        train_images: None where unknown.
        is_balanced: True if every class has the same number of training images.
    """

    input_shape: tuple[int, int, int]
    classes: int
    fingerprint: str
    train_images: int | None = None
    is_balanced: bool = False

    @classmethod
    def of(cls, data: Dataset) -> Self:
        """The facts of a loaded data set; with folds those that hold in all of them."""
        if data.folds:
            return cls(data.input_shape, data.classes, data.fingerprint)
        counts = np.bincount(data.y_train, minlength=data.classes)
        is_balanced = bool(counts.min() == counts.max())
        return cls(data.input_shape, data.classes, data.fingerprint, len(data.y_train), is_balanced)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network that fits, and the recipe to train it under.

    Attributes:
        key: hash of everything that the training depends on, apart from its seed.
        repeat: the seed, where a grid repeats its cells; then a part of the key.
    """

    architecture: Architecture
    recipe: Recipe
    cost: Cost
    key: str
    repeat: int | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """The rule that a proposal breaks; architecture and cost are None where it cannot exist."""

    rule: Rule
    reason: str
    architecture: Architecture | None = None
    cost: Cost | None = None


def judge(config: StudyConfig, data: DataFacts, values: Mapping[str, Value]) -> Candidate | Rejection:
    """Build and check the candidate of these parameters, in about 0.1 ms.

    Args:
        values: a value for each of `config.parameters`.
    """
    try:
        architecture, cost = _build(config, data, values)
    except ArchitectureError as error:
        return Rejection("cannot exist", f"cannot exist: {error}")
    if breach := config.budget.breach(architecture, cost):
        return Rejection(breach.rule, breach.reason, architecture, cost)
    recipe = config.recipe_of(values)
    repeat = int(values["repeat"]) if "repeat" in values else None
    key = _hash(fingerprint(architecture), canonical_recipe(recipe, data), data, repeat)
    return Candidate(architecture, recipe, cost, key, repeat)


def renew_claims(study: optuna.Study, claims: Claims, config: StudyConfig, data: DataFacts) -> None:
    """Claim the present keys of trials that an earlier version has stored under other keys.

    Those were hashes of the recipe as it is written, idle values included, so that equal trainings had several.

    Args:
        claims: of this study.
    """
    claimed = claims.held()
    for trial in study.get_trials(deepcopy=False):
        values = config.declared(trial.params)
        if KEY not in trial.user_attrs or values.keys() != config.parameters.keys():
            continue
        recipe = config.recipe_of(values)
        if canonical_recipe(recipe, data) == recipe:  # its key has not changed
            continue
        proposal = judge(config, data, values)
        if isinstance(proposal, Candidate) and proposal.key not in claimed:
            claims.claim(proposal.key, trial.user_attrs[INDEX])


def fits(config: StudyConfig, data: DataFacts, values: Mapping[str, Value]) -> bool:
    """True if the network of these parameters can exist and is within the budget."""
    try:
        return config.budget.breach(*_build(config, data, values)) is None
    except ArchitectureError:
        return False


def canonical_recipe(recipe: Recipe, data: DataFacts) -> Recipe:
    """The recipe with everything that its training does not depend on at a fixed value.

    Two recipes with the same canonical form give bit-equal trainings from the same seed. Values that one study cannot
    vary, such as the precision, are left alone.
    """
    changes: dict[str, Any] = {}
    defaults = Recipe()
    if recipe.optimizer != "sgd":
        changes["optimizer"] = "adam"  # with decoupled decay, as here, Adam and AdamW are one algorithm
        changes["momentum"] = defaults.momentum  # of SGD only
    if data.is_balanced:
        changes["class_weights"] = "none"  # every weight is 1
    changes["schedule"] = _canonical_schedule(recipe, data)
    height, width, _ = data.input_shape
    # a square of twice the longer side covers the image wherever its centre lies
    cutout = min(recipe.augment.cutout, 2 * max(height, width))
    changes["augment"] = recipe.augment.model_copy(update={"cutout": cutout})
    if data.train_images is not None:
        changes["batch_size"] = min(recipe.batch_size, data.train_images * recipe.augment.passes)
    return recipe.model_copy(update=changes)


def _canonical_schedule(recipe: Recipe, data: DataFacts) -> Any:
    schedule = recipe.schedule
    match schedule:
        case InverseTime() if recipe.epochs == 1:
            return Constant()  # the rate falls once an epoch
        case Plateau(patience=patience) if recipe.epochs <= patience + 1:
            return Constant()  # the first epoch sets the best loss, and a cut takes effect in the epoch after
        case Linear(warmup=warmup) if data.train_images is not None and not recipe.restarts:
            steps = recipe.epochs * -(-data.train_images * recipe.augment.passes // recipe.batch_size)
            rising = min(round(warmup * steps), steps - 1)  # as in `rate_at`: a whole number of steps
            return Linear(warmup=rising / steps)
        case _:
            return schedule


def _build(config: StudyConfig, data: DataFacts, values: Mapping[str, Value]) -> tuple[Architecture, Cost]:
    architecture = space.build(config.space, values, data.input_shape, data.classes)
    return architecture, compute_cost(architecture)


def _hash(network: str, recipe: Recipe, data: DataFacts, repeat: int | None) -> str:
    parts = [network, recipe.model_dump(mode="json"), data.fingerprint, repeat]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
