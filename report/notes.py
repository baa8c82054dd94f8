"""The notes that optuna-dashboard shows with a study and with each of its trials, in Markdown.

A finished trial cannot be changed, so its note is written while it is alive; the study's own note and figure are replaced
as the study goes on. What a person writes in the dashboard below `YOURS` stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from plotly.graph_objects import Figure

from report.tables import leaderboard, refusal_words
from search.architecture import Architecture
from search.config import StudyConfig
from search.cost import Budget, price_layer
from search.geometry import flatten, resolve
from search.layers import describe
from search.study import Record, Run

GRAPH = "learning-curves"  # the same name each time, so that the figure is replaced
YOURS = "*Above this line the note is rewritten after each trial; what you write below it stays.*"
BEYOND = " \\*"  # marks a receptive field that exceeds the image


# --- text ------------------------------------------------------------------------------------------------------------


def trial_note(architecture: Architecture | None, attributes: Mapping[str, Any], budget: Budget) -> str:
    """What became of a trial, in one line, and its network layer by layer.

    Args:
        architecture: None where the proposal is no network that can exist.
        attributes: the user attributes of the trial, as `objective` writes them.
    """
    outcome = attributes.get("outcome", "unfinished")
    if outcome == "trained":
        line = _score(attributes, budget)
    else:
        line = f"**{outcome.replace('_', ' ').capitalize()}:** {escaped(attributes.get('reason', 'no reason given'))}"
    return line + (f"\n\n{layer_table(architecture)}" if architecture else "") + "\n"


def study_note(run: Run, candidates: list[Record], references: list[Record]) -> str:
    """What the study asks, how far it has come, and how its columns read."""
    config, board = run.config, leaderboard(run, candidates, references)
    limits = f"under {config.budget.params:,} parameters"
    kinds = "of separable convolutions only and " if config.budget.separable_only else ""
    counts = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in board["counts"].items())
    paragraphs = [
        f"# {escaped(run.name)}",
        f"Which network {kinds}strictly {limits} classifies {escaped(config.data.name or 'these images')} best?",
        f"**Best so far:** {_best_line(board)}",
        f"**Base:** {_base_line(config, board)}",
        f"**Trials:** {counts}; the study ends with {config.trials} trained{_rungs(config)}.",
        *([f"**Refused before training:** {escaped(refused)}."] if (refused := refusal_words(candidates)) else []),
        f"**Protocol {config.protocol}:** {protocol_words(config)}",
        "## How to read the columns",
        _COLUMNS.format(references=escaped(f"{run.name}.references")),
    ]
    return "\n\n".join(paragraphs) + "\n"


def layer_table(architecture: Architecture) -> str:
    """The network as a Markdown table; a receptive field beyond the image is marked.

    Raises:
        ArchitectureError: the network cannot exist, see `search.geometry.resolve`.
    """
    rows = layer_rows(architecture)
    lines = ["| layer | options | output | receptive field | params |", "|:--|:--|--:|--:|--:|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    if any(BEYOND in row[3] for row in rows):
        side = max(architecture.input[:2])
        lines += ["", f"\\* the receptive field exceeds the image ({side}x{side}): such a value sees all of it and padding"]
    return "\n".join(lines)


def layer_rows(architecture: Architecture) -> list[tuple[str, str, str, str, str]]:
    """(layer, options, output size, receptive field, parameters) of each layer, as cells of a Markdown table."""
    side, rows = max(architecture.input[:2]), []
    for depth, row in flatten(resolve(architecture)):
        field, params = row.receptive_field, price_layer(row).params
        rows.append(
            (
                "· " * depth + escaped(row.name),
                escaped(describe(row.layer)),
                "x".join(map(str, row.output)),
                "" if field is None else f"{field}x{field}{BEYOND if field > side else ''}",
                f"{params:,}" if params else "",
            )
        )
    return rows


def protocol_words(config: StudyConfig) -> str:
    """Which images the accuracies are measured on, and what that does to them."""
    if config.protocol == "course":
        return (
            "validation accuracy is measured on the test images"
            + (
                ", as in the published logs, so that numbers can be laid beside theirs"
                if config.data.name == "cifar10"
                else ""
            )
            + ". It flatters: the best of many trainings and epochs is picked on those very images."
        )
    return (
        "validation accuracy is measured on images held out from training; the test images are not looked at. "
        "The best of many trainings and epochs is picked on the held-out images, so the best figure flatters a little."
    )


def against_base(delta: float) -> str:
    """A difference of accuracies in words, such as `0.56 points above the base`."""
    if not delta:
        return "level with the base"
    return f"{100 * abs(delta):.2f} points {'above' if delta > 0 else 'below'} the base"


def escaped(text: object) -> str:
    """Text that Markdown shows as it is, in one line, in a table too."""
    return re.sub(r"[\\`*{}\[\]<>|#$~&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(str(text).split()))


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], align: str = "--:") -> str:
    """Rows of cells as a Markdown table, all but the first column aligned to the right."""
    lines = [tuple(columns), *(tuple(row) for row in rows)]
    lines.insert(1, (":--", *[align] * (len(lines[0]) - 1)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_COLUMNS = """\
- **Value**, Objective 0 in the plots, is the best validation accuracy of one training, a fraction (0.9 is 90%).
- **Pruned** trials have no value: they fell behind at a rung, diverged, or were rejected and never built; `outcome` and
  `reason` tell. What the sampler itself refuses is drawn again and is no trial: `refused` counts it.
- **params** and **macs** are the network's parameters and its multiply-adds for one image.
- **best_val_accuracy**, **best_epoch**, **final_val_accuracy**: the value again, its epoch, and the last epoch's accuracy.
- **delta_vs_base** is the value less the base's best, 0.01 being one point; it compares single trainings.
- The base itself is in the study {references}; each trial's own note shows its network layer by layer."""


def _rungs(config: StudyConfig) -> str:
    if not config.rungs:
        return ""
    return f" or pruned at a rung (after {', '.join(map(str, config.rungs))} of {config.recipe.epochs} epochs)"


def _score(attributes: Mapping[str, Any], budget: Budget) -> str:
    best, last, params = (attributes[key] for key in ("best_val_accuracy", "final_val_accuracy", "params"))
    parts = [
        f"**{best:.2%}** validation accuracy in epoch {attributes['best_epoch']} of {attributes['epochs']}",
        f"{last:.2%} in the last",
    ]
    if (delta := attributes.get("delta_vs_base")) is not None:
        parts.append(against_base(delta))
    limit = "" if "reference" in attributes else f", the budget is under {budget.params:,}"
    return f"{', '.join(parts)}; {params:,} parameters{limit}."


def _best_line(board: Mapping[str, Any]) -> str:
    trials = [trial for trial in board["trials"] if trial["rank"] == 1]
    if not trials:
        return "no candidate has been trained yet."
    best = trials[0]
    gap = "" if best["delta_vs_base"] is None else f", {against_base(best['delta_vs_base'])}"
    return f"trial {best['number']}, {best['best_val_accuracy']:.2%} with {best['params']:,} parameters{gap}."


def _base_line(config: StudyConfig, board: Mapping[str, Any]) -> str:
    base, name = board["base"], config.base_name
    if name is None:
        return f"an accuracy to beat, {base['best_val_accuracy']:.2%}."
    if base is None:
        return f"{escaped(name)}, not trained yet."
    return (
        f"{escaped(name)}, {base['params']:,} parameters, {base['best_val_accuracy']:.2%} in epoch {base['best_epoch']}, "
        f"{base['final_val_accuracy']:.2%} in the last."
    )


# --- storing ---------------------------------------------------------------------------------------------------------


def save_trial_note(trial: optuna.Trial, text: str) -> None:
    """Store the note of a trial; the dashboard keeps it with the study."""
    from optuna_dashboard import save_note

    save_note(trial, text)


def save_study(study: optuna.Study, note: str, figure: Figure) -> None:
    """Store the study's note and figure in place of those before; what a person wrote below `YOURS` stays."""
    from optuna_dashboard import get_note, save_note, save_plotly_graph_object

    before = get_note(study)
    theirs = before.partition(YOURS)[2] if YOURS in before else before and f"\n\n{before}"
    note += f"\n---\n\n{YOURS}{theirs}"
    if note != before:
        save_note(study, note)
    save_plotly_graph_object(study, figure, graph_object_id=GRAPH)
