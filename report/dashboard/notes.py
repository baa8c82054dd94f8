"""Markdown notes of a study and of its trials for optuna-dashboard."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from report.analysis import importance
from report.analysis.completion import unfinished_words
from report.analysis.verdict import against_base, judge
from report.markdown.effects import finals_section
from report.markdown.formatting import escaped, layer_table, markdown, protocol_words, table, without_paths
from report.pareto import front_board, front_table, front_words
from report.tables import accuracy_cells, accuracy_columns, gap_text, leaderboard, refusal_words, rule_words
from search.budget.limits import Budget
from search.finals.results import FinalsResult
from search.networks.architecture import Architecture
from search.storage.attributes import MEASURED, PROPOSAL, REFUSED
from search.study.config import StudyConfig
from search.study.dataset import images_of
from search.study.records import Record, proposal_words, trained_count
from search.study.run import KINDS, Opened, Run
from search.text import format_percent, format_percents
from search.training.measures import ACCURACY, MEASURES, other_measures
from search.tuning.bayes.expectation import Expectation

FIRST = 5  # rows of the leaderboard shown
FRONT = 20  # rows of the front shown
DRAWN = 5  # best candidates whose networks are drawn for the dashboard
EM_SPACE = "\u2003"


def trial_note(
    architecture: Architecture | None,
    attributes: Mapping[str, Any],
    budget: Budget,
    images: int | None = None,
    metric: str = ACCURACY,
) -> str:
    """Note of a trial: its outcome in one line, and its network layer by layer.

    Args:
        architecture: None if the sampled values describe no valid network.
        attributes: the user attributes of the trial, as `objective` writes them.
        images: number of validation images, which decides the decimals; None if it is unknown.
        metric: the measure by which the study ranks.
    """
    outcome = attributes.get("outcome", "unfinished")
    if outcome == "trained":
        line = _score(attributes, budget, images, metric)
    else:
        line = f"**{outcome.replace('_', ' ').capitalize()}:** {escaped(attributes.get('reason', 'no reason given'))}"
    reason = proposal_words(attributes.get(PROPOSAL, {}))
    line += f"\n\n{escaped(reason[0].upper() + reason[1:])}." if reason else ""
    told = [f"{count:,} {rule_words(rule)}" for rule, count in attributes.get(REFUSED, {}).items()]
    refused = f"\n\nRejected before this network was proposed: {', '.join(told)}." if told else ""
    return _roomy(line + refused + (f"\n\n{layer_table(architecture)}" if architecture else "") + "\n")


def objective(config: StudyConfig) -> str:
    """The dashboard's name for the value of a trial."""
    return f"best validation {config.metric_label}"


def study_note(
    run: Run,
    candidates: list[Record],
    references: list[Record],
    data: Mapping[str, Any],
    finals: FinalsResult | None = None,
    expected: Expectation | None = None,
) -> str:
    """Note of a study: verdict, progress, and how to read the dashboard.

    Args:
        data: facts of the images, see `search.study.dataset.data_facts`; empty before they were read.
        finals: their results; None if there are none.
        expected: of another training of the winner.
    """
    config, images = run.config, images_of(data, "validation")
    board = leaderboard(run, candidates, references, images)
    verdict = judge(run, board, finals, data, expected)
    kinds = "of separable convolutions only and " if config.budget.separable_only else ""
    counts = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in board["counts"].items())
    refused, unfinished = refusal_words(candidates), unfinished_words(run, candidates, references)
    question = f"Which network {kinds}strictly under {config.budget.words} classifies"
    paragraphs = [
        f"# {escaped(run.name)}: {verdict.title}",
        *([f"**{escaped(unfinished)}**"] if unfinished else []),
        escaped(verdict.text),
        f"{question} {escaped(config.data.name or 'these images')} best?",
        *(
            [f"**Objectives:** high {config.metric_label}; low {escaped(', '.join(config.cost_metrics))}."]
            if config.cost_metrics
            else []
        ),
        f"**Base:** {_base_line(config, board)}",
        f"**Trials:** {counts}; the study ends with {config.trials} trained{_rungs(config)}.",
        *([f"**Rejected before training:** {escaped(refused)}."] if refused else []),
        f"**Protocol {config.protocol}:** {protocol_words(config, finals)}",
        *([f"## The first {FIRST}\n\n{_first(board)}"] if board["trials"] and board["trials"][0]["rank"] else []),
        *([f"## The front\n\n{front}"] if (front := _front(run, candidates, references, data)) else []),
        *([f"## On fresh seeds\n\n{finals_section(finals, images)}"] if finals else []),
        f"## How to read this\n\n{_how_to_read(run, board)}",
    ]
    return _roomy(without_paths("\n\n".join(paragraphs) + "\n", run))


def references_note(run: Run) -> str:
    """Note of the sibling study that holds the references."""
    return (
        f"# {escaped(run.name)}.references: the base and other known networks\n\nThe networks that study "
        f"{escaped(run.name)} compares its candidates with, trained by the same code on the same data; no budget applies to "
        "them. Each trial's note shows its network layer by layer.\n"
    )


def finals_note(run: Run) -> str:
    """Note of the sibling study that holds the trainings of the finals."""
    return (
        f"# {escaped(run.name)}.finals: the best candidates and the base on fresh seeds\n\nEach trial is one training of "
        f"the finalist `contender` on seed `repeat`. The results and the verdict are in the note of {escaped(run.name)}.\n"
    )


def control_note(run: Run) -> str:
    """Note of the sibling study that holds the random control of the finals."""
    return (
        f"# {escaped(run.name)}.control: a random search of equal cost\n\nThe control of the finals: random candidates of "
        f"the same space and budget, trained for as many epochs as the search of {escaped(run.name)}.\n"
    )


def _roomy(text: str) -> str:
    """Widen the columns of every table, which the dashboard sets close together."""
    return re.sub(
        r"^\|(?! ?:?--).*", lambda row: re.sub(r"(?<=[^\\])\| (?! )", f"| {EM_SPACE}", row[0]), text, flags=re.MULTILINE
    )


_HOW_TO_READ = """\
- **{value} in the plots, is the best validation {measure} of one training over its epochs, a fraction (0.9 is 90%).
- **Pruned** trials have no value: they fell behind at a rung, diverged, or were rejected and never built; `outcome` and
  `reason` say why. Proposals rejected inside the sampler are redrawn and are no trials: `refused` counts them.
- **params** and **macs** are the network's parameters and its multiply-adds for one image.
- **best_val_accuracy**, **best_epoch**, **final_val_accuracy**: the value again, its epoch, and the last epoch's {measure}.
- **delta_vs_base** is the value less the base's best, 0.01 being one point; it compares single trainings.
- **Hyperparameter importance** of the dashboard has no test against chance. {importance}
- **The studies** {siblings} of the list belong to this one: the base and other known networks, the random control of the
  finals, and the trainings of the finals on fresh seeds.
- **The graphs** of the first page: learning curves of the base and of the best; {measure} against parameters and
  multiply-adds with the Pareto front; refused proposals. Hollow points were pruned.
- Each trial's own note shows its network layer by layer, and its files the drawing of it for the best {drawn}; the base
  itself is in the study {references}.
- When the study has its trials, the winner, the write-up and `card.png`, the result as a picture, are at the foot of the
  first page, to look at and to download."""


def _how_to_read(run: Run, board: Mapping[str, Any]) -> str:
    metrics = run.config.cost_metrics
    text = _HOW_TO_READ.format(
        value=f"Value 0**, *{run.config.search.metric}*" if metrics else f"Value**, *{objective(run.config)}*",
        measure=run.config.metric_label,
        references=escaped(f"{run.name}.references"),
        siblings=", ".join(escaped(f"{run.name}.{kind}") for kind in KINDS),
        importance=_importance_words(trained_count(board["counts"])),
        drawn=DRAWN,
    )
    if not metrics:
        return text
    others = ", ".join(f"value {index} is {name}" for index, name in enumerate(metrics, 1))
    return (
        f"- This study has several objectives: {others}, to be low while {run.config.metric_label} is to be high. "
        "**Best** trials of the dashboard are those of the front; where one list is needed, the most accurate come first.\n"
        f"{text}"
    )


def _importance_words(trained: int) -> str:
    """Remark on the dashboard's plot of importance, which does not say when it means nothing."""
    if trained < importance.FEWEST:
        return (
            f"With {trained} trials trained in full it means nothing: {importance.FEWEST} are needed, "
            f"{importance.STEADY} recommended."
        )
    few = f"; {trained} trials are few for it, {importance.STEADY} recommended" if trained < importance.STEADY else ""
    return f"report.html shows it beside the largest values that chance gives{few}."


def _rungs(config: StudyConfig) -> str:
    if not config.rungs:
        return ""
    return f" or pruned at a rung (after {', '.join(map(str, config.rungs))} of {config.planned_epochs} epochs)"


def _score(attributes: Mapping[str, Any], budget: Budget, images: int | None, metric: str) -> str:
    best, last, params = (attributes[key] for key in ("best_val_accuracy", "final_val_accuracy", "params"))
    floats, how = attributes.get("float_val_accuracy"), " in int8" if "float_val_accuracy" in attributes else ""
    epoch = f"in epoch {attributes['best_epoch']} of {attributes['epochs']}"
    parts = [
        f"**{format_percent(best, images)}** validation {MEASURES[metric].label}{how} {epoch}",
        *([format_percents(beside, images)] if (beside := other_measures(attributes.get(MEASURED, {}), metric)) else []),
        *([f"{format_percent(floats, images)} in float"] if floats is not None else []),
        f"{format_percent(last, images)} in the last" + ("" if floats is None else " in float"),
    ]
    if (delta := attributes.get("delta_vs_base")) is not None:
        parts.append(against_base(delta, images))
    limit = "" if "reference" in attributes else f", the budget is under {budget.params:,}"
    return f"{', '.join(parts)}; {params:,} parameters{limit}."


def _first(board: Mapping[str, Any]) -> str:
    """First rows of the leaderboard, the base above them."""
    base, rows = board["base"], []
    if base:
        rows.append(["", "base", *_cells(board, base), ""])
    for trial in board["trials"][:FIRST]:
        if trial["rank"]:
            rows.append([str(trial["rank"]), str(trial["number"]), *_cells(board, trial), gap_text(board, trial)])
    accuracies = accuracy_columns(board, last="last epoch")
    return table(("rank", "trial", "params", *accuracies, "points against the base"), rows)


def _front(run: Run, candidates: list[Record], references: list[Record], data: Mapping[str, Any]) -> str | None:
    """First rows of the front of a study of several objectives; None if there is no front."""
    metrics = run.config.cost_metrics
    if not metrics:
        return None
    front = front_board(Opened(run, candidates, references), metrics) | {"val_images": images_of(data, "validation")}
    if not front["trials"]:
        return None
    shown, n = front | {"trials": front["trials"][:FRONT]}, len(front["trials"])
    more = f"\n\nAnd {n - FRONT:,} more: `{run.command_of('top')}`." if n > FRONT else ""
    return f"{escaped(front_words(front))}\n\n{markdown(front_table(shown, is_page=True))}{more}"


def _cells(board: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    params = "" if row["params"] is None else f"{row['params']:,}"
    return [params, *accuracy_cells(board, row)]


def _base_line(config: StudyConfig, board: Mapping[str, Any]) -> str:
    base, name, images = board["base"], config.base_name, board["val_images"]
    if name is None:
        measure = MEASURES[config.search.metric]
        return f"{measure.with_article} to beat, {format_percent(base['best_val_accuracy'], images)}."
    if base is None:
        return f"{escaped(name)}, not trained yet."
    return (
        f"{escaped(name)}, {base['params']:,} parameters, {format_percent(base['best_val_accuracy'], images)} in epoch "
        f"{base['best_epoch']}, {format_percent(base['final_val_accuracy'], images)} in the last."
    )
