"""Shared by the tests of report and checklist."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.storage.urls import sqlite_url
from search.study import config as configs
from search.study import study_file as study_files
from search.study.records import Record
from search.study.run import Run

IMAGES = 359  # of validation in the digits
QUICKSTART = configs.STUDIES / "quickstart" / "study.toml"


def table(text: str) -> list[list[str]]:
    """The rows of the first Markdown table, its header first; every row has as many cells as the header."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert all(len(row) == len(rows[0]) for row in rows)
    return [rows[0], *rows[2:]]


def record(number: int, best: float, params: int = 5_000, reference: str | None = None, **changes: Any) -> Record:
    curve = (best / 2, best, best - 0.01)
    plain = Record(number, reference, "trained", None, params, 1_000, best, 2, best - 0.01, 3, 4.0, curve, {}, (), None)
    return replace(plain, **changes)


def rejected(number: int) -> Record:
    reason = "9,000 parameters, the budget is under 8,000"
    blank = dict.fromkeys(("best_val_accuracy", "best_epoch", "final_val_accuracy", "seconds"))
    return record(number, 0.5, 9_000, outcome="rejected", reason=reason, epochs=0, curve=(), **blank)


def hand_made(folder: Path = Path("nowhere"), **changes: Any) -> Run:
    """A run of the quickstart's configuration that has trained nothing."""
    config = study_files.load(QUICKSTART).model_copy(update=changes)
    return Run("hand_made", folder, config, sqlite_url(folder))
