"""A study as lists of flat dicts for notebooks: `pandas.DataFrame(rows.trials(study))` is a table.

    from report import figures, rows
    from search.study.run import open_study

    study = open_study("quickstart")

Accuracies are fractions; None marks missing values.
"""

from __future__ import annotations

from typing import Any

from report.pareto import front_board
from report.tables import leaderboard as board_of
from search.budget.summary import layer_rows
from search.errors import UserError
from search.files import read_json
from search.finals.results import FinalistResult, load_results
from search.finals.statistics import Comparison
from search.study.pareto import check_metrics
from search.study.records import Record, ranked
from search.study.run import Opened, load, network_of
from search.study.trained import is_own_log
from search.training.measures import MEASURES

Row = dict[str, Any]

_SCORES = ("params", "best_val_accuracy", "best_epoch", "final_val_accuracy", "delta_vs_base", "epochs", "seconds")
_COLUMNS = ("rank", "name", "number", "outcome", *_SCORES)
_OF_TRIAL = ("number", "rank", "outcome", "reason", "macs", *_SCORES, "flip_val_accuracy")


def leaderboard(study: Opened) -> list[Row]:
    """Rows of `python -m search top`: the base, other references, then the candidates by rank.

    In a study that ranks by another measure than accuracy `best_val_accuracy` and the like are values of it, and a column
    for each measure has those of the best epoch.
    """
    board = board_of(*study)
    base, rows = board["base"], list[Row]()
    trained = {one.reference: one for one in reversed(ranked(study.references))}
    opponents = [{"name": study.run.config.base_name or f"{study.run.config.metric_label} to beat"} | base] if base else []
    for row in opponents + board["references"]:
        of_trial = {key: getattr(trained.get(row["name"]), key, None) for key in ("epochs", "seconds", "outcome")}
        gap = None if base is None else row["best_val_accuracy"] - base["best_val_accuracy"]
        rows.append({"rank": None, "number": None, "delta_vs_base": gap} | row | of_trial)
    rows += [{"name": f"trial {row['number']}"} | row for row in board["trials"]]
    shown = [{key: row[key] for key in _COLUMNS} for row in rows]
    if "metric" in board:
        for line, row in zip(shown, rows, strict=True):
            line.update(dict.fromkeys(MEASURES) | row.get("measures", {}))
    return shown


def front(study: Opened, *metrics: str) -> list[Row]:
    """Pareto front of accuracy and these cost metrics, by rising cost.

    Args:
        metrics: params, macs, flash_bytes, peak_activation_bytes, arena_bytes.

    Raises:
        UserError: one of them is no cost metric.
    """
    rows = front_board(study, check_metrics(metrics))["trials"]
    return [{key: row[key] for key in dict.fromkeys(("rank", "number", *metrics, *_SCORES))} for row in rows]


def trials(study: Opened) -> list[Row]:
    """Every started trial by number, including rejected, pruned and failed ones, with its sampled values.

    With `fit = "fill"` the widths are the sampled proportions; `layers` has the widths that were built.
    """
    run, known = study.run, {row["number"]: row for row in leaderboard(study)}
    drawn = {record.number: record.params for record in load(run).candidates.get_trials(deepcopy=False)}
    rows = []
    for record in study.candidates:
        row = {key: getattr(record, key, known.get(record.number, {}).get(key)) for key in _OF_TRIAL}
        row |= {"refused_before": sum(record.refused.values()), "adopted": record.origin}
        rows.append(row | dict.fromkeys(run.config.parameters) | run.config.declared(drawn[record.number]))
    return rows


def epochs(study: Opened) -> list[Row]:
    """Training logs in long form: one row per epoch of every reference and candidate that has a log.

    `trial` is a candidate's number or a reference's name; the other columns are those of `search.training.result.Epoch`.
    """
    logs: list[tuple[int | str, str, Record]] = [
        (name, f"references/{name}", record)
        for name in _references(study)
        for record in study.references
        if record.reference == name
    ]
    logs += [(record.number, f"trials/{record.number}", record) for record in study.candidates]
    rows = []
    for trial, folder, record in logs:
        try:
            history = read_json(study.run.folder / folder / "history.json")
        except UserError:  # not trained to a verdict, or its files are missing
            continue
        if is_own_log(history, record.curve, study.run.config.search.metric):
            rows += [{"trial": trial} | epoch for epoch in history]
    return rows


def layers(study: Opened, number: int | None = None) -> list[Row]:
    """The network of a trial (default: the best) layer by layer; receptive fields in pixels, not clipped.

    Raises:
        UserError: there is no such trial, or none has been trained yet.
    """
    return [
        {
            "name": row.name,
            "kind": row.layer.kind,
            "options": row.options,
            "output": row.output_text,
            "receptive_field": row.receptive_field,
            "params": row.params,
            "macs": row.macs,
        }
        for row in layer_rows(network_of(study.run, number))
    ]


def finals(study: Opened) -> list[Row]:
    """Finalists on fresh seeds, best mean first; empty until finals are complete."""
    results = load_results(study.run)
    return (
        []
        if results is None
        else [{"measure": results.measure, "seeds": results.seeds} | _final(one) for one in results.finalists]
    )


def _final(finalist: FinalistResult) -> Row:
    low, high = finalist.interval or (None, None)
    row = {key: getattr(finalist, key) for key in ("name", "number", "params", "search_score", "mean", "spread")}
    row |= {"low": low, "high": high, "winners_curse": finalist.winners_curse, **(finalist.measures or {})}
    return row | _versus("base", finalist.against_base) | _versus("leader", finalist.against_leader)


def _versus(whom: str, comparison: Comparison | None) -> Row:
    keys = ("difference", "low", "high", "is_tie")
    return {f"against_{whom}_{key}".replace("_difference", ""): getattr(comparison, key, None) for key in keys}


def _references(study: Opened) -> list[str]:
    return list(dict.fromkeys(one.reference for one in study.references if one.reference))
