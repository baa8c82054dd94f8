"""Writes a study file from the values of its tables."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from search.errors import UserError

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def study_text(heading: str, tables: Mapping[str, Any]) -> str:
    """The TOML text of a study file: plain keys first, then a table for each mapping; None is left out.

    Args:
        heading: one line, written as a comment.

    Raises:
        UserError: a value is of a type that TOML has not.
    """
    plain = [f"{key} = {_value(key, value)}" for key, value in tables.items() if not isinstance(value, Mapping | None)]
    blocks = ["\n".join([f"# {heading}", "", *plain])]
    for name, table in tables.items():
        if isinstance(table, Mapping):
            keys = [f"{_key(key)} = {_value(f'{name}.{key}', value)}" for key, value in table.items() if value is not None]
            blocks.append("\n".join([f"[{name}]", *keys]))
    return "\n\n".join(blocks) + "\n"


def _value(path: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value).replace("infinity", "inf")
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        entries = [f"{_key(key)} = {_value(f'{path}.{key}', inner)}" for key, inner in value.items() if inner is not None]
        return f"{{ {', '.join(entries)} }}" if entries else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(path, inner) for inner in value)}]"
    raise UserError(f"{path}: a study file holds numbers, text, lists and tables, not {type(value).__name__}")


def _key(key: object) -> str:
    return str(key) if _BARE.fullmatch(str(key)) else json.dumps(str(key), ensure_ascii=False)
