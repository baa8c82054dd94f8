"""A small study file and its tables, for tests that change one key of it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from search.budget.limits import Budget
from search.errors import UserError
from search.spaces.recipe import RecipeSpace
from search.study.config import StudyConfig
from search.study.tables import DataConfig, LogConfig, Rungs, SearchConfig, StopConfig
from space import Pyramid

SHIPPED = ("cifar10_100k", "cifar10_100k_holdout", "quickstart")


STUDY = """
protocol = "holdout"
base = "base.json"

[data]
name = "digits"

[budget]
params = 2_000

[space]
blocks = { low = 1, high = 3 }
width = { low = 8, high = 48, step = 8 }
pools = 1

[recipe]
epochs = 2
batch_size = 64

[search]
trials = 2
"""


def write_study(folder: Path, text: str | bytes = STUDY) -> Path:
    path = folder / "study.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def plain_study(**changes: Any) -> dict[str, Any]:
    """A small study as plain_study values, some of its tables replaced."""
    return tomllib.loads(STUDY) | {"base": 0.5} | changes


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


KEYS = [
    *StudyConfig.model_fields,
    *(f"data.{key}" for key in DataConfig.model_fields),
    *(f"budget.{key}" for key in Budget.model_fields),
    *(f"space.{key}" for key in Pyramid.model_fields),
    *(f"recipe.{key}" for key in RecipeSpace.model_fields),
    *(f"search.{key}" for key in SearchConfig.model_fields),
    *(f"search.rungs.{key}" for key in Rungs.model_fields),
    *(f"stop.{key}" for key in StopConfig.model_fields),
    *(f"log.{key}" for key in LogConfig.model_fields),
]


def put_at_key(raw: dict[str, Any], place: str, value: object) -> None:
    """Set what stands at a dotted key."""
    *tables, key = place.split(".")
    table = raw
    for name in tables:
        table = table.setdefault(name, {"first": 1} if name == "rungs" else {})
    table[key] = value


COSINE = {"kind": "cosine"}
