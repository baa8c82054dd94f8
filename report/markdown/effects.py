"""Finals and ablation effects as tables and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optuna

from report.markdown.formatting import escaped, markdown
from report.tables import Table
from search.finals.results import FinalsResult, leader_sentence
from search.finals.statistics import Comparison, Effect, effects, within
from search.study.records import records
from search.study.run import Run
from search.text import format_percent, format_percent_span, format_points, format_points_span, format_time

SCORE = "best_val_accuracy"
BLOCK = "repeat"


# --- finals ----------------------------------------------------------------------------------------------------------


def finals_section(results: FinalsResult, val_images: int | None = None) -> str:
    """The finalists as Markdown.

    Args:
        val_images: number of validation images, which decides the decimals of single trainings; None if it is unknown.
    """
    table = f"\n\n{markdown(finals_table(results, val_images))}\n\n{FINALS}" if results.finalists else ""
    return finals_leader(results) + table + "".join(f"\n\n{escaped(line)}" for line in finals_notes(results))


def finals_leader(results: FinalsResult) -> str:
    """The leader of the finals in one or two sentences; `report.analysis.verdict` judges the winner of the search."""
    sentence = leader_sentence(results)
    return sentence[0].upper() + sentence[1:]


def finals_table(results: FinalsResult, val_images: int | None = None) -> Table:
    """Table of finalists, best mean first, each compared with the base and with the leader."""
    rows = [
        (
            finalist.name,
            format_percent(finalist.mean, None),
            "" if finalist.interval is None else format_percent_span(*finalist.interval, None),
            _versus(finalist.against_base),
            _versus(finalist.against_leader),
            f"{finalist.params:,}",
            "" if finalist.spread is None else format_points(finalist.spread, None, sign=False),
            format_percent(finalist.search_score, val_images),
            format_points(finalist.winners_curse, None),
        )
        for finalist in results.finalists
    ]
    measured = f"mean {results.measure_label}"
    compared = ("95 % interval", "against base", "against leader")  # a phone shows the first columns
    columns = ("", measured, *compared, "params", "spread", "in the search", "flattered by")
    return Table(columns, rows)


def finals_notes(results: FinalsResult) -> list[str]:
    """Notes on the reading of the test images and on excluded finalists."""
    read = [f"The test images were read at {', '.join(map(format_time, results.test_read))}."] if results.test_read else []
    return read + [f"{name} is compared with none: {why}." for name, why in results.failed.items()]


FINALS = (
    "Every network was trained from scratch on the same fresh seeds; the spread is their standard deviation in points. "
    "Differences are in points, paired by seed, with 95 % intervals; a tie is a difference that chance can make. Both are "
    'adjusted for the number of comparisons (Holm). "Flattered by" is the score of the search less the mean of the best '
    "validation scores here: the winner's curse."
)


def _versus(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    span = _span(comparison) or " (the same on too few seeds to say)"
    return f"{format_points(comparison.difference, None)}{span}{', tie' if comparison.is_tie else ''}"


def _span(comparison: Comparison | Effect) -> str:
    """Interval adjusted like the verdict, in brackets."""
    if comparison.adjusted_low is None or comparison.adjusted_high is None:
        return ""
    return f" ({format_points_span(comparison.adjusted_low, comparison.adjusted_high, None)})"


# --- ablation --------------------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """Displayed effects: introductory text and tables."""

    words: str
    table: Table


def effects_section(run: Run, study: optuna.Study) -> str | None:
    """Effects of a grid study as Markdown; None until one seed has all cells."""
    return "\n\n".join(f"{escaped(one.words)}\n\n{markdown(one.table)}" for one in effects_shown(run, study)) or None


def effects_shown(run: Run, study: optuna.Study) -> list[Shown]:
    """Effect of each factor of a grid study on the best validation accuracy; empty until one seed has all cells."""
    factors = [name for name in run.config.parameters if name != BLOCK]
    rows = grid_rows(run, study) if run.config.search.sampler == "grid" and factors else []
    if not rows:
        return []
    estimates, seeds = effects(rows, factors, SCORE, BLOCK), len({row[BLOCK] for row in rows})
    text = _ABLATION.format(cells=len(rows) // seeds, seeds=seeds, measure=run.config.metric_label)
    shown = [Shown(text, _effects_table("factor", [one for one in estimates if len(one.factors) == 1]))]
    if together := [one for one in estimates if len(one.factors) == 2]:
        text = "Two factors together: by how much the first one's effect grows with the second."
        shown.append(Shown(text, _effects_table("factors", together)))
    for factor in factors if len(factors) > 1 else []:
        text = f"{_short(factor)} by the value of each other factor:"
        shown.append(Shown(text, _within(rows, factor, factors)))
    return shown


def grid_rows(run: Run, study: optuna.Study) -> list[dict[str, Any]]:
    """Factor values, seed and score of every trained cell, for the seeds that all cells have."""
    trials = study.get_trials(deepcopy=False)
    trained = [one for one in records(study) if one.outcome == "trained"]
    rows = [{BLOCK: 0} | trials[one.number].params | {SCORE: one.best_val_accuracy} for one in trained]
    cells, seeds = (run.config.size or 0) // run.config.search.repeats, Counter(row[BLOCK] for row in rows)
    return [row for row in rows if seeds[row[BLOCK]] == cells]


_ABLATION = (
    "{cells} cells, each trained on the same {seeds} seeds. An effect is the mean best validation {measure} at the one "
    "value less that at the other, over all cells, in points, with its 95 % interval from what cells and seeds leave "
    "unexplained. Intervals and verdicts are adjusted for the number of effects (Holm)."
)


def _effects_table(what: str, found: Sequence[Effect]) -> Table:
    rows = [(_named(one), format_points(one.difference, None), _span(one).strip(" ()"), _judged(one)) for one in found]
    return Table((what, "effect", "95 % interval", "verdict"), rows)


def _within(rows: Sequence[Mapping[str, Any]], factor: str, factors: Sequence[str]) -> Table:
    """Simple effects: of one factor at each value of every other."""
    lines = []
    for other in factors:
        if other != factor:
            for one in within(rows, factor, other, factors, SCORE, BLOCK):
                assert one.at
                at = f"{_short(one.at[0])} = {_word(one.at[1])}"
                lines.append((at, format_points(one.difference, None), _span(one).strip(" ()"), _judged(one)))
    return Table(("where", "effect", "95 % interval", "verdict"), lines)


def _named(effect: Effect) -> str:
    if len(effect.factors) == 1:
        return f"{_short(effect.factors[0])}: {_word(effect.level)} against {_word(effect.against)}"
    return " and ".join(f"{_short(name)} ({_word(level)})" for name, level in zip(effect.factors, effect.level, strict=True))


def _judged(effect: Effect) -> str:
    if effect.adjusted_p is None:
        return "unknown: one seed"
    return "may be chance" if effect.is_tie else "more" if effect.difference > 0 else "less"


def _short(name: str) -> str:
    return name.removeprefix("recipe.")


def _word(value: Any) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
