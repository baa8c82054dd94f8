"""Section with the leaderboard: it sorts, filters, opens a trial, and saves itself as CSV or JSON.

The table itself is plain HTML. What a row opens to, and the plain values behind the cells, are packed beside it (`trials`)
and unpacked by `leaderboard.js`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any, NamedTuple

import space
from report.analysis.contrast import display_name
from report.analysis.findings import Findings
from report.html import markup
from report.html.markup import Section
from report.markdown.formatting import without_paths
from report.markdown.summary import STOPPED, base_table, counts_words, meaning
from report.network.drawing import network_svg
from report.network.layout import View
from report.tables import chance_difference, images_behind, measure_of, trainings
from search.finals.results import FinalistResult
from search.finals.statistics import wilson
from search.study.pareto import add_costs
from search.study.records import Record, origin_words
from search.study.run import Opened
from search.text import format_count, format_percent, format_percent_span, format_points, format_points_span

SHOWN = 20  # rows shown at first
DRAWN = 100  # best candidates with drawing and curve
METRICS = ("params", "macs", "flash_bytes", "arena_bytes")

Row = dict[str, Any]


class Column(NamedTuple):
    """Column of the table, and key of its plain value."""

    key: str
    title: str
    is_left: bool = False


COLUMNS = (  # those that decide first: a phone shows the first four
    Column("rank", "rank"),
    Column("name", "trial", is_left=True),
    Column("best_val_accuracy", "best"),
    Column("delta_vs_base", "against base"),
    Column("params", "params"),
    Column("macs", "multiply-adds"),
    Column("flash_bytes", "flash, bytes"),
    Column("arena_bytes", "arena, bytes"),
    Column("best_epoch", "epoch"),
    Column("final_val_accuracy", "last epoch"),
    Column("seconds", "seconds"),
    Column("outcome", "outcome", is_left=True),
)


def columns(board: Mapping[str, Any]) -> tuple[Column, ...]:
    """Columns of a board; in a study ranked by int8 accuracy each says which accuracy it is."""
    best = "best" if "metric" not in board else f"best {measure_of(board).label}"
    if board.get("ranked_by") != "int8":
        return tuple(column._replace(title=best) if column.title == "best" else column for column in COLUMNS)
    titles = {"best_val_accuracy": f"{best} in int8", "final_val_accuracy": "last in float"}
    named = [column._replace(title=titles.get(column.key, column.title)) for column in COLUMNS]
    place = 1 + next(index for index, column in enumerate(named) if column.key == "best_val_accuracy")
    return *named[:place], Column("float_val_accuracy", "best in float"), *named[place:]


def section(findings: Findings) -> Section:
    """Base, references, candidates by rank, then those that were stopped early."""
    rows = leaderboard_rows(findings)
    images = findings.board.get("val_images")
    parts = [
        _controls(rows),
        markup.scrolling(_table(rows, columns(findings.board), images), "Leaderboard"),
        _note(findings, rows),
    ]
    base = findings.run.config.base_name
    if base is not None and (known := base_table(findings.run.config, findings.board)).rows:
        title = "The base" if base == "base" else f"The base, {base}"
        parts.append(markup.details(title, markup.table(known, "The base")))
    packed = markup.packed(json.dumps(_trials(findings, rows), separators=(",", ":")))
    parts.append(f'<script type="application/gzip" id="trials">{packed}</script>')
    return Section("leaderboard", "Leaderboard", "".join(parts))


# --- rows ------------------------------------------------------------------------------------------------------------


def leaderboard_rows(findings: Findings) -> list[Row]:
    """Plain values of each row, in the order of the table; accuracies are fractions, None is unknown.

    `tie` is true for ranked candidates whose distance to the winner chance makes between two trainings on so many images.
    """
    board = findings.board
    opened = Opened(findings.run, findings.candidates, findings.references)
    priced = add_costs(opened, METRICS, findings.studies)
    candidates = {record.number: record for record in priced.candidates}
    references = {record.reference: record for record in reversed(priced.references) if record.outcome == "trained"}
    rows = []
    named = [("base", board["base"], references.get(findings.run.config.base_name))] if board["base"] else []
    named += [(row["name"], row, references.get(row["name"])) for row in board["references"]]
    for name, scores, record in named:
        rows.append(_row(board, name, "reference", scores, record))
    winner = board["trials"][0]
    for scores in board["trials"]:
        row = _row(board, str(scores["number"]), scores["outcome"], scores, candidates[scores["number"]])
        if images_behind(board, winner) and scores["rank"] is not None:
            gap = winner["best_val_accuracy"] - scores["best_val_accuracy"]
            row["tie"] = gap <= (chance_difference(board, winner, scores) or 0.0)
        rows.append(row)
    return rows


def _row(board: Mapping[str, Any], name: str, outcome: str, scores: Mapping[str, Any], record: Record | None) -> Row:
    row: Row = {column.key: scores.get(column.key) for column in COLUMNS} | {"name": name, "outcome": outcome}
    if board.get("ranked_by") == "int8":  # a base that is a number has no accuracy in float
        row["float_val_accuracy"] = scores.get("float_val_accuracy")
    row |= {"adopted": origin_words(scores["adopted"])} if scores.get("adopted") else {}
    row |= {"number": scores.get("number"), "epochs": scores.get("epochs"), "low": None, "high": None, "tie": False}
    if record is not None:
        row |= {metric: record.cost(metric) for metric in METRICS} | {"epochs": record.epochs, "seconds": record.seconds}
    row |= scores.get("measures", {})
    images = images_behind(board, scores)
    if images and row["best_val_accuracy"] is not None and row["params"] is not None:
        row["low"], row["high"] = wilson(row["best_val_accuracy"], images)
    return row


# --- table -----------------------------------------------------------------------------------------------------------


def _controls(rows: Sequence[Row]) -> str:
    """Search field, selection by outcome, and files; hidden where scripts are off."""
    outcomes = dict.fromkeys(row["outcome"] for row in rows)
    options = "".join(f'<option value="{outcome}">{outcome.replace("_", " ")}</option>' for outcome in outcomes)
    return (
        '<div class="controls" hidden>'
        '<label>Filter <input type="search" id="filter" placeholder="trial or choice, such as kernel 5" autocomplete="off">'
        '</label><label>Outcome <select id="outcome"><option value="">all</option>' + options + "</select></label>"
        '<span class="files"><button type="button" data-file="csv">CSV</button>'
        '<button type="button" data-file="json">JSON</button></span>'
        '<output aria-live="polite"></output></div>'
    )


def _table(rows: Sequence[Row], shown: Sequence[Column], images: int | None) -> str:
    heads = "".join(
        f'<th scope="col"{"" if column.is_left else " class=n"} data-key="{column.key}">{escape(column.title)}</th>'
        for column in shown
    )
    winner = next((index for index, row in enumerate(rows) if row["rank"] == 1), None)
    first_stopped = next((i for i, row in enumerate(rows) if row["rank"] is None and row["number"] is not None), len(rows))
    n_references = sum(row["number"] is None for row in rows)
    lines = []
    for index, row in enumerate(rows):
        kinds = ["base"] if row["number"] is None else []
        kinds += ["winner"] if index == winner else []
        kinds += ["tie"] if row["tie"] else []
        kinds += ["stopped"] if index >= first_stopped else []
        kinds += ["more"] if index >= n_references + SHOWN else []
        cells = "".join(_cells(row, shown, images))
        lines.append(f'<tr class="{" ".join(kinds)}" data-row="{index}">{cells}</tr>')
    return f'<table class="wide ranking" id="ranking"><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _cells(row: Row, shown: Sequence[Column], images: int | None) -> Iterator[str]:
    for column in shown:
        value = row[column.key]
        text = _text(column.key, value, row, images)
        more = ""
        if column.key == "best_val_accuracy" and row["low"] is not None:
            more = f" <small>{format_percent_span(row['low'], row['high'], images).removesuffix('%')}</small>"
        yield f"<td{'' if column.is_left else ' class=n'}>{escape(text)}{more}</td>"


def _text(key: str, value: Any, row: Row, images: int | None) -> str:
    if value is None:
        return ""
    if key in ("best_val_accuracy", "float_val_accuracy", "final_val_accuracy"):
        return format_percent(value, images)
    if key == "delta_vs_base":
        return format_points(value, images) if row["rank"] is not None else ""
    if key == "outcome" and row.get("adopted"):
        return f"adopted: {row['adopted']}"
    if key == "outcome":
        stopped = value == "pruned_at_rung"
        return f"stopped after {format_count(row['epochs'], 'epoch')}" if stopped else str(value).replace("_", " ")
    if key == "seconds":
        return f"{value:.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _note(findings: Findings, rows: Sequence[Row]) -> str:
    words = f"{counts_words(findings.board)}. {meaning(findings.board)}"
    images, ties = findings.board.get("val_images"), sum(row["tie"] for row in rows)
    if images and ties > 1:
        words += f" The bar on the left marks {ties:,} candidates that {trainings(findings.board)} on "
        words += f"{images:,} images cannot tell apart."
    if any(row["rank"] is None and row["number"] is not None for row in rows):
        words += f" {STOPPED}: the candidates without a rank, below the others."
    return markup.paragraph(words, "remark")


# --- what a row opens to ---------------------------------------------------------------------------------------------


def _trials(findings: Findings, rows: Sequence[Row]) -> dict[str, Any]:
    """Plain values of all rows; by number, choices of each candidate, curves and drawings of the best, and finals."""
    trials = findings.studies.candidates.get_trials(deepcopy=False)
    config, images = findings.run.config, findings.board.get("val_images")
    chosen = {row["number"]: config.declared(trials[row["number"]].params) for row in rows if row["number"] is not None}
    keys = list(dict.fromkeys(key for values in chosen.values() for key in values))
    best = [row["number"] for row in rows if row["rank"] is not None][:DRAWN]
    records = {record.number: record for record in findings.candidates}
    base = [record for record in findings.references if record.reference == config.base_name and record.curve]
    shape, classes = tuple(findings.data["input"]), findings.data["classes"]
    finals = () if findings.finals is None else findings.finals.finalists
    return {
        "study": findings.run.name,
        "called": without_paths(findings.run.called or findings.run.name, findings.run),
        "rows": [{key: _plain(value) for key, value in row.items()} for row in rows],
        "choices": [display_name(key) for key in keys],
        "chosen": {number: [values.get(key) for key in keys] for number, values in chosen.items()},
        "curves": {number: _curve(records[number].curve) for number in best},
        "base": _curve(base[-1].curve) if base else [],
        "drawings": {
            number: network_svg(
                replace(space.build(config.space, chosen[number], shape, classes), name=f"trial {number}"), View.COMPACT
            )
            for number in best
        },
        "finals": {one.number: _finals_words(one, findings) for one in finals if one.number is not None},
        "images": images,
        "measure": f"Validation {config.metric_label}",
    }


def _plain(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _curve(accuracies: Sequence[float]) -> list[int]:
    """Accuracies in hundredths of a percent."""
    return [round(10_000 * accuracy) for accuracy in accuracies]


def _finals_words(one: FinalistResult, findings: Findings) -> str:
    assert findings.finals is not None
    span = "" if one.interval is None else f" (95 % interval {format_percent_span(*one.interval, None)})"
    seeds = format_count(findings.finals.seeds, "fresh seed")
    words = f"mean {findings.finals.measure_label} {format_percent(one.mean, None)}{span} on {seeds}"
    if (base := one.against_base) is not None:
        gap = "" if base.low is None or base.high is None else f" ({format_points_span(base.low, base.high, None)})"
        words += f"; {format_points(base.difference, None)} points against the base{gap}" + (
            ", a tie" if base.is_tie else ""
        )
    return words
