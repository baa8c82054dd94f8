"""The user's own faults: one line that gives the rule, the value and the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from pydantic import ValidationError


class UserError(ValueError):
    """Something the user asked for cannot be done; the command line prints the message and exits with status 2."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'X'?` for a misspelt word, or the known words where none is near."""
    names = sorted(known)
    found = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else f"known: {', '.join(names)}"


def first_problem(error: ValidationError, known: Iterable[str] = ()) -> str:
    """The first problem that pydantic found, as `place: rule (value)` in one line."""
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"]) or "file"
    if problem["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        return f"{place}: unknown key" + (f", {nearest(str(problem['loc'][-1]), known)}" if known else "")
    message = re.sub(r"^(Value error|Assertion failed), ", "", problem["msg"])
    value = problem.get("input")
    shown = "" if problem["type"] in {"value_error", "missing", "json_invalid"} else f", not {_short(value)}"
    return " ".join(f"{place}: {message}{shown}".split())


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
