"""Markdown notes of a study and of its trials for optuna-dashboard."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from report.markdown.formatting import against_base, escaped, layer_table, markdown, protocol_words, table
from report.pareto import front_board, front_table, front_words
from report.tables import accuracy_cells, accuracy_columns, leaderboard, refusal_words
from search.budget.limits import Budget
from search.networks.architecture import Architecture
from search.storage.attributes import PROPOSAL, REFUSED
from search.study.config import StudyConfig
from search.study.records import Record, proposal_words
from search.study.run import Opened, Run

OBJECTIVE = "best validation accuracy"  # the dashboard's name for the value of a trial
FIRST = 5  # rows of the leaderboard shown
FRONT = 20  # rows of the front shown
EM_SPACE = "\u2003"


def trial_note(architecture: Architecture | None, attributes: Mapping[str, Any], budget: Budget) -> str:
    """Note of a trial: its outcome in one line, and its network layer by layer.

    Args:
        architecture: None if the sampled values describe no valid network.
        attributes: the user attributes of the trial, as `objective` writes them.
    """
    outcome = attributes.get("outcome", "unfinished")
    if outcome == "trained":
        line = _score(attributes, budget)
    else:
        line = f"**{outcome.replace('_', ' ').capitalize()}:** {escaped(attributes.get('reason', 'no reason given'))}"
    reason = proposal_words(attributes.get(PROPOSAL, {}))
    line += f"\n\n{escaped(reason[0].upper() + reason[1:])}." if reason else ""
    told = [f"{count:,} {rule}" for rule, count in attributes.get(REFUSED, {}).items()]
    refused = f"\n\nRejected before this network was proposed: {', '.join(told)}." if told else ""
    return _roomy(line + refused + (f"\n\n{layer_table(architecture)}" if architecture else "") + "\n")


def study_note(run: Run, candidates: list[Record], references: list[Record], finals: str | None = None) -> str:
    """Note of a study: question, progress, and how to read the dashboard.

    Args:
        finals: their results in Markdown; None if there are none.
    """
    config, board = run.config, leaderboard(run, candidates, references)
    kinds = "of separable convolutions only and " if config.budget.separable_only else ""
    counts = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in board["counts"].items())
    refused = refusal_words(candidates)
    question = f"Which network {kinds}strictly under {config.budget.words} classifies"
    paragraphs = [
        f"# {escaped(run.name)}",
        f"{question} {escaped(config.data.name or 'these images')} best?",
        *([f"**Objectives:** high accuracy; low {escaped(', '.join(config.cost_metrics))}."] if config.cost_metrics else []),
        f"**Best so far:** {_best_line(board)}",
        f"**Base:** {_base_line(config, board)}",
        f"**Trials:** {counts}; the study ends with {config.trials} trained{_rungs(config)}.",
        *([f"**Rejected before training:** {escaped(refused)}."] if refused else []),
        f"**Protocol {config.protocol}:** {protocol_words(config)}",
        *([f"## The first {FIRST}\n\n{_first(board)}"] if board["trials"] and board["trials"][0]["rank"] else []),
        *([f"## The front\n\n{front}"] if (front := _front(run, candidates, references)) else []),
        *([f"## Confirmed on fresh seeds\n\n{finals}"] if finals else []),
        f"## How to read this\n\n{_how_to_read(run)}",
    ]
    return _roomy("\n\n".join(paragraphs) + "\n")


def references_note(run: Run) -> str:
    """Note of the sibling study that holds the references."""
    return (
        f"# {escaped(run.name)}.references\n\nThe base and other known networks that study {escaped(run.name)} compares its "
        "candidates with, trained by the same code on the same data; no budget applies to them. Each trial's note "
        "shows its network layer by layer.\n"
    )


def _roomy(text: str) -> str:
    """Widen the columns of every table, which the dashboard sets close together."""
    return re.sub(
        r"^\|(?! ?:?--).*", lambda row: re.sub(r"(?<=[^\\])\| (?! )", f"| {EM_SPACE}", row[0]), text, flags=re.MULTILINE
    )


_HOW_TO_READ = """\
- **{value} in the plots, is the best validation accuracy of one training over its epochs, a fraction (0.9 is 90%).
- **Pruned** trials have no value: they fell behind at a rung, diverged, or were rejected and never built; `outcome` and
  `reason` say why. Proposals rejected inside the sampler are redrawn and are no trials: `refused` counts them.
- **params** and **macs** are the network's parameters and its multiply-adds for one image.
- **best_val_accuracy**, **best_epoch**, **final_val_accuracy**: the value again, its epoch, and the last epoch's accuracy.
- **delta_vs_base** is the value less the base's best, 0.01 being one point; it compares single trainings.
- **The graphs** of the first page: learning curves of the base and of the best; accuracy against parameters and
  multiply-adds with the Pareto front; refused proposals. Hollow points were pruned.
- Each trial's own note shows its network layer by layer; the base itself is in the study {references}.
- When the study has its trials, the winner and the write-up are at the foot of the first page, to download."""


def _how_to_read(run: Run) -> str:
    metrics = run.config.cost_metrics
    value = "Value 0**, *accuracy*" if metrics else f"Value**, *{OBJECTIVE}*"
    text = _HOW_TO_READ.format(value=value, references=escaped(f"{run.name}.references"))
    if not metrics:
        return text
    others = ", ".join(f"value {index} is {name}" for index, name in enumerate(metrics, 1))
    return (
        f"- This study has several objectives: {others}, to be low while accuracy is to be high. **Best** trials of the "
        f"dashboard are those of the front; where one list is needed, the most accurate come first.\n{text}"
    )


def _rungs(config: StudyConfig) -> str:
    if not config.rungs:
        return ""
    return f" or pruned at a rung (after {', '.join(map(str, config.rungs))} of {config.recipe.epochs} epochs)"


def _score(attributes: Mapping[str, Any], budget: Budget) -> str:
    best, last, params = (attributes[key] for key in ("best_val_accuracy", "final_val_accuracy", "params"))
    floats, how = attributes.get("float_val_accuracy"), " in int8" if "float_val_accuracy" in attributes else ""
    parts = [
        f"**{best:.2%}** validation accuracy{how} in epoch {attributes['best_epoch']} of {attributes['epochs']}",
        *([f"{floats:.2%} in float"] if floats is not None else []),
        f"{last:.2%} in the last" + ("" if floats is None else " in float"),
    ]
    if (delta := attributes.get("delta_vs_base")) is not None:
        parts.append(against_base(delta))
    limit = "" if "reference" in attributes else f", the budget is under {budget.params:,}"
    return f"{', '.join(parts)}; {params:,} parameters{limit}."


def _first(board: Mapping[str, Any]) -> str:
    """First rows of the leaderboard, the base above them."""
    base, rows = board["base"], []
    if base:
        rows.append(["", "base", *_cells(board, base), ""])
    for trial in board["trials"][:FIRST]:
        gap = "" if trial["delta_vs_base"] is None else f"{100 * trial['delta_vs_base']:+.2f}"
        if trial["rank"]:
            rows.append([str(trial["rank"]), str(trial["number"]), *_cells(board, trial), gap])
    accuracies = accuracy_columns(board, last="last epoch")
    return table(("rank", "trial", "params", *accuracies, "points against the base"), rows)


def _front(run: Run, candidates: list[Record], references: list[Record]) -> str | None:
    """First rows of the front of a study of several objectives; None if there is no front."""
    metrics = run.config.cost_metrics
    front = front_board(Opened(run, candidates, references), metrics) if metrics else {"trials": []}
    if not front["trials"]:
        return None
    shown, n = front | {"trials": front["trials"][:FRONT]}, len(front["trials"])
    more = f"\n\nAnd {n - FRONT:,} more: `{run.command.replace('search run ', 'search top ', 1)}`." if n > FRONT else ""
    return f"{escaped(front_words(front))}\n\n{markdown(front_table(shown))}{more}"


def _cells(board: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    params = "" if row["params"] is None else f"{row['params']:,}"
    return [params, *accuracy_cells(board, row)]


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
