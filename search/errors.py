"""User errors, in one line of rule, value and remedy, and the exceptions that end a trial or a run."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}


class UserError(ValueError):
    """Invalid input of the user; the command line prints the message and exits with status 2."""


class ControlFlow(BaseException):
    """Base of the exceptions that end work early without a fault in the code. There are two kinds.

    `search.training.result.TrialOver`: this trial is over; its outcome and reason are stored, and the run continues.
    `StudyStopped`: the run stops; trials in progress are requeued and resume from their checkpoints.

    No `Exception`: code that turns any exception into a failed trial must let these pass.
    """


class StudyStopped(ControlFlow):
    """Stops the run; the message gives the reason and the remedy, and the exit status is 1."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'X'?` for a misspelt word, or the known words if none is near."""
    names = sorted(known)
    matches = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {matches[0]!r}?" if matches else f"known: {', '.join(names)}"


def first_place(error: ValidationError) -> tuple[int | str, ...]:
    """The key of the problem that `first_problem` reports: a misspelt key before the key that is missing because of it."""
    location: tuple[int | str, ...] = _first(error)["loc"]
    return location


def first_problem(error: ValidationError, known: Iterable[str] = ()) -> str:
    """The first problem that pydantic found, as `place: rule (value)` in one line of bounded length."""
    problem = _first(error)
    location = " ".join(_cut(".".join(str(part) for part in problem["loc"]), 200).split())
    if not location and problem["type"] != "value_error":  # a rule over several keys names them itself
        location = "file"
    if problem["type"] in _UNKNOWN:
        return f"{location}: unknown key" + (f", {nearest(str(problem['loc'][-1]), known)}" if known else "")
    if problem["type"] == "missing":
        return f"{location}: is missing and required; add it"
    message = re.sub(r"^(Value error|Assertion failed), ", "", problem["msg"])
    value = problem.get("input")
    shown = "" if problem["type"] in {"value_error", "json_invalid"} else f", not {_cut(repr(value), 60)}"
    return " ".join(f"{location}{': ' if location else ''}{_cut(message, 400)}{shown}".split())


def _first(error: ValidationError) -> Any:
    return min(error.errors(include_url=False), key=lambda problem: problem["type"] not in _UNKNOWN)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def reason(error: BaseException) -> str:
    """The message of an error in at most 120 printable characters, as it may contain bytes of a file."""
    words = " ".join(str(error).split()) or type(error).__name__
    return "".join(character if character.isprintable() else "?" for character in words)[:120]
