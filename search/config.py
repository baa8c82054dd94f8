"""study.toml to a StudyConfig: what a study asks for, checked once, here, with unknown keys refused.

The effective configuration (file and overrides, defaults filled in) is stored with the study; on resume only what cannot
change a result may differ from it.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from search.cost import Budget
from search.errors import UserError, first_place, first_problem, nearest
from search.recipe import SCHEDULES, Augment, RecipeSpace
from space import Pyramid

ROOT = Path(__file__).resolve().parent.parent
STUDIES = ROOT / "studies"

# What may change on resume: no key of it can alter the result of a trial.
FREE = frozenset({"data.path", "search.trials", "search.recycle_after", "search.stall_minutes"})

OPTIONS = {  # of the command line, by the key that they override
    "data.path": "--data",
    "data.images": "--images",
    "recipe.epochs": "--epochs",
    "recipe.batch_size": "--batch-size",
    "search.trials": "--trials",
    "search.seed": "--seed",
}

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataConfig(BaseModel):
    """Which images, and how they are split and prepared."""

    model_config = _STRICT
    name: Literal["cifar10", "cifar100", "digits"] | None = None
    path: str | None = None
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.1
    images: Annotated[int, Field(ge=1)] | None = None
    normalize: bool = False

    @model_validator(mode="after")
    def _named(self) -> DataConfig:
        if self.name is None and self.path is None:
            raise ValueError('name or path is needed, such as name = "cifar10"')
        return self


class SearchConfig(BaseModel):
    """How long and how to search, and how the worker process is kept in hand."""

    model_config = _STRICT
    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 20  # trained ones
    sampler: Literal["tpe", "random"] = "tpe"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    recycle_after: Annotated[int, Field(ge=1)] = 20  # trials that one worker process trains
    stall_minutes: Annotated[float, Field(gt=0)] = 15.0  # without a sign of life, then the worker is stopped


class StudyConfig(BaseModel):
    """One study, complete."""

    model_config = _STRICT
    protocol: Literal["course", "holdout"] = "holdout"
    base: str | float  # a reference, an architecture file, or an accuracy to beat
    data: DataConfig
    budget: Budget
    space: Pyramid
    recipe: RecipeSpace = RecipeSpace()
    search: SearchConfig = SearchConfig()

    @field_validator("base", mode="before")
    @classmethod
    def _base(cls, value: object) -> object:
        if isinstance(value, bool) or (isinstance(value, int | float) and not 0 < value < 1):
            raise ValueError(f"an accuracy to beat is a fraction between 0 and 1, not {value!r}")
        return value

    def dump(self) -> dict[str, Any]:
        """All of it as plain JSON values; `parse` reads it back."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over everything that can change a result."""
        fixed = {key: value for key, value in flat(self.dump()) if key not in FREE}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:16]


def parse(raw: Mapping[str, Any], where: str, overridden: Mapping[str, Any] | None = None) -> StudyConfig:
    """Check a configuration; a fault in what the command line overrides is laid at the option's door.

    Raises:
        UserError: the first rule that is broken, with its key and the nearest known one where a key is unknown.
    """
    try:
        return StudyConfig.model_validate(dict(raw))
    except ValidationError as error:
        key = ".".join(str(part) for part in first_place(error)[:2])
        source = OPTIONS[key] if overridden and key in overridden else where
        raise UserError(f"{source}: {first_problem(error, _known(error))}") from None


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> StudyConfig:
    """Read a study file, with some of its keys (`search.trials`) overridden.

    Raises:
        UserError: the file is missing or no TOML, or `parse` refuses it.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, or a number of thousands of digits
        raise UserError(f"{path}: no valid TOML: {' '.join(str(error).split())}") from None
    if isinstance(base := raw.get("base"), str) and base.endswith(".json"):
        raw["base"] = _portable((path.parent / base).resolve())
    if isinstance(data := raw.get("data"), dict) and isinstance(data.get("path"), str):
        data["path"] = str((path.parent / data["path"]).resolve())
    for key, value in (overrides or {}).items():
        table, _, name = key.partition(".")
        if isinstance(raw.setdefault(table, {}), dict):
            raw[table][name] = value
    return parse(raw, str(path), overrides)


def find(study: str) -> tuple[str, Path]:
    """(name, study file) of a study given by its name under studies/, or by the path of a TOML file or of its folder.

    Raises:
        UserError: there is no such study; names the nearest.
    """
    if study.endswith(".toml"):
        path = Path(study)
        if not path.is_file():
            raise UserError(f"{study}: no such study file")
        return safe_name(path.resolve().parent.name if path.name == "study.toml" else path.stem), path
    known = sorted(path.parent.name for path in STUDIES.glob("*/study.toml"))
    if study in known:
        return study, STUDIES / study / "study.toml"
    if (Path(study) / "study.toml").is_file():
        return safe_name(Path(study).resolve().name), Path(study) / "study.toml"
    raise UserError(f"{study!r}: no study of this name under studies/; {nearest(study, known)}")


def safe_name(name: str) -> str:
    """A name that is safe as a file's and as a study's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "study"


def differences(stored: StudyConfig, asked: StudyConfig) -> list[str]:
    """What keeps the asked configuration from going on with the stored one: `recipe.epochs is 5 here, not 50`."""
    ours, theirs = dict(flat(stored.dump())), dict(flat(asked.dump()))
    keys = [key for key in ours | theirs if key not in FREE and ours.get(key) != theirs.get(key)]
    return [f"{key} is {json.dumps(ours.get(key))} here, not {json.dumps(theirs.get(key))}" for key in keys]


def options_back(stored: StudyConfig, asked: StudyConfig) -> str | None:
    """The options that make the asked configuration the stored one, None where no options do."""
    ours, theirs = dict(flat(stored.dump())), dict(flat(asked.dump()))
    keys = [key for key in ours | theirs if key not in FREE and ours.get(key) != theirs.get(key)]
    if not all(key in OPTIONS and ours.get(key) is not None for key in keys):
        return None
    return " ".join(f"{OPTIONS[key]} {ours[key]}" for key in keys)


def hardly_learnt(accuracy: float, classes: int) -> bool:
    """Whether an accuracy is so near chance that to beat it says little."""
    return accuracy < 2 / classes


def flat(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) for every leaf of nested tables."""
    for key, value in plain.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _portable(path: Path) -> str:
    """Relative to the checkout where it lies inside, so that a checkout can move with its runs."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def _known(error: ValidationError) -> list[str]:
    """The keys that the table in question does take."""
    models: dict[str, type[BaseModel]] = {
        "data": DataConfig,
        "budget": Budget,
        "space": Pyramid,
        "recipe": RecipeSpace,
        "search": SearchConfig,
        "recipe.augment": Augment,
    }
    table = ".".join(str(part) for part in first_place(error)[:-1])
    if table.startswith("recipe.schedule."):  # pydantic adds the kind
        models |= {f"recipe.schedule.{one.model_fields['kind'].default}": one for one in SCHEDULES}
    model = models.get(table, StudyConfig if not table else None)
    return list(model.model_fields) if model else []
