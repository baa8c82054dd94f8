"""Tables and sentences that all reports share: leaderboard, base, settings.

Text is not escaped here: each page escapes it for its own format.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from report.tables import (
    Table,
    accuracy_cells,
    accuracy_columns,
    adopted_words,
    gap_text,
    interval_text,
    measure_of,
    trainings,
    trial_name,
)
from search.errors import UserError
from search.study.config import StudyConfig, flat
from search.study.references import named
from search.text import format_percent

Board = Mapping[str, Any]

STOPPED = "Stopped early, not comparable"  # heading of `stopped_table`


def leaderboard_table(board: Board) -> Table:
    """Base, other references, then the candidates that were trained in full, by rank."""
    lines = [("", *_cells(board, "base", board["base"]), "", "")] if board["base"] else []
    lines += [("", *_cells(board, row["name"], row), gap_text(board, row), "") for row in board["references"]]
    for row in board["trials"]:
        if row["rank"] is not None:
            seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
            lines.append((str(row["rank"]), *_cells(board, trial_name(row), row), gap_text(board, row), seconds))
    interval = ("95 % interval",) if board.get("val_images") else ()
    accuracies = accuracy_columns(board, last="last epoch")
    return Table(("rank", "trial", "params", *accuracies, *interval, "points against the base", "seconds"), lines)


def stopped_table(board: Board) -> Table:
    """Candidates that were stopped early: their accuracies are of fewer epochs, and compare with no ranked one."""
    images = board.get("val_images")
    lines = []
    for row in board["trials"]:
        if row["rank"] is None:
            accuracy = row["best_val_accuracy"] if row["best_val_accuracy"] is not None else row.get("float_val_accuracy")
            params = "" if row["params"] is None else f"{row['params']:,}"
            cells = str(row["number"]), params, f"{row['epochs']}", format_percent(accuracy, images)
            lines.append((*cells, row["outcome"].replace("_", " ")))
    return Table(("trial", "params", "epochs", "best until then", "outcome"), lines)


def meaning(board: Board) -> str:
    """Meaning of the columns of a leaderboard, in a sentence."""
    measure = measure_of(board)
    interval = ", with its 95 % interval" if board.get("val_images") else ""
    span = f"of the mean of {trainings(board)} over its epochs" if board.get("folds") else "over the epochs of one training"
    text = (
        f"Best: the highest validation {measure.label} {span}{interval}; last epoch: the "
        f"{measure.label} of the last one; against the base: the difference in points."
    )
    return text if "metric" not in board else f"{text} {measure.title} is {measure.meaning}."


def counts_words(board: Board) -> str:
    """Number of trials by outcome, as text, and where adopted ones come from."""
    counts = ", ".join(f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in board["counts"].items())
    adopted = adopted_words(board)
    return counts if adopted is None else f"{counts}. {adopted.removesuffix('.')}"


def base_table(config: StudyConfig, board: Board) -> Table:
    """Table of a base network: results of this run and published ones."""
    rows = [_scores(board, "this run", board["base"])] if board["base"] else []
    with contextlib.suppress(UserError):  # the file may have been removed since
        published = named(str(config.base)).published
        if published and "metric" not in board:  # published figures are accuracies
            log: dict[str, Any] = {"params": None} | published.model_dump()
            if "ranked_by" in board:  # a published accuracy is that of the floats
                log |= {"best_val_accuracy": None, "float_val_accuracy": published.best_val_accuracy}
            rows.append(_scores({**board, "val_images": None}, "published", log))
    return Table(("", "params", *accuracy_columns(board, last="last epoch")), rows)


def settings(config: StudyConfig) -> str:
    """All effective settings, one line per key."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in flat(config.dump()))


def _scores(board: Board, name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    params = "" if row["params"] is None else f"{row['params']:,}"
    return name, params, *accuracy_cells(board, row)


def _cells(board: Board, name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    interval = (interval_text(board, row),) if board.get("val_images") else ()
    return *_scores(board, name, row), *interval
