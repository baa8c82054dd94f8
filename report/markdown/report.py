"""The Markdown report of a run, report.md: verdict, leaderboard, learning curves, winner, checklist, training logs.

Every number is read from the studies and the run folder, or counted on the network itself. The layers of the base come last.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from report.analysis.findings import Findings, gather
from report.analysis.mistakes import (
    CLASS_TABLE,
    Predictions,
    class_table,
    first_fold_words,
    not_evaluated,
    recall_title,
)
from report.analysis.verdict import Board, Standing, Verdict
from report.device import device_table
from report.figures import data as figure_data
from report.markdown.curves_svg import curves_svg
from report.markdown.effects import effects_section, finals_section
from report.markdown.formatting import escaped, layer_table, markdown, protocol_words, table, without_paths
from report.markdown.summary import (
    STOPPED,
    base_table,
    counts_words,
    leaderboard_table,
    meaning,
    settings,
    stopped_table,
)
from report.pareto import front_board, front_table, front_words
from report.tables import refusal_words
from search.budget.summary import layer_rows
from search.errors import UserError
from search.export.card import versions
from search.files import read_json, write_text
from search.networks.architecture import Architecture
from search.networks.layers import BatchNorm, Conv, Dropout, SeparableConv, SpatialSeparableConv, walk
from search.study.config import StudyConfig
from search.study.dataset import images_of
from search.study.records import Record
from search.study.references import named
from search.study.run import Opened, Run, Studies
from search.study.trained import is_own_log
from search.text import format_percent, format_percents
from search.training.measures import ACCURACY, MEASURES
from search.training.result import log_key

MOST_EPOCHS = 50  # most epochs of one training that the task allows
SUMMARY_WIDTH = 100
CURVES = "learning_curves.svg"  # beside report.md
BASE = "base"  # name of its curve

# Columns of a training log with the format of their values.
_LOG = {"epoch": "{}", "loss": "{:.4f}", "accuracy": "{:.2%}", "val_loss": "{:.4f}", "val_accuracy": "{:.2%}"}
_LOG |= {"learning_rate": "{:.3g}", "seconds": "{:.1f}"}


class Mark(StrEnum):
    """Result of a requirement."""

    MET = "✓"
    MISSED = "✗"
    TIE = "tie"


class Check(NamedTuple):
    """One line of the checklist: requirement, result, evidence."""

    asked: str
    mark: Mark
    evidence: str

    @property
    def holds(self) -> bool:
        return self.mark == Mark.MET


def write_report(
    run: Run,
    studies: Studies,
    found: Findings | None = None,
    folder: Path | None = None,
    predictions: Predictions | str | None = None,
) -> Path:
    """Write report.md into a folder, the run folder if None, atomically.

    Args:
        found: the result of `report.analysis.findings.gather`; gathered if None.
        predictions: of the winner for the validation images; without them the page has no recall of each class.

    Raises:
        UserError: no candidate has been trained yet.
    """
    found = found or gather(run, studies)
    network, base, to = found.network, run.config.base_name, folder or run.folder
    params, summary = keras_summary(network)
    effects = effects_section(run, studies.candidates)
    checked = checks(run.config, network, params, found.board, found.verdict)
    curves, device = _curves(found), found.device_board
    problem = None if predictions is None else not_evaluated(found, predictions)
    label = run.config.metric_label
    write_text(to / CURVES, curves_svg(curves, BASE, images_of(found.data, "validation"), label))
    sections = [
        f"# {escaped(run.name)}: {found.verdict.title}",
        *([f"**{escaped(unfinished)}**"] if (unfinished := found.unfinished) else []),
        escaped(found.verdict.text),
        *([f"**{escaped(problem)}**"] if problem else []),
        next_commands(found.verdict),
        f"## Leaderboard\n\n{_leaderboard(found)}",
        f"## Learning curves\n\n![Validation {label} by epoch: {' and '.join(curves)}]({CURVES})",
        f"## The winner: trial {found.number}\n\n{layer_table(network)}",
        *([_recall(predictions, found)] if isinstance(predictions, Predictions) else []),
        *([f"## On {escaped(device['device'])}\n\n{markdown(device_table(device))}"] if device else []),
        *([f"## The front\n\n{_front(found)}"] if run.config.cost_metrics else []),
        *([f"## On fresh seeds\n\n{finals_section(found.finals, found.board.get('val_images'))}"] if found.finals else []),
        *([f"## What each factor does\n\n{effects}"] if effects else []),
        f"## Checklist\n\n{checklist(checked)}",
        f"## The winner as Keras sees it\n\n```text\n{summary}\n```",
        f"## Training log of trial {found.number}\n\n"
        f"{_log(found, found.candidates, found.number, f'trials/{found.number}')}",
        f"## Protocol {run.config.protocol}\n\n{protocol_words(run.config, found.finals)}",
        f"## What was asked\n\n{_asked(run.config, found.data)}",
        f"## The base\n\n{_base(run.config, found.board)}",
        f"## Training log of the base\n\n{_log(found, found.references, base, f'references/{base}')}",
    ]
    write_text(path := to / "report.md", without_paths("\n\n".join(sections) + "\n", run))
    return path


def keras_summary(network: Architecture) -> tuple[int, str]:
    """Return (parameters, `summary()` text) of the network, built with Keras and not trained."""
    from search.training.model import build

    model, parts = build(network), list[str]()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(SUMMARY_WIDTH)  # what Keras prints through cuts off what exceeds the terminal
    try:
        model.summary(line_length=SUMMARY_WIDTH, print_fn=parts.append)
    finally:
        del os.environ["COLUMNS"]
        os.environ |= {} if before is None else {"COLUMNS": before}
    return model.count_params(), "\n".join(line.rstrip() for part in parts for line in part.splitlines() if line.strip())


def checks(config: StudyConfig, network: Architecture, params: int, board: Board, verdict: Verdict) -> list[Check]:
    """Check the winner (first trial of the board) against the task; `params` is counted by Keras."""
    layers, rows = list(walk(network.layers)), layer_rows(network)
    plain = sum(isinstance(layer, Conv) for layer in layers)
    separable = sum(isinstance(layer, SeparableConv | SpatialSeparableConv) for layer in layers)
    norms = sum(isinstance(layer, BatchNorm) for layer in layers)
    rates = sorted(layer.rate for layer in layers if isinstance(layer, Dropout) and layer.rate > 0)
    dropout = f"{len(rates)} layers, at rates from {rates[0]:g} to {rates[-1]:g}" if rates else "no layer of a rate above 0"
    sizes = [row.output_text for row in rows if row.output]
    fields = [row.receptive_field for row in rows if len(row.output) > 1]
    given = sum(field is not None for field in fields)
    limit, winner = config.budget.params, board["trials"][0]
    epochs, best_epoch = winner["epochs"] // max(len(winner.get("folds", ())), 1), winner["best_epoch"]
    facts = [
        ("separable convolutions only", separable > 0 == plain, f"{separable} separable, {plain} plain"),
        ("batch normalisation used", norms > 0, f"{norms} layers"),
        ("under the budget", params < limit, f"Keras counts {params:,} parameters, the budget is under {limit:,}"),
        ("dropout used", bool(rates), dropout),
        ("output sizes given", len(sizes) == len(rows), f"for {len(sizes)} of {len(rows)} layers"),
        ("receptive fields given", given == len(fields), f"for {given} of the {len(fields)} layers that have one"),
        (f"at most {MOST_EPOCHS} epochs", 0 < epochs <= MOST_EPOCHS, f"{epochs} trained, the best is {best_epoch}"),
    ]
    checked = [Check(asked, Mark.MET if holds else Mark.MISSED, evidence) for asked, holds, evidence in facts]
    return [*checked, Check("beats the base", _MARKS[verdict.standing], verdict.sentence)]


_MARKS = {
    Standing.UNTRAINED: Mark.MISSED,
    Standing.NO_BASE: Mark.MISSED,
    Standing.HARDLY_LEARNT: Mark.MISSED,
    Standing.AHEAD_ONCE: Mark.MET,
    Standing.LEVEL_ONCE: Mark.TIE,
    Standing.BEHIND_ONCE: Mark.MISSED,
    Standing.BEATEN: Mark.MET,
    Standing.TIED: Mark.TIE,
    Standing.BEHIND: Mark.MISSED,
}


# --- sections --------------------------------------------------------------------------------------------------------


def _base(config: StudyConfig, board: Board) -> str:
    name, base = config.base_name, board["base"]
    if name is None:
        accuracy = format_percent(base["best_val_accuracy"], board.get("val_images"))
        text = f"{MEASURES[config.search.metric].with_article} to beat, {accuracy}: no network was trained for it."
        return text[0].upper() + text[1:]
    layers = ""
    with contextlib.suppress(UserError):  # the file may have been removed since
        layers = f"\n\n{layer_table(named(str(config.base)).architecture)}"
    return f"{escaped(name)}\n\n{markdown(base_table(config, board))}{layers}"


def next_commands(verdict: Verdict) -> str:
    """The next commands as Markdown, the most useful first."""
    lines = (f"{command}    # {purpose}" for purpose, command in verdict.commands.items())
    return "Next:\n\n```sh\n" + "\n".join(lines) + "\n```"


def _leaderboard(found: Findings) -> str:
    board, stopped = found.board, stopped_table(found.board)
    parts = [markdown(leaderboard_table(board)), f"{counts_words(board)}. {meaning(board)}"]
    if stopped.rows:
        parts += [f"### {STOPPED}", markdown(stopped)]
    refused = refusal_words(found.candidates)
    return "\n\n".join([*parts, *([f"Rejected before training: {refused}."] if refused else [])])


def _curves(found: Findings) -> dict[str, tuple[float, ...]]:
    """Validation accuracies of the base and the winner by epoch; a base that is a plain accuracy is a level."""
    roles = ("base", "candidate")
    drawn = figure_data.curves(found.run, found.candidates, found.references, top=1)
    return {BASE if row.role == "base" else row.name: row.accuracies for row in drawn if row.role in roles}


def _recall(predictions: Predictions, found: Findings) -> str:
    folds = found.run.config.data.folds
    figures = {MEASURES[name].label: value for name, value in predictions.measures.items()}
    measured = f"{predictions.images:,} validation images: {format_percents(figures, predictions.images)}"
    words = f"Of the winner evaluated again on {measured}.{first_fold_words(folds)} {CLASS_TABLE}"
    return f"## {recall_title(folds)}\n\n{markdown(class_table(predictions))}\n\n{words}"


def _front(found: Findings) -> str:
    front = front_board(Opened(found.run, found.candidates, found.references), found.run.config.cost_metrics, found.studies)
    return f"{escaped(front_words(front))}\n\n{markdown(front_table(front, is_page=True))}"


def checklist(checks: Iterable[Check]) -> str:
    """Checklist as a Markdown table."""
    rows = [(check.mark.value, check.asked, escaped(check.evidence)) for check in checks]
    return table(("", "asked", "found"), rows, align=":--")


def _log(findings: Findings, records: Sequence[Record], trial: str | int | None, folder: str) -> str:
    """The training log of a reference by name or of a candidate by number."""
    metric = findings.run.config.search.metric
    if trial is None:
        return f"The base is a plain {MEASURES[metric].label}: there is no log of it."
    name = f"{folder}/history.json"
    curves = [
        record.curve for record in records if trial in (record.reference, record.number) and record.outcome == "trained"
    ]
    try:
        history = read_json(findings.run.folder / name)
        score = log_key(metric)
        forms = _log_forms(metric)
        epochs = [[epoch[key] for key in forms] for epoch in history]
        if not any(is_own_log(history, curve, metric) for curve in curves):
            return f"The log in the run folder ({escaped(name)}) is another trial's."
        top = max(history, key=lambda epoch: epoch[score])["epoch"]
        rows = [[form.format(value) for form, value in zip(forms.values(), epoch, strict=True)] for epoch in epochs]
    except (UserError, KeyError, TypeError, ValueError):
        return f"The log was not found in the run folder ({escaped(name)})."
    columns = [key.replace("_", " ").replace("val ", "validation ") for key in forms]
    return f"{table(columns, rows)}\n\nThe best validation {MEASURES[metric].label} is that of epoch {top}."


def _log_forms(metric: str) -> dict[str, str]:
    """Columns of a training log with the format of their values, the ranked measure after the accuracy."""
    place = list(_LOG).index(log_key(ACCURACY)) + 1
    columns = list(_LOG.items())
    return dict([*columns[:place], (log_key(metric), _LOG[log_key(ACCURACY)]), *columns[place:]])


def _asked(config: StudyConfig, data: Mapping[str, Any]) -> str:
    classes = escaped(", ".join(data["class_names"]))
    used = ", ".join(f"{package} {version}" for package, version in versions().items())
    return (
        f"```text\n{settings(config)}\n```\n\n- Data: {escaped(data['summary'])}; fingerprint {data['fingerprint']}\n"
        f"- Classes: {classes}\n- Versions where this page was written: {used}"
    )
