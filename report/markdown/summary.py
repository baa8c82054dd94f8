"""Sentences and tables that all reports share: verdict, leaderboard, base, settings.

Text is not escaped here: each page escapes it for its own format.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from report.markdown.formatting import against_base
from report.tables import Table, accuracy_cells, accuracy_columns
from search.errors import UserError
from search.finals.results import FinalsResult
from search.study.config import StudyConfig, flat, hardly_learnt
from search.study.references import named

Board = Mapping[str, Any]

# --- the verdict -----------------------------------------------------------------------------------------------------


def beats(board: Board) -> bool:
    """True if the winner (first trial of the board) is better than the base."""
    delta = board["trials"][0]["delta_vs_base"]
    return delta is not None and delta > 0


def base_hardly_learnt(board: Board, classes: int) -> bool:
    """True if the base learnt so little that beating it is no evidence."""
    base = board["base"]
    return bool(base and base["params"]) and hardly_learnt(base["best_val_accuracy"], classes)


def title(board: Board, classes: int) -> str:
    """Verdict in a few words."""
    if base_hardly_learnt(board, classes):
        return "the base hardly learnt"
    return "the base is beaten" if beats(board) else "the base is not beaten"


def verdict(board: Board, classes: int) -> str:
    """Comparison of the winner with the base in a few sentences."""
    winner, base, trained = board["trials"][0], board["base"], board["counts"]["trained"]
    reached = f"{winner['best_val_accuracy']:.2%} validation accuracy with {winner['params']:,} parameters"
    line = f"Trial {winner['number']}, the best of {trained} trained candidates, reaches {reached}"
    if base is None:
        return f"{line}; the base has not been trained."
    size = f", {base['params']:,} parameters" if base["params"] else ""
    return (
        f"{line}, {against_base(winner['delta_vs_base'])} ({base['best_val_accuracy']:.2%}{size}). "
        + ("The base hardly learnt, so to beat it says little. " if base_hardly_learnt(board, classes) else "")
        + "Each figure is one training, so a small difference may be chance."
    )


class Confirmed(NamedTuple):
    """FinalsResult of the winner on fresh seeds: a short label and a sentence."""

    status: Literal["not held", "confirmed", "tie", "not ahead", "worse", "unknown"]
    short: str
    words: str


def confirmation(results: FinalsResult | None, number: int, command: str) -> Confirmed:
    """Result of the finals for the winner of the search.

    Args:
        command: the command that runs finals, shown if they have not been run.
    """
    if results is None:
        return Confirmed("not held", "not confirmed yet", f"No finals yet; they show which lead is real: {command}")
    finalist = next(
        (finalist for finalist in results.finalists if finalist.number == number and finalist.name == f"trial-{number}"),
        None,
    )
    if finalist is None:
        words = f"Trial {number} is in no finals: they were run before it, or it was not trained on every seed."
        return Confirmed("unknown", "not confirmed", words)
    seeds = f"{results.seeds} fresh seed{'s' if results.seeds > 1 else ''}"
    mean = f"its mean is {finalist.mean:.2%} on {seeds}"
    ahead = finalist.against_leader
    if ahead and not ahead.is_tie:
        return Confirmed("not ahead", "not confirmed", f"Not confirmed: {mean}, and {results.leader} is really ahead of it.")
    base = finalist.against_base
    if base is None:
        return Confirmed("unknown", "no base to compare", f"In the finals {mean}; there is no base to compare it with.")
    gap = f"{100 * abs(base.difference):.2f} points {'above' if base.difference > 0 else 'below'} the base"
    if base.low is not None and base.high is not None:
        gap += f" (95 % interval {100 * base.low:+.2f} to {100 * base.high:+.2f})"
    if base.is_tie:
        return Confirmed("tie", "a tie with the base", f"In the finals {mean}, {gap}: a tie, as chance can make that much.")
    if base.difference < 0:
        return Confirmed("worse", "below the base", f"Not confirmed: {mean}, {gap}.")
    return Confirmed("confirmed", "confirmed", f"Confirmed on fresh seeds: {mean}, {gap}.")


# --- tables ----------------------------------------------------------------------------------------------------------


def leaderboard_table(board: Board) -> Table:
    """Leaderboard: base, other references, candidates by rank, then unranked ones."""
    best = board["base"]["best_val_accuracy"] if board["base"] else None
    lines = [("", *_scores(board, "base", board["base"]), "", "")] if board["base"] else []
    for row in board["references"]:
        gap = "" if best is None else f"{100 * (row['best_val_accuracy'] - best):+.2f}"
        lines.append(("", *_scores(board, row["name"], row), gap, ""))
    for row in board["trials"]:
        gap = "" if row["delta_vs_base"] is None else f"{100 * row['delta_vs_base']:+.2f}"
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        last = seconds if row["rank"] else row["outcome"].replace("_", " ")
        lines.append((str(row["rank"] or ""), *_scores(board, str(row["number"]), row), gap, last))
    accuracies = accuracy_columns(board, last="last epoch")
    return Table(("rank", "trial", "params", *accuracies, "points against the base", "seconds"), lines)


def counts_words(board: Board) -> str:
    """Number of trials by outcome, as text."""
    return ", ".join(f"{count:,} {outcome.replace('_', ' ')}" for outcome, count in board["counts"].items())


def base_table(config: StudyConfig, board: Board) -> Table:
    """Table of a base network: results of this run and published ones."""
    rows = [_scores(board, "this run", board["base"])] if board["base"] else []
    with contextlib.suppress(UserError):  # the file may have been removed since
        if published := named(str(config.base)).published:
            log: dict[str, Any] = {"params": None} | published.model_dump()
            if "ranked_by" in board:  # a published accuracy is that of the floats
                log |= {"best_val_accuracy": None, "float_val_accuracy": published.best_val_accuracy}
            rows.append(_scores(board, "published", log))
    return Table(("", "params", *accuracy_columns(board, last="last epoch")), rows)


def settings(config: StudyConfig) -> str:
    """All effective settings, one line per key."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in flat(config.dump()))


def _scores(board: Board, name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    params = "" if row["params"] is None else f"{row['params']:,}"
    return name, params, *accuracy_cells(board, row)
