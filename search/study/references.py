"""References to compare with: architecture files NAME.json, each with its recipe beside it in NAME.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from search.budget.cost import compute_cost
from search.errors import UserError, first_problem, nearest
from search.files import safe_name
from search.networks import architecture as architectures
from search.networks.architecture import Architecture
from search.networks.layers import ArchitectureError
from search.study.config import REFERENCES, ROOT, StudyConfig
from search.study.study_file import is_file
from search.text import format_shape
from search.training.recipe import Recipe, as_tuple


class Published(BaseModel):
    """Results that the author of a reference published; accuracies are fractions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    best_val_accuracy: Annotated[float, Field(gt=0, lt=1)]
    best_epoch: int
    final_val_accuracy: Annotated[float, Field(gt=0, lt=1)]
    val_accuracies: Annotated[tuple[float, ...], BeforeValidator(as_tuple)] = ()  # of each epoch; empty if unknown

    @model_validator(mode="after")
    def _of_one_log(self) -> Published:
        log = self.val_accuracies
        stated = (self.best_val_accuracy, self.best_epoch, self.final_val_accuracy)
        if log:
            logged = (max(log), log.index(max(log)) + 1, log[-1])
            if stated != logged:
                raise ValueError(f"val_accuracies: their best, its epoch and the last are {logged}, not {stated}")
        return self


class _Sheet(BaseModel):
    """The content of NAME.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    recipe: Recipe
    published: Published | None = None


@dataclass(frozen=True)
class Reference:
    """A network to compare with; a recipe of None stands for the study's."""

    name: str
    architecture: Architecture
    recipe: Recipe | None
    published: Published | None


def names() -> list[str]:
    """Names of the references that ship with the project."""
    return sorted(path.stem for path in REFERENCES.glob("*.json"))


def find(name: str) -> Reference:
    """Load a shipped reference by name, or an architecture file by path.

    Raises:
        UserError: it does not exist, or its files break a rule.
    """
    refuse_model(name)
    path = Path(name) if name.endswith(".json") else REFERENCES / f"{name}.json"
    if not name.endswith(".json") and name not in names():
        raise UserError(f"{name!r}: no reference of this name, {nearest(name, names())}; or pass an architecture file")
    architecture = architectures.load(path)
    sheet = _sheet(path.with_suffix(".toml"))
    own = safe_name(path.stem)
    return Reference(own, architecture, sheet.recipe if sheet else None, sheet.published if sheet else None)


def refuse_model(name: str) -> None:
    """Reject the file of a Keras model where an architecture file is expected.

    Raises:
        UserError: it is a Keras model; the message has the command that converts it.
    """
    if name.lower().endswith((".keras", ".h5", ".hdf5")):
        raise UserError(f"{name}: is a Keras model; make an architecture file of it: python -m search import {name}")


def named(name: str) -> Reference:
    """Load a reference as a stored configuration names it: paths are relative to the checkout.

    Raises:
        UserError: see `find`.
    """
    return find(str(ROOT / name) if is_file(name) else name)


def published_curves() -> dict[str, tuple[float, ...]]:
    """Published validation accuracies per epoch of the shipped references, on all of CIFAR-10."""
    found = {name: find(name).published for name in names()}
    return {name: published.val_accuracies for name, published in found.items() if published and published.val_accuracies}


def check(reference: Reference, data_name: str, input_shape: tuple[int, int, int], classes: int) -> None:
    """Refuse a network that cannot be trained on images of this shape (height, width, channels).

    Raises:
        UserError: the network cannot exist, or is for other images or classes.
    """
    try:
        compute_cost(reference.architecture)
    except ArchitectureError as error:
        raise UserError(f"{reference.name}: this network cannot exist: {error}") from None
    network = reference.architecture
    if (network.input, network.classes) != (input_shape, classes):
        raise UserError(
            f"{reference.name}: takes images of {format_shape(network.input)} in {network.classes} classes, and {data_name} "
            f"has {format_shape(input_shape)} in {classes}; name another base, or an accuracy to beat such as 0.84"
        )


def _sheet(path: Path) -> _Sheet | None:
    if not path.is_file():
        return None
    try:
        return _Sheet.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}; it is read as the recipe of {path.stem}.json beside it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: no valid TOML: {' '.join(str(error).split())}") from None


def recipe_of(config: StudyConfig, reference: Reference) -> Recipe:
    """The recipe under which a study trains a reference: its own, or else the study's, for the study's epochs.

    With rungs the base takes the study's schedule, which decays to zero at each rung, so that accuracies are comparable.
    """
    own = (reference.recipe or config.recipe_of({})).model_copy(update={"epochs": config.recipe.epochs})
    if config.restarts and reference.name == config.base_name:
        study = config.recipe_of({})
        own = own.model_copy(update={"schedule": study.schedule, "restarts": study.restarts, "ema": study.ema})
    return own
