"""The reference networks and other opponents: an architecture file NAME.json, with its recipe beside it in NAME.toml."""

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
    """What its author reported; accuracies are fractions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    best_val_accuracy: Annotated[float, Field(gt=0, lt=1)]
    best_epoch: int
    final_val_accuracy: Annotated[float, Field(gt=0, lt=1)]
    val_accuracies: Annotated[tuple[float, ...], BeforeValidator(as_tuple)] = ()  # of each epoch, where its log is known

    @model_validator(mode="after")
    def _of_one_log(self) -> Published:
        log = self.val_accuracies
        told = (self.best_val_accuracy, self.best_epoch, self.final_val_accuracy)
        if log and told != (found := (max(log), log.index(max(log)) + 1, log[-1])):
            raise ValueError(f"val_accuracies: their best, its epoch and the last are {found}, not {told}")
        return self


class _Sheet(BaseModel):
    """NAME.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    recipe: Recipe
    published: Published | None = None


@dataclass(frozen=True)
class Reference:
    """A network to compare with, trained under its own recipe where it has one and under the study's otherwise."""

    name: str
    architecture: Architecture
    recipe: Recipe | None
    published: Published | None


def names() -> list[str]:
    """The references that ship with the project."""
    return sorted(path.stem for path in REFERENCES.glob("*.json"))


def find(name: str) -> Reference:
    """A shipped reference by name, or any architecture file by path.

    Raises:
        UserError: there is none, or its files break a rule.
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
    """Refuse the file of a Keras model where an architecture file is asked for.

    Raises:
        UserError: it is one; gives the command that makes the other.
    """
    if name.lower().endswith((".keras", ".h5", ".hdf5")):
        raise UserError(f"{name}: is a Keras model; make an architecture file of it: python -m search import {name}")


def named(name: str) -> Reference:
    """A reference as a stored configuration names it: files inside the checkout relative to it.

    Raises:
        UserError: see `find`.
    """
    return find(str(ROOT / name) if is_file(name) else name)


def published_curves() -> dict[str, tuple[float, ...]]:
    """The published validation accuracies of the shipped references, epoch by epoch: CIFAR-10, all its images."""
    found = {name: find(name).published for name in names()}
    return {name: published.val_accuracies for name, published in found.items() if published and published.val_accuracies}


def check(reference: Reference, data_name: str, input_shape: tuple[int, int, int], classes: int) -> None:
    """Refuse a network that cannot be trained on images of this shape (height, width, channels).

    Raises:
        UserError: it cannot exist, or is for other images or classes.
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
        raise UserError(f"{path}: {first_problem(error)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: no valid TOML: {' '.join(str(error).split())}") from None


def recipe_of(config: StudyConfig, reference: Reference) -> Recipe:
    """How a study trains a reference: by its own recipe, or the study's, for the study's epochs.

    With rungs the base takes the study's schedule, which decays to zero by each of them, so that it can be compared there.
    """
    own = (reference.recipe or config.recipe_of({})).model_copy(update={"epochs": config.recipe.epochs})
    if config.rungs and reference.name == config.base_name:
        study = config.recipe_of({})
        own = own.model_copy(update={"schedule": study.schedule, "restarts": study.restarts, "ema": study.ema})
    return own
