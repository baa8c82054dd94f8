"""The Pareto front of a study, of accuracy and cost metrics, as plain rows and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from report.tables import Table, accuracy_cells, accuracy_columns, leaderboard, measure_of, ranking
from search.budget.metrics import METRICS
from search.study.dataset import images_of
from search.study.pareto import add_costs, select_front
from search.study.records import Record, ranked, trained_count
from search.study.run import DATA, Opened, Studies
from search.text import format_points

Front = Mapping[str, Any]


def front_board(study: Opened, metrics: Sequence[str], studies: Studies | None = None) -> dict[str, Any]:
    """Rows of `top --json --pareto`: leaderboard rows with costs, sorted by the first metric.

    The base and other references are listed beside the front: they are not candidates, and no budget applies to them.

    Args:
        studies: the open studies of the run; opened if None.
    """
    study = add_costs(study, metrics, studies)
    images = images_of(studies.candidates.user_attrs[DATA], "validation") if studies else None
    board = leaderboard(*study, images)
    rows, found = {row["number"]: row for row in board["trials"]}, select_front(study.candidates, metrics)
    known: dict[str | None, Record] = {one.reference: one for one in reversed(ranked(study.references))}
    base = known.get(study.run.config.base_name) if study.run.config.base_name else None
    return {
        "study": study.run.name,
        "prices": list(metrics),
        "trained": trained_count(board["counts"]),
        **ranking(study.run.config),
        "base": board["base"] and board["base"] | _costs(base, metrics),
        "references": [row | _costs(known[row["name"]], metrics) for row in board["references"]],
        "trials": [rows[record.number] | _costs(record, metrics) for record in found],
        "val_images": images,
    }


def front_table(front: Front, *, is_page: bool = False) -> Table:
    """The front as a table, the base and other references above it.

    Args:
        is_page: name the costs by their labels with units; on a terminal, which is narrow, by the keys that options take.
    """
    metrics = list(dict.fromkeys([*front["prices"], "params"]))
    best = front["base"] and front["base"]["best_val_accuracy"]
    lines = [_cells(front, "", "base", front["base"], metrics, None)] if front["base"] else []
    lines += [_cells(front, "", row["name"], row, metrics, best) for row in front["references"]]
    lines += [_cells(front, str(row["rank"]), str(row["number"]), row, metrics, best) for row in front["trials"]]
    costs = [METRICS[name].axis if is_page else name for name in metrics]
    return Table(("rank", "trial", *costs, *accuracy_columns(front), "against base"), lines)


def front_words(front: Front) -> str:
    """One-sentence description of the table."""
    metrics, n = " and ".join(METRICS[name].label for name in front["prices"]), len(front["trials"])
    better = "is as accurate" if "metric" not in front else f"has as high a {measure_of(front).label}"
    return f"{n:,} of {front['trained']:,} trained candidates: no other {better} and takes no more {metrics}."


def _costs(record: Record | None, names: Sequence[str]) -> dict[str, int | None]:
    return {name: record.cost(name) if record else None for name in names}


def _cells(
    front: Front, rank: str, name: str, row: Mapping[str, Any], metrics: Sequence[str], base: float | None
) -> tuple[str, ...]:
    costs = ("" if row[metric] is None else f"{row[metric]:,}" for metric in metrics)
    gap = "" if base is None else format_points(row["best_val_accuracy"] - base, front["val_images"])
    return rank, name, *costs, *accuracy_cells(front, row), gap
