"""The tables of keys in docs/ have every key of a study file, with the default that it has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from search.budget.limits import Budget
from search.spaces.fixed import Fixed
from search.spaces.pyramid import Pyramid
from search.spaces.recipe import RecipeSpace
from search.spaces.residual import ResidualStages
from search.study.config import DataConfig, SearchConfig, StopConfig, StudyConfig
from search.training.recipe import SCHEDULES, Augment
from tests.docs.markdown import ROOT

STUDY, RECIPE = ROOT / "docs" / "study-file.md", ROOT / "docs" / "recipe.md"
TABLES: dict[str, tuple[Path, type[BaseModel]]] = {  # heading above the table, and what it describes
    "## Top level": (STUDY, StudyConfig),
    "## data": (STUDY, DataConfig),
    "## budget": (STUDY, Budget),
    '### kind = "pyramid"': (STUDY, Pyramid),
    '### kind = "residual"': (STUDY, ResidualStages),
    '### kind = "fixed"': (STUDY, Fixed),
    "## search": (STUDY, SearchConfig),
    "## stop": (STUDY, StopConfig),
    "## Every key, with its default": (RECIPE, RecipeSpace),
    "## Augmentation": (RECIPE, Augment),
}


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    below = page.read_text(encoding="utf-8").split(f"\n{heading}\n")[1]
    table = re.search(r"^\|.*?(?=^[^|])", below + "\nend", re.MULTILINE | re.DOTALL)
    assert table
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[0].strip().splitlines()[2:]]


def documented(page: Path, heading: str) -> dict[str, str]:
    """The default of each key, as the page writes it."""
    return {key: row[1] for row in rows(page, heading) for key in re.findall(r"`(\w+)`", row[0])}


def plain(value: Any) -> Any:
    """A default as a study file would write it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    written = value.plain() if hasattr(value, "plain") else value
    if isinstance(written, dict):
        written = {name: part for name, part in written.items() if name != "per"}
    return written["choices"] if isinstance(written, dict) and "choices" in written else written


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_has_its_row_and_its_default(heading: str) -> None:
    page, record = TABLES[heading]
    told = documented(page, heading)
    assert set(told) == set(record.model_fields) - {"kind"}
    for name, text in told.items():
        field = record.model_fields[name]
        assert (text == "required") == field.is_required(), name
        if text.startswith("`"):
            value = tomllib.loads(f"value = {text.strip('`')}")["value"]
            assert value == plain(field.default), f"{name}: the default is {plain(field.default)!r}, not {text}"
        elif text != "required":
            empty = plain(field.default) in (None, (), {}, []) or isinstance(field.default, BaseModel)
            assert empty, f"{name}: the default is {plain(field.default)!r}, not {text!r}"


def test_every_schedule_has_its_row_with_its_keys_and_defaults() -> None:
    told = {row[0].strip("`"): row[1] for row in rows(RECIPE, "## Schedules")}
    for record in SCHEDULES:
        fields = {name: field for name, field in record.model_fields.items() if name != "kind"}
        expected = [name if field.is_required() else f"{name} = {field.default}" for name, field in fields.items()]
        written = ", ".join(f"`{text}`" for text in expected)
        assert told.pop(record.model_fields["kind"].default) == (written or "none")
    assert told == {}
