"""Strategies for input that nobody meant: values of any kind, plain data with changes in it, bytes with damage."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

NUMBERS: list[Any] = [
    *(0, 1, -1, 2, 3, 7, 64, 255, 65_536, 65_537, 2**31, 2**63 - 1, 2**63, 10**30, -(10**30), 10**400),
    *(0.0, -0.0, 0.1, 0.5, 0.999999, 1.0, 1e-12, 5e-324, 1e30, 1e308, -1e308, math.nan, math.inf, -math.inf),
]
WORDS = [
    *(
        "",
        "x",
        "relu",
        "same",
        "adam",
        "cifar10",
        "digits",
        "base",
        "eip-b",
        "grid",
        "random",
        "fixed",
        "residual",
        "pyramid",
    ),
    *(
        "../../outside",
        "/nowhere/x.json",
        "nowhere.json",
        "a\0b",
        "a\0b.json",
        "a\nb\r\n",
        "\x1b[31m",
        "\u202e",
        "[red]",
        "[/]",
    ),
    *("ä" * 300 + ".json", "x" * 5_000, "x/" * 3_000, "64KB/64KB", "0KB/0KB", "9" * 400 + "KB/1KB", "-1KB/1KB", "nan", "🤖"),
]
KEYS = [
    "low",
    "high",
    "step",
    "log",
    "each",
    "choices",
    "per",
    "kind",
    "first",
    "factor",
    "warmup",
    "x",
    "",
    "a b",
    "a\0",
    "ü",
]

scalars = st.one_of(
    st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(WORDS), st.integers(), st.floats(), st.text(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
ranges = st.fixed_dictionaries(
    {"low": st.sampled_from(NUMBERS), "high": st.sampled_from(NUMBERS)},
    optional={
        "step": st.sampled_from(NUMBERS),
        "log": st.booleans(),
        "per": st.sampled_from(["net", "block", "stage", "x"]),
    },
)


@st.composite
def mutated(draw: Draw, originals: Sequence[Any], most: int = 3, keys: Sequence[str] = KEYS) -> Any:
    """Plain data, of which some values are others, have gone, stand under other keys, or are those of another place."""
    changed = copy.deepcopy(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, most))):
        if not changed:
            break
        *way, key = _place(draw, changed)
        parent = _at(changed, way)
        match draw(st.sampled_from(("odd", "odd", "alike", "alike", "range", "gone", "added", "copied", "nested"))):
            case "odd":
                parent[key] = draw(values)
            case "alike":
                parent[key] = draw(_alike(parent[key]))
            case "range":
                parent[key] = draw(ranges)
            case "gone":
                del parent[key]
            case "added" if isinstance(parent, dict):
                parent[draw(st.sampled_from(keys))] = draw(values)
            case "added":
                parent.insert(key, copy.deepcopy(draw(st.sampled_from(parent))))
            case "copied":
                parent[key] = copy.deepcopy(_at(changed, _place(draw, changed)))
            case "nested":
                parent[key] = nested(parent[key], draw(st.sampled_from((1, 2, 30))))
    return changed


def _place(draw: Draw, value: Any) -> list[Any]:
    """The way to one of the values inside, as often to one of many at the bottom as to one of few at the top."""
    way: list[Any] = []
    while value and isinstance(value, dict | list) and (not way or draw(st.integers(0, 3))):
        way.append(draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value)))))
        value = value[way[-1]]
    return way


def _alike(value: Any) -> st.SearchStrategy[Any]:
    """Something of the same kind."""
    match value:
        case bool():
            return st.booleans()
        case int() | float():
            return st.sampled_from(NUMBERS)
        case str():
            return st.sampled_from(WORDS)
        case _:
            return ranges if "low" in value else values


def _at(value: Any, path: Sequence[Any]) -> Any:
    for key in path:
        value = value[key]
    return value


def nested(value: Any, depth: int) -> Any:
    """The value in lists in lists."""
    for _ in range(depth):
        value = [value]
    return value


@st.composite
def damaged(draw: Draw, whole: bytes) -> bytes:
    """Bytes, of which some are others, missing, twice there, or only the first are left."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        match draw(st.sampled_from(("other", "other", "bit", "cut", "gone", "twice", "inserted"))):
            case "other" if content:
                content[place] = draw(st.integers(0, 255))
            case "bit" if content:
                content[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del content[place:]
            case "gone":
                del content[place : place + draw(st.integers(1, 40))]
            case "twice":
                content[place:place] = content[place : place + draw(st.integers(1, 40))]
            case "inserted":
                content[place:place] = draw(st.binary(max_size=8))
    return bytes(content)


# --- TOML ------------------------------------------------------------------------------------------------------------


def to_toml(table: dict[str, Any]) -> str:
    """Plain data as a TOML file, one key of the whole a line."""
    return "".join(f"{_string(key)} = {_value(value)}\n" for key, value in table.items())


def _value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float() if not math.isfinite(value):
            return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
        case int() | float():
            return repr(value)
        case str():
            return _string(value)
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            return f"{{{', '.join(f'{_string(key)} = {_value(inner)}' for key, inner in value.items())}}}"
        case _:  # dates and times
            return str(value)


def _string(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()  # no surrogates
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
