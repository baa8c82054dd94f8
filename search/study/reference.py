"""Machine-readable reference of the study file: every table and key with its values, default and description.

Everything is read from the records that check a study file, so that it cannot differ from what is accepted. The page
docs/study-file.md is generated from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from search.budget.limits import Budget, FieldBounds
from search.spaces.base import SearchSpace
from search.spaces.domains import Choices, Dimension, Range
from search.spaces.recipe import RecipeSpace
from search.study.config import StudyConfig
from search.study.tables import DataConfig, Directions, LogConfig, Rungs, SearchConfig, StopConfig
from search.training.recipe import SCHEDULES, Augment
from space import KINDS

TABLES: dict[tuple[str, str | None], type[BaseModel]] = {  # by (dotted name, kind); the kind selects among several records
    ("", None): StudyConfig,
    ("data", None): DataConfig,
    ("budget", None): Budget,
    ("budget.receptive_field", None): FieldBounds,
    **{("space", kind): record for kind, record in KINDS.items()},
    ("recipe", None): RecipeSpace,
    **{("recipe.schedule", str(record.model_fields["kind"].default)): record for record in SCHEDULES},
    ("recipe.augment", None): Augment,
    ("search", None): SearchConfig,
    ("search.rungs", None): Rungs,
    ("search.directions", None): Directions,
    ("stop", None): StopConfig,
    ("log", None): LogConfig,
}


class Key(NamedTuple):
    """One key of a study file."""

    table: str  # dotted name of its table, "" at the top of the file
    kind: str | None  # the table's kind = "..." that the key belongs to, None where the table has no kinds
    name: str
    values: str  # accepted values, in words
    is_searchable: bool  # True if a list or a range of such values may be searched
    is_required: bool
    default: str  # as TOML; "" where the key is required, or may be left out without a value in its place
    description: str


def keys() -> Iterator[Key]:
    """Yield every key, in the order of `TABLES` and of the fields of each record."""
    for (table, kind), record in TABLES.items():
        for name, field in record.model_fields.items():
            default = "" if field.is_required() else _default(field.default)
            is_searchable = _mentions(field.annotation, (Dimension, Choices, Range))
            values = _rule_of(field) if is_searchable else _words(field.annotation, field.metadata)
            yield Key(table, kind, name, values, is_searchable, field.is_required(), default, field.description or "")


# --- defaults --------------------------------------------------------------------------------------------------------


def _default(value: Any) -> str:
    plain = _plain(value)
    return "" if plain is None or plain == {} else _toml(plain)


def _plain(value: Any) -> Any:
    """A default as JSON values; a record by its kind, as its other keys have rows and defaults of their own."""
    if isinstance(value, BaseModel):
        return {"kind": value.kind} if hasattr(value, "kind") else {}
    return value.plain() if isinstance(value, Dimension | Choices | Range) else value


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


# --- accepted values -------------------------------------------------------------------------------------------------


def _words(annotation: Any, metadata: list[Any]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(arguments[0], [*_constraints(arguments[1:]), *metadata])
    if origin in (Union, UnionType):
        parts = [_words(argument, metadata) for argument in arguments if argument is not NoneType]
        return " or ".join(dict.fromkeys(parts))
    if origin is Literal:
        return ", ".join(map(json.dumps, arguments))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"list: {_words(arguments[0], [])}"
        return f"[{', '.join(_words(argument, []) for argument in arguments)}]"
    if origin is dict or annotation is SearchSpace or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "table"
    words = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return f"{words[annotation]} {_bounds(metadata)}".rstrip()


def _constraints(metadata: tuple[Any, ...]) -> list[Any]:
    """Metadata of an Annotated type, with the constraints inside of a `Field(...)` beside it."""
    return [inner for given in metadata for inner in (given.metadata if isinstance(given, FieldInfo) else [given])]


def _bounds(metadata: list[Any]) -> str:
    bounds = []
    for constraint in metadata:
        match constraint:
            case Ge(ge=bound):
                bounds.append(f"from {bound:,}")
            case Gt(gt=bound):
                bounds.append(f"above {bound:,}")
            case Le(le=bound):
                bounds.append(f"to {bound:,}")
            case Lt(lt=bound):
                bounds.append(f"{'and ' if bounds else ''}below {bound:,}")
    return " ".join(bounds)


def _mentions(annotation: Any, types: tuple[type, ...]) -> bool:
    return annotation in types or any(_mentions(inner, types) for inner in get_args(annotation))


class _Probe:
    """A value that no key accepts, so that its validator states its rule."""

    def __repr__(self) -> str:
        return "PROBE"


def _rule_of(field: FieldInfo) -> str:
    """The rule of a key that may be searched, as its validator words it when it rejects a value."""
    if get_origin(field.annotation) is dict:
        return "table: one entry for each name"
    rule = _rule(field, _Probe(), r"must be (.*), not PROBE")
    if not _mentions(field.annotation, (Dimension,)):
        return rule
    per = _rule(field, {"choices": [], "per": "PROBE"}, r"per must be (.*), not 'PROBE'")
    return f"{rule}; per {per}"


def _rule(field: FieldInfo, value: object, pattern: str) -> str:
    annotation: Any = field.annotation
    adapter = TypeAdapter[Any](Annotated[annotation, *field.metadata] if field.metadata else annotation)
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        matches = [re.search(pattern, problem["msg"]) for problem in error.errors()]
        return next(match.group(1) for match in matches if match)
    raise AssertionError(f"{value!r} is accepted")
