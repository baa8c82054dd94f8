"""A recipe of which some values are searched: the [recipe] table of a study file."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_validator,
)

from search.spaces.domains import Choices, Domain, Range, Trial, Value, one_of, parse_domain
from search.training.recipe import (
    _NOT_SEARCHED,
    CLASS_WEIGHTS,
    INITIALIZERS,
    OPTIMIZERS,
    Augment,
    Constant,
    Linear,
    OneCycle,
    Recipe,
    Schedule,
    as_tuple,
    label,
    strengthened,
)


def _number(low: float, high: float, *, open_low: bool = False, whole: bool = False) -> Any:
    def check(value: Any) -> Value:
        wrong_type = isinstance(value, bool) or not isinstance(value, int if whole else int | float)
        if wrong_type or not low <= value <= high or (open_low and value == low):
            kind, least = ("a whole number" if whole else "a number"), ("above" if open_low else "from")
            raise ValueError(f"must be {kind} {least} {low:g} to {high:g}, not {value!r}")
        return int(value) if whole else float(value)

    return _searched(check)


def _searched(check: Any) -> BeforeValidator:
    return BeforeValidator(lambda raw: raw if isinstance(raw, Domain) else parse_domain(raw, check))


def _fixed(value: Value) -> Domain:
    return Choices((value,))


class RecipeSpace(BaseModel):
    """The [recipe] table: each of these numbers and names is fixed, or searched like a dimension of the space."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    epochs: Annotated[int, Field(ge=1, le=100_000, strict=True)] = Field(default=50, description="Epochs of each training.")
    batch_size: Annotated[Domain, _number(1, 65_536, whole=True)] = Field(
        default=_fixed(128), description="Images of each training step."
    )
    optimizer: Annotated[Domain, _searched(one_of(OPTIMIZERS))] = Field(default=_fixed("adam"), description="Optimizer.")
    learning_rate: Annotated[Domain, _number(0, 1e12, open_low=True)] = Field(
        default=_fixed(1e-3), description="Peak learning rate."
    )
    momentum: Annotated[Domain, _number(0, 0.9999)] = Field(default=_fixed(0.9), description="Nesterov momentum of sgd.")
    weight_decay: Annotated[Domain, _number(0, 0.9999)] = Field(
        default=_fixed(0.0), description="Decoupled weight decay on kernels, a step."
    )
    label_smoothing: Annotated[Domain, _number(0, 0.9999)] = Field(
        default=_fixed(0.0), description="Label smoothing of the loss."
    )
    class_weights: Annotated[Domain, _searched(one_of(CLASS_WEIGHTS))] = Field(
        default=_fixed("none"),
        description="Weights of the classes in the loss; balanced: each class counts the same in total.",
    )
    clip_norm: Annotated[Domain, _number(0, 1e12)] = Field(
        default=_fixed(0.0), description="Largest norm of the gradient over all weights; 0: no clipping."
    )
    ema: Annotated[float, Field(ge=0, lt=1, strict=True)] = Field(
        default=0.0,
        description="Decay of the moving average of the weights that is ranked and kept; 0: the weights themselves.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Precision of the computation; auto: bfloat16 on a GPU that computes in it, else float32.",
    )
    deterministic: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="Deterministic kernels on a GPU: slower, but trainings there can be repeated to the bit, as on a CPU.",
        exclude_if=operator.not_,
    )
    initializer: Annotated[Domain, _searched(one_of(INITIALIZERS))] = Field(
        default=_fixed("glorot_uniform"), description="Initializer of the kernels."
    )
    normalize: Annotated[Domain, _searched(one_of((True, False)))] | None = Field(
        default=None,
        description="Normalise each channel by the training images' mean and deviation. Left out: as data.normalize.",
    )
    schedule: Schedule = Field(default=Constant(), description="Learning rate schedule.")
    schedules: Annotated[tuple[Schedule, ...], BeforeValidator(as_tuple)] = Field(
        default=(), description="Schedules to search over, instead of one schedule."
    )
    augment: Augment = Field(default=Augment(), description="Augmentation of the training images.")
    augments: Annotated[tuple[Augment, ...], BeforeValidator(as_tuple)] = Field(
        default=(), description="Augmentations to search over, instead of one."
    )
    learning_rates: dict[str, Annotated[Domain, _number(0, 1e12, open_low=True)]] = Field(
        default={}, description="Learning rate of each optimizer by name, instead of one learning_rate."
    )
    warmup: Annotated[Domain, _number(0, 0.9999)] | None = Field(
        default=None,
        description="Share of the steps with a rising rate, instead of the schedule's own; one-cycle and linear.",
    )
    augment_strength: Annotated[Domain, _number(0, 4)] = Field(
        default=_fixed(1.0), description="Factor on the extents of the augmentation."
    )

    @model_validator(mode="after")
    def _one_or_several(self) -> RecipeSpace:
        for name, one, several in (("schedule", Constant(), self.schedules), ("augment", Augment(), self.augments)):
            if several and getattr(self, name) != one:
                raise ValueError(f"{name}s: {name} is given too; leave one of them out")
            if len({label(each) for each in several}) < len(several):
                raise ValueError(f"{name}s: names the same {name} twice")
        return self

    @model_validator(mode="after")
    def _one_rate_each(self) -> RecipeSpace:
        optimizers = set(map(str, self.optimizer.values)) if isinstance(self.optimizer, Choices) else set()
        if self.learning_rates and self.learning_rates.keys() != optimizers:
            asked = ", ".join(sorted(optimizers))
            raise ValueError(f"learning_rates: needs one for each of {asked}, not for {', '.join(self.learning_rates)}")
        if self.learning_rates and self.learning_rate != _fixed(1e-3):
            raise ValueError("learning_rates: learning_rate is given too; leave one of them out")
        return self

    @model_validator(mode="after")
    def _in_effect(self) -> RecipeSpace:
        if self.warmup is not None:
            lowest = self.warmup.low if isinstance(self.warmup, Range) else min(map(float, self.warmup.values))
            for schedule in self.schedules or (self.schedule,):
                if not isinstance(schedule, OneCycle | Linear):
                    raise ValueError(f"warmup: the {schedule.kind} schedule has none; take one-cycle or linear")
                if isinstance(schedule, OneCycle) and lowest == 0:
                    raise ValueError("warmup: must be above 0 for the one-cycle schedule, not 0")
        if self.augment_strength != _fixed(1.0):
            for augment in self.augments or (self.augment,):
                if strengthened(augment, 0) == augment:
                    raise ValueError(f"augment_strength: has no effect on the augmentation {label(augment)!r}")
        return self

    @field_serializer("*", mode="wrap")
    def _plain(self, value: Any, otherwise: SerializerFunctionWrapHandler) -> Any:
        if isinstance(value, dict):
            return {name: domain.plain() for name, domain in value.items()}
        return value.plain() if isinstance(value, Domain) else otherwise(value)

    @property
    def domains(self) -> dict[str, Domain]:
        """Everything that may be searched, fixed or not."""
        names = type(self).model_fields.keys() - set(_NOT_SEARCHED)
        sampled: dict[str, Domain] = {name: getattr(self, name) for name in sorted(names) if getattr(self, name) is not None}
        for name, several in (("schedule", self.schedules), ("augment", self.augments)):
            sampled |= {name: Choices(tuple(map(label, several)))} if several else {}
        return sampled | {f"learning_rate.{name}": domain for name, domain in self.learning_rates.items()}


def parameters(space: RecipeSpace) -> dict[str, Domain]:
    """The searched values of the recipe, by the name of their parameter: `recipe.learning_rate`."""
    return {f"recipe.{name}": domain for name, domain in space.domains.items() if not domain.is_fixed}


def suggest(space: RecipeSpace, trial: Trial, normalize: bool) -> Recipe:
    """Ask a trial for the searched values; `normalize` applies if the recipe does not set it."""
    values = {name: domain.suggest(trial, name) for name, domain in parameters(space).items()}
    return complete(space, values, normalize)


def complete(space: RecipeSpace, sampled: Mapping[str, Value], normalize: bool) -> Recipe:
    """The recipe with these sampled values, and the first of its domain for every other searched value."""
    values: dict[str, Any] = {name: sampled.get(f"recipe.{name}", domain.first) for name, domain in space.domains.items()}
    fixed = {name: getattr(space, name) for name in ("epochs", "ema", "precision", "deterministic", "schedule", "augment")}
    for name, several in (("schedule", space.schedules), ("augment", space.augments)):
        if several:
            values[name] = next(one for one in several if label(one) == values[name])
    complete_values = {"normalize": normalize} | fixed | values
    if rates := {name: complete_values.pop(f"learning_rate.{name}") for name in space.learning_rates}:
        complete_values["learning_rate"] = rates[complete_values["optimizer"]]
    if (warmup := complete_values.pop("warmup", None)) is not None:
        schedule = complete_values["schedule"]
        complete_values["schedule"] = type(schedule).model_validate(schedule.model_dump() | {"warmup": warmup})
    if (strength := complete_values.pop("augment_strength")) != 1:
        complete_values["augment"] = strengthened(complete_values["augment"], strength)
    return Recipe.model_validate(complete_values)


def encode(space: RecipeSpace, recipe: Recipe, known: Mapping[str, Value]) -> dict[str, Value]:
    """Find the searched values of a recipe: `complete` gives it from them, if the space has it at all.

    A value that the space does not declare is replaced by the first of its domain, as it may have no effect, such as the
    momentum of adam. The caller compares the two recipes.

    Args:
        known: values of another space's parameters, taken for what cannot be read off the recipe.
    """
    domains = parameters(space)
    values = {name: domain.first for name, domain in domains.items()}
    for given in (known, _values_of(space, recipe, known)):
        declared = {name: domains[name].find(value) for name, value in given.items() if name in domains}
        values |= {name: value for name, value in declared.items() if value is not None}
    return values


def first_difference(own: Recipe, other: Recipe) -> str | None:
    """The first field in which two recipes differ, with the value of the other; None if they are equal."""
    for name in Recipe.model_fields:
        if getattr(own, name) != getattr(other, name):
            return f"{name} is {_shown(getattr(other, name))}"
    return None


def _values_of(space: RecipeSpace, recipe: Recipe, known: Mapping[str, Value]) -> dict[str, Value]:
    """The values of all parameters that can be read off a recipe, declared by the space or not."""
    plain = recipe.model_dump()
    names = type(space).model_fields.keys() - set(_NOT_SEARCHED) - {"warmup", "augment_strength"}
    values: dict[str, Value] = {f"recipe.{name}": plain[name] for name in names}
    values[f"recipe.learning_rate.{recipe.optimizer}"] = recipe.learning_rate
    warmup = plain["schedule"].get("warmup")
    if warmup is not None:
        values["recipe.warmup"] = warmup
    for schedule in space.schedules:
        own = {} if space.warmup is None else {"warmup": warmup}
        if schedule.model_dump() | own == plain["schedule"]:
            values["recipe.schedule"] = label(schedule)
    strengths = [known.get("recipe.augment_strength", space.augment_strength.first)]
    if space.augment_strength.count is not None:
        strengths += space.augment_strength.declared()
    for strength, augment in product(strengths, space.augments or (space.augment,)):
        scaled = augment if strength == 1 else strengthened(augment, float(strength))
        if scaled == recipe.augment:
            return values | {"recipe.augment_strength": strength, "recipe.augment": label(augment)}
    return values


def _shown(value: object) -> str:
    """A value of a recipe in one line."""
    return label(value) if isinstance(value, BaseModel) else str(value)
