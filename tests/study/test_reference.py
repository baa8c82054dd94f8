"""The machine-readable reference of the study file: complete, and equal to what the records accept."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from search.spaces.recipe import RecipeSpace
from search.study.config import StudyConfig
from search.study.reference import TABLES, Key, keys
from search.study.tables import DataConfig, SearchConfig
from space import KINDS, Pyramid

KEYS = {(key.table, key.kind, key.name): key for key in keys()}


def _records(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every record that an annotation leads to."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _records(field.annotation)
    for inner in get_args(annotation):
        yield from _records(inner)


def test_every_record_that_a_study_file_is_checked_by_has_its_rows() -> None:
    assert {*_records(StudyConfig), *KINDS.values()} == set(TABLES.values())
    assert len(KEYS) == sum(len(record.model_fields) for record in TABLES.values())


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: ".".join(filter(None, key[:3])))
def test_every_key_has_values_and_a_plain_line_of_description(key: Key) -> None:
    assert key.values and key.description.endswith(".") and "\n" not in key.description


@pytest.mark.parametrize(
    "key", [key for key in KEYS.values() if key.default], ids=lambda key: ".".join(filter(None, key[:3]))
)
def test_every_default_is_toml_and_is_the_default(key: Key) -> None:
    record = TABLES[key.table, key.kind]
    written = tomllib.loads(f"value = {key.default}")["value"]
    others = {"rate": 0.5, "network": "eip-c", "first": 1}
    needed = {name: others[name] for name, field in record.model_fields.items() if field.is_required() and name in others}
    if record in (StudyConfig, DataConfig):
        assert written == record.model_fields[key.name].default or written == []
    elif not any(field.is_required() and name not in others for name, field in record.model_fields.items()):
        assert record.model_validate(needed | {key.name: written}) == record.model_validate(needed)


def test_values_say_what_is_accepted_and_what_may_be_searched() -> None:
    assert KEYS["search", None, "sampler"].values == '"tpe", "random", "bayes", "nsga2", "grid"'
    assert KEYS["data", None, "holdout"].values == "number above 0 and below 1"
    assert KEYS["space", "pyramid", "kernel"].values == "a whole number from 1 to 64; per block or net"
    assert KEYS["recipe", None, "optimizer"][3:5] == ("one of adam, adamw, sgd", True)
    assert KEYS["recipe", None, "epochs"][3:5] == ("whole number from 1 to 100,000", False)
    assert {key.name for key in KEYS.values() if key.is_required and key.table == ""} == {"base", "data", "budget", "space"}
    assert {TABLES["space", "pyramid"], TABLES["recipe", None], TABLES["search", None]} == {
        Pyramid,
        RecipeSpace,
        SearchConfig,
    }
